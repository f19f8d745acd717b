//! The subsystem `sftp`: version 3 of the protocol with OpenSSH's extensions, as its `sftp-server`
//! has them. It runs in the server, which has the user's own rights, and every operation on a file
//! on a thread that may block.

mod extensions;
mod files;
mod listing;
mod state;
mod stream;

pub(crate) use stream::serve;

use files::Request;
use russh_sftp::protocol::{
    Attrs, Data, FileAttributes, Handle, Name, OpenFlags, Packet, Status, Version,
};
use russh_sftp::server::{Handler, StatusReply};
use rustix::io::Errno;
use state::{Answer, MAX_DATA_BYTES, NAMES_AT_ONCE, Opened, Sftp, blocking, failure, one_name};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

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
