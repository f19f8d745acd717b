//! The subsystem `sftp`: version 3 of the protocol with OpenSSH's extensions, as its `sftp-server`
//! has them. It runs in the server, which has the user's own rights, and every operation on a file
//! on a thread that may block.

mod extensions;
mod files;
mod listing;
mod stream;

pub(crate) use stream::serve;

use files::{Opened, Request};
use listing::Names;
use russh_sftp::protocol::{
    Attrs, Data, File, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode, Version,
};
use russh_sftp::server::{Handler, StatusReply};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Files and directories that one client has open.
const MAX_HANDLES: usize = 128;
/// The longest packet of a client, and of an answer to it, as OpenSSH's.
const MAX_PACKET_BYTES: u32 = 256 * 1_024;
/// What is left of it for the content of a file.
const MAX_DATA_BYTES: u32 = MAX_PACKET_BYTES - 1_024;
/// Names in one answer.
const NAMES_AT_ONCE: usize = 100;

/// The state of one client.
struct Sftp {
    home: Arc<PathBuf>,
    names: Arc<Names>,
    handles: HashMap<String, Opened>,
    next_handle: u64,
    /// Dropped with this: the client has gone.
    _ended: oneshot::Sender<()>,
}

type Answer<T> = Result<T, StatusReply>;

fn success(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Success".to_owned(),
        language_tag: String::new(),
    }
}

/// The codes and texts of OpenSSH's sftp-server.
fn failure(error: &io::Error) -> StatusReply {
    let (code, text) = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP) => {
            (StatusCode::NoSuchFile, "No such file")
        }
        Some(Errno::PERM | Errno::ACCESS | Errno::FAULT) => {
            (StatusCode::PermissionDenied, "Permission denied")
        }
        Some(Errno::NAMETOOLONG | Errno::INVAL) => (StatusCode::BadMessage, "Bad message"),
        Some(Errno::NOSYS) => (StatusCode::OpUnsupported, "Operation unsupported"),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => (StatusCode::Eof, "End of file"),
        _ => (StatusCode::Failure, "Failure"),
    };
    code.with_message(text)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failure(&error)),
        Err(_) => Err(StatusCode::Failure.into()),
    }
}

impl Sftp {
    fn path(&self, path: &str) -> PathBuf {
        self.home.join(path)
    }

    fn add(&mut self, id: u32, opened: Opened) -> Answer<Handle> {
        if self.handles.len() >= MAX_HANDLES {
            return Err(failure(&Errno::MFILE.into()));
        }
        let handle = self.next_handle.to_string();
        self.next_handle = self.next_handle.wrapping_add(1);
        self.handles.insert(handle.clone(), opened);
        Ok(Handle { id, handle })
    }

    fn file(&self, handle: &str) -> Answer<files::OpenFile> {
        match self.handles.get(handle) {
            Some(Opened::File(file)) => Ok(file.clone()),
            _ => Err(failure(&Errno::BADF.into())),
        }
    }

    /// An operation whose answer is whether it worked.
    async fn run(
        &self,
        id: u32,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Answer<Status> {
        blocking(work).await.map(|()| success(id))
    }

    async fn attributes(&self, id: u32, request: Request) -> Answer<Attrs> {
        blocking(move || files::attributes(&request)).await.map(|attrs| Attrs { id, attrs })
    }
}

impl Handler for Sftp {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        failure(&Errno::NOSYS.into())
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Answer<Version> {
        Ok(Version { extensions: extensions::offered(), ..Version::new() })
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        flags: OpenFlags,
        attrs: FileAttributes,
    ) -> Answer<Handle> {
        let path = self.path(&filename);
        let file = blocking(move || files::open(&path, flags, attrs.permissions)).await?;
        self.add(id, Opened::File(file))
    }

    async fn close(&mut self, id: u32, handle: String) -> Answer<Status> {
        match self.handles.remove(&handle) {
            Some(opened) => {
                // Closing may block.
                let close = move || {
                    drop(opened);
                    Ok(())
                };
                self.run(id, close).await
            }
            None => Err(failure(&Errno::BADF.into())),
        }
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Answer<Data> {
        let file = self.file(&handle)?;
        let data = blocking(move || file.read(offset, len.min(MAX_DATA_BYTES))).await?;
        Ok(Data { id, data })
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Answer<Status> {
        let file = self.file(&handle)?;
        self.run(id, move || file.write(offset, &data)).await
    }

    async fn lstat(&mut self, id: u32, path: String) -> Answer<Attrs> {
        self.attributes(id, Request::Link(self.path(&path))).await
    }

    async fn stat(&mut self, id: u32, path: String) -> Answer<Attrs> {
        self.attributes(id, Request::Path(self.path(&path))).await
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Answer<Attrs> {
        self.attributes(id, Request::Open(self.file(&handle)?)).await
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Answer<Status> {
        let request = Request::Path(self.path(&path));
        self.run(id, move || files::set_attributes(&request, &attrs)).await
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Answer<Status> {
        let request = Request::Open(self.file(&handle)?);
        self.run(id, move || files::set_attributes(&request, &attrs)).await
    }

    async fn opendir(&mut self, id: u32, path: String) -> Answer<Handle> {
        let path = self.path(&path);
        let directory = blocking(move || listing::Directory::open(path)).await?;
        self.add(id, Opened::Directory(Box::new(directory)))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Answer<Name> {
        let Some(Opened::Directory(mut directory)) = self.handles.remove(&handle) else {
            return Err(failure(&Errno::BADF.into()));
        };
        let names = Arc::clone(&self.names);
        let (directory, files) = blocking(move || {
            let files = directory.next(NAMES_AT_ONCE, &names);
            Ok((directory, files))
        })
        .await?;
        self.handles.insert(handle, Opened::Directory(directory));
        if files.is_empty() {
            return Err(failure(&io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Name { id, files })
    }

    async fn remove(&mut self, id: u32, filename: String) -> Answer<Status> {
        let path = self.path(&filename);
        self.run(id, move || Ok(rustix::fs::unlink(&path)?)).await
    }

    async fn mkdir(&mut self, id: u32, path: String, attrs: FileAttributes) -> Answer<Status> {
        let path = self.path(&path);
        self.run(id, move || files::make_directory(&path, attrs.permissions)).await
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Answer<Status> {
        let path = self.path(&path);
        self.run(id, move || std::fs::remove_dir(&path)).await
    }

    async fn realpath(&mut self, id: u32, path: String) -> Answer<Name> {
        let path = self.path(&path);
        let path = blocking(move || files::real_path(&path)).await?;
        Ok(one_name(id, &path))
    }

    async fn rename(&mut self, id: u32, oldpath: String, newpath: String) -> Answer<Status> {
        let (old, new) = (self.path(&oldpath), self.path(&newpath));
        self.run(id, move || files::rename(&old, &new)).await
    }

    async fn readlink(&mut self, id: u32, path: String) -> Answer<Name> {
        let path = self.path(&path);
        let target = blocking(move || std::fs::read_link(&path)).await?;
        Ok(one_name(id, &target))
    }

    /// OpenSSH's order: what the link points to comes first, against the draft.
    async fn symlink(&mut self, id: u32, target: String, link: String) -> Answer<Status> {
        let link = self.path(&link);
        self.run(id, move || std::os::unix::fs::symlink(target, &link)).await
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Answer<Packet> {
        self.extension(id, &request, data).await
    }
}

fn one_name(id: u32, path: &Path) -> Name {
    let name = path.to_string_lossy().into_owned();
    let file = File { filename: name.clone(), longname: name, attrs: FileAttributes::empty() };
    Name { id, files: vec![file] }
}
