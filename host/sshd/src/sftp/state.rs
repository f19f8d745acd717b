//! The state of one client, and how its requests are answered.

use super::files::{self, OpenFile, Request};
use super::listing::{Directory, Names};
use super::packets::{Entry, names};
use bytes::Bytes;
use russh_sftp::protocol::{Attrs, FileAttributes, Handle, Status, StatusCode};
use russh_sftp::server::StatusReply;
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files and directories that one client has open.
pub(super) const MAX_HANDLES: usize = 128;
/// The longest packet of a client, and of an answer to it, as OpenSSH's.
pub(super) const MAX_PACKET_BYTES: u32 = 256 * 1_024;
/// What is left of it for the content of a file.
pub(super) const MAX_DATA_BYTES: u32 = MAX_PACKET_BYTES - 1_024;
/// Names in one answer.
pub(super) const NAMES_AT_ONCE: usize = 100;

/// What a handle stands for.
pub(super) enum Opened {
    File(OpenFile),
    Directory(Box<Directory>),
}

/// The state of one client.
pub(super) struct Sftp {
    pub(super) home: Arc<PathBuf>,
    pub(super) names: Arc<Names>,
    pub(super) handles: HashMap<String, Opened>,
    pub(super) next_handle: u64,
}

pub(super) type Answer<T> = Result<T, StatusReply>;

pub(super) fn success(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Success".to_owned(),
        language_tag: String::new(),
    }
}

/// The codes and texts of OpenSSH's sftp-server.
pub(super) fn failure(error: &io::Error) -> StatusReply {
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

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failure(&error)),
        Err(_) => Err(StatusCode::Failure.into()),
    }
}

impl Sftp {
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.home.join(path)
    }

    pub(super) fn add(&mut self, id: u32, opened: Opened) -> Answer<Handle> {
        if self.handles.len() >= MAX_HANDLES {
            return Err(failure(&Errno::MFILE.into()));
        }
        let handle = self.next_handle.to_string();
        self.next_handle = self.next_handle.wrapping_add(1);
        self.handles.insert(handle.clone(), opened);
        Ok(Handle { id, handle })
    }

    pub(super) fn file(&self, handle: &str) -> Answer<OpenFile> {
        match self.handles.get(handle) {
            Some(Opened::File(file)) => Ok(file.clone()),
            _ => Err(failure(&Errno::BADF.into())),
        }
    }

    /// An operation whose answer is whether it worked.
    pub(super) async fn run(
        &self,
        id: u32,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Answer<Status> {
        blocking(work).await.map(|()| success(id))
    }

    pub(super) async fn attributes(&self, id: u32, request: Request) -> Answer<Attrs> {
        blocking(move || files::attributes(&request)).await.map(|attrs| Attrs { id, attrs })
    }
}

pub(super) fn one_name(id: u32, path: &Path) -> Answer<Bytes> {
    let name = path.as_os_str().as_bytes().to_vec();
    names(id, &[Entry { long_name: name.clone(), name, attrs: FileAttributes::empty() }])
}
