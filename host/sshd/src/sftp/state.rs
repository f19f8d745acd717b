//! The state of one client, and how its requests are answered.

use super::answer::{Answer, blocking, failure, success};
use super::files::{self, OpenFile, Request};
use super::listing::{Directory, Names};
use super::packets::{NameEntry, names};
use bytes::Bytes;
use russh_sftp::protocol::{Attrs, FileAttributes, Handle, Status};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files and directories that one client has open.
pub(super) const MAX_HANDLES: usize = 128;

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
    names(id, &[NameEntry { long_name: name.clone(), name, attrs: FileAttributes::empty() }])
}
