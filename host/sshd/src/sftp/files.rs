//! The operations on files, which may block.

use russh_sftp::protocol::{FileAttributes, OpenFlags};
use rustix::fs::{Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The bits of a mode that a client may set.
const MODE_BITS: u32 = 0o7777;

#[derive(Clone)]
pub(super) struct OpenFile {
    pub(super) file: Arc<File>,
    is_append: bool,
}

impl OpenFile {
    pub(super) fn read(&self, offset: u64, bytes: u32) -> io::Result<Vec<u8>> {
        let mut data = vec![0; usize::try_from(bytes).unwrap_or(0)];
        let read = self.file.read_at(&mut data, offset)?;
        if read == 0 && bytes > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        data.truncate(read);
        Ok(data)
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.is_append {
            return io::Write::write_all(&mut &*self.file, data);
        }
        self.file.write_all_at(data, offset)
    }

    /// Also by another name.
    pub(super) fn is_same_file(&self, other: &Self) -> io::Result<bool> {
        let (one, other) = (self.file.metadata()?, other.file.metadata()?);
        Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
    }
}

/// What a request is about.
pub(super) enum Request {
    Path(PathBuf),
    /// A path whose last part is not followed.
    Link(PathBuf),
    Open(OpenFile),
}

/// Never waits for the other end of a FIFO.
pub(super) fn open(path: &Path, flags: OpenFlags, mode: Option<u32>) -> io::Result<OpenFile> {
    let has = |flag: OpenFlags| flags.contains(flag);
    let mut open = OFlags::CLOEXEC | OFlags::NONBLOCK;
    open |= match (has(OpenFlags::READ), has(OpenFlags::WRITE)) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    for (flag, own) in [
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::CREATE, OFlags::CREATE),
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
        (OpenFlags::EXCLUDE, OFlags::EXCL),
    ] {
        open.set(own, has(flag));
    }
    let mode = Mode::from_raw_mode(mode.unwrap_or(0o666) & MODE_BITS);
    let file = File::from(rustix::fs::open(path, open, mode)?);
    Ok(OpenFile { file: Arc::new(file), is_append: has(OpenFlags::APPEND) })
}

pub(super) fn attributes(request: &Request) -> io::Result<FileAttributes> {
    Ok(describe(&match request {
        Request::Path(path) => std::fs::metadata(path)?,
        Request::Link(path) => std::fs::symlink_metadata(path)?,
        Request::Open(open) => open.file.metadata()?,
    }))
}

pub(super) fn describe(metadata: &Metadata) -> FileAttributes {
    let seconds = |time: i64| Some(u32::try_from(time.max(0)).unwrap_or(u32::MAX));
    FileAttributes {
        size: Some(metadata.len()),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
        permissions: Some(metadata.mode()),
        atime: seconds(metadata.atime()),
        mtime: seconds(metadata.mtime()),
        ..FileAttributes::empty()
    }
}

/// In OpenSSH's order; the last failure counts, and stops nothing.
pub(super) fn set_attributes(request: &Request, attrs: &FileAttributes) -> io::Result<()> {
    let mut done = Ok(());
    let mut note = |result: io::Result<()>| {
        if result.is_err() {
            done = result;
        }
    };
    if let Some(size) = attrs.size {
        note(set_size(request, size));
    }
    if let Some(mode) = attrs.permissions {
        note(set_mode(request, mode & MODE_BITS));
    }
    if let (Some(atime), Some(mtime)) = (attrs.atime, attrs.mtime) {
        note(set_times(request, atime, mtime));
    }
    if let (Some(uid), Some(gid)) = (attrs.uid, attrs.gid) {
        note(match request {
            Request::Path(path) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
            Request::Link(path) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
            Request::Open(open) => std::os::unix::fs::fchown(&open.file, Some(uid), Some(gid)),
        });
    }
    done
}

fn set_size(request: &Request, size: u64) -> io::Result<()> {
    match request {
        Request::Path(path) => {
            let open = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::WRONLY;
            File::from(rustix::fs::open(path, open, Mode::empty())?).set_len(size)
        }
        Request::Link(_) => Err(Errno::INVAL.into()),
        Request::Open(open) => open.file.set_len(size),
    }
}

fn set_mode(request: &Request, mode: u32) -> io::Result<()> {
    let permissions = std::fs::Permissions::from_mode(mode);
    match request {
        Request::Path(path) => std::fs::set_permissions(path, permissions),
        // Linux has no modes of links.
        Request::Link(_) => Err(Errno::OPNOTSUPP.into()),
        Request::Open(open) => open.file.set_permissions(permissions),
    }
}

fn set_times(request: &Request, atime: u32, mtime: u32) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, futimens, utimensat};
    let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    let times = Timestamps { last_access: at(atime), last_modification: at(mtime) };
    match request {
        Request::Path(path) => utimensat(CWD, path, &times, AtFlags::empty())?,
        Request::Link(path) => utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?,
        Request::Open(open) => futimens(&open.file, &times)?,
    }
    Ok(())
}

pub(super) fn make_directory(path: &Path, mode: Option<u32>) -> io::Result<()> {
    Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(mode.unwrap_or(0o777) & MODE_BITS))?)
}

/// Without replacing anything, as version 3 of the protocol has it.
pub(super) fn rename(old: &Path, new: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, renameat_with};
    match renameat_with(CWD, old, CWD, new, RenameFlags::NOREPLACE) {
        // File systems that cannot promise it.
        Err(Errno::INVAL | Errno::NOSYS) if std::fs::symlink_metadata(new).is_err() => {
            std::fs::rename(old, new)
        }
        Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::EXIST.into()),
        renamed => Ok(renamed?),
    }
}

/// The canonical path; its last part need not exist, as with OpenSSH.
pub(super) fn real_path(path: &Path) -> io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(error);
            };
            Ok(std::fs::canonicalize(parent)?.join(name))
        }
        resolved => resolved,
    }
}
