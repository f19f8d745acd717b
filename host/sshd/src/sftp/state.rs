//! The state of one client, and how its requests are answered.

use super::answer::{Answer, blocking, failure, success};
use super::files::{self, OpenFile, Request};
use super::listing::{Directory, Names};
use super::packets::{NameEntry, names};
use crate::account::Account;
use bytes::Bytes;
use russh_sftp::protocol::{Attrs, FileAttributes, Handle, Status};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files and directories that one client has open, if the limit of the process is no lower: an open
/// directory takes memory.
const MAX_HANDLES: usize = 1_024;
/// Of the process's file descriptors: for logins, programs and other clients.
const RESERVED_FILES: u64 = 128;

/// How many files and directories one client may have open in a process with this limit of file
/// descriptors.
fn max_handles(limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return MAX_HANDLES };
    let left = limit.saturating_sub(RESERVED_FILES).max(limit.div_euclid(2));
    usize::try_from(left).unwrap_or(MAX_HANDLES).min(MAX_HANDLES)
}

/// What a handle stands for.
pub(super) enum Opened {
    File(OpenFile),
    Directory(Box<Directory>),
}

/// The state of one client.
pub(super) struct Sftp {
    pub(super) account: Arc<Account>,
    pub(super) names: Arc<Names>,
    pub(super) handles: HashMap<String, Opened>,
    pub(super) max_handles: usize,
    next_handle: u64,
}

impl Sftp {
    pub(super) fn new(account: Arc<Account>, names: Names) -> Self {
        let max_handles = max_handles(getrlimit(Resource::Nofile).current);
        let names = Arc::new(names);
        Self { account, names, handles: HashMap::new(), max_handles, next_handle: 0 }
    }

    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.account.home.join(path)
    }

    pub(super) fn add(&mut self, id: u32, opened: Opened) -> Answer<Handle> {
        if self.handles.len() >= self.max_handles {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_the_process_bounds_the_open_files() {
        for (limit, expected) in [
            (None, MAX_HANDLES),
            (Some(u64::MAX), MAX_HANDLES),
            (Some(1_152), MAX_HANDLES),
            (Some(1_024), 896),
            (Some(200), 100),
            (Some(0), 0),
        ] {
            assert_eq!(max_handles(limit), expected, "{limit:?}");
        }
    }
}
