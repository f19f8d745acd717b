//! OpenSSH's extensions of the protocol.

use super::answer::{Answer, MAX_DATA_BYTES, MAX_PACKET_BYTES, blocking, failure};
use super::files::{self, Request};
use super::packets::{Arguments, encode, plain};
use super::state::{Sftp, one_name};
use crate::image;
use bytes::Bytes;
use russh_sftp::extensions::{LimitsExtension, Statvfs};
use russh_sftp::protocol::{ExtendedReply, FileAttributes, StatusCode};
use rustix::fs::StatVfs;
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

const RENAME: &str = "posix-rename@openssh.com";
const STATVFS: &str = "statvfs@openssh.com";
const FSTATVFS: &str = "fstatvfs@openssh.com";
const HARDLINK: &str = "hardlink@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const LSETSTAT: &str = "lsetstat@openssh.com";
const LIMITS: &str = "limits@openssh.com";
const EXPAND_PATH: &str = "expand-path@openssh.com";
const HOME_DIRECTORY: &str = "home-directory";
const COPY_DATA: &str = "copy-data";
const NAMES_BY_ID: &str = "users-groups-by-id@openssh.com";

/// Each with its version.
pub(super) fn offered() -> HashMap<String, String> {
    let version = |name: &str| if [STATVFS, FSTATVFS].contains(&name) { "2" } else { "1" };
    [
        RENAME,
        STATVFS,
        FSTATVFS,
        HARDLINK,
        FSYNC,
        LSETSTAT,
        LIMITS,
        EXPAND_PATH,
        HOME_DIRECTORY,
        COPY_DATA,
        NAMES_BY_ID,
    ]
    .into_iter()
    .map(|name| (name.to_owned(), version(name).to_owned()))
    .collect()
}

impl Sftp {
    pub(super) async fn extension(&self, id: u32, request: &str, data: Vec<u8>) -> Answer<Bytes> {
        let mut arguments = Arguments(data.into());
        match request {
            RENAME | HARDLINK => {
                let (old, new) = (arguments.name()?, arguments.name()?);
                let (old, new) = (self.path(old), self.path(new));
                let work = if request == RENAME { std::fs::rename } else { std::fs::hard_link };
                plain(self.run(id, move || work(old, new)).await?)
            }
            STATVFS => {
                let path = self.path(arguments.name()?);
                reply(id, &statvfs(blocking(move || Ok(rustix::fs::statvfs(&path)?)).await?))
            }
            FSTATVFS => {
                let open = self.file(&arguments.next::<String>()?)?;
                reply(id, &statvfs(blocking(move || Ok(rustix::fs::fstatvfs(&open.file)?)).await?))
            }
            FSYNC => {
                let open = self.file(&arguments.next::<String>()?)?;
                plain(self.run(id, move || open.file.sync_all()).await?)
            }
            LSETSTAT => {
                let request = Request::Link(self.path(arguments.name()?));
                let attrs = arguments.next::<FileAttributes>()?;
                let work = move || files::set_attributes(&request, &attrs);
                plain(self.run(id, work).await?)
            }
            LIMITS => reply(
                id,
                &LimitsExtension {
                    max_packet_len: MAX_PACKET_BYTES.into(),
                    max_read_len: MAX_DATA_BYTES.into(),
                    max_write_len: MAX_DATA_BYTES.into(),
                    max_open_handles: u64::try_from(self.max_handles).unwrap_or(0),
                },
            ),
            EXPAND_PATH => {
                let path = self.expand(&arguments.name()?).await?;
                one_name(id, &blocking(move || files::real_path(&path)).await?)
            }
            // There is only the one user.
            HOME_DIRECTORY => one_name(id, &self.account.home),
            COPY_DATA => self.copy_data(id, arguments).await,
            NAMES_BY_ID => self.names_by_id(id, arguments),
            _ => Err(failure(&Errno::NOSYS.into())),
        }
    }

    /// `~`, `~/path`, `~name` and `~name/path`.
    async fn expand(&self, path: &OsStr) -> Answer<PathBuf> {
        let Some(rest) = path.as_bytes().strip_prefix(b"~") else { return Ok(self.path(path)) };
        let mut parts = rest.splitn(2, |byte| *byte == b'/');
        let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let below = parts.next().unwrap_or_default();
        let slashes = below.iter().take_while(|byte| **byte == b'/').count();
        let below = OsStr::from_bytes(below.get(slashes..).unwrap_or_default());
        Ok(self.home_of(name).await?.join(below))
    }

    /// The user's own home is that of the login, whatever `/etc/passwd` has; no name is the user.
    async fn home_of(&self, name: String) -> Answer<PathBuf> {
        if name.is_empty() || self.account.is_named(&name) {
            return Ok(self.account.home.clone());
        }
        let home = blocking(move || Ok(image::home_of(&name))).await?;
        home.ok_or_else(|| StatusCode::NoSuchFile.with_message("no such user"))
    }

    async fn copy_data(&self, id: u32, mut arguments: Arguments) -> Answer<Bytes> {
        let source = self.file(&arguments.next::<String>()?)?;
        let (mut from, length) = (arguments.next::<u64>()?, arguments.next::<u64>()?);
        let target = self.file(&arguments.next::<String>()?)?;
        let mut to = arguments.next::<u64>()?;
        let work = move || {
            // As with OpenSSH: the end of a file that grows by its own copy is never reached.
            if source.is_same_file(&target)? {
                return Err(io::Error::other("a file is not copied into itself"));
            }
            // Zero is all.
            let mut left = if length == 0 { u64::MAX } else { length };
            while left > 0 {
                let most = u32::try_from(left).unwrap_or(u32::MAX).min(MAX_DATA_BYTES);
                let data = match source.read(from, most) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && length == 0 => {
                        return Ok(());
                    }
                    read => read?,
                };
                target.write(to, &data)?;
                let copied = u64::try_from(data.len()).unwrap_or(0);
                (from, to) = (from.saturating_add(copied), to.saturating_add(copied));
                left = left.saturating_sub(copied);
            }
            Ok(())
        };
        plain(self.run(id, work).await?)
    }

    /// Two lists of ids in, two lists of names out; an id without a name has an empty one.
    fn names_by_id(&self, id: u32, mut arguments: Arguments) -> Answer<Bytes> {
        let (users, groups) = (ids(&mut arguments)?, ids(&mut arguments)?);
        let users: Vec<&str> =
            users.iter().map(|id| self.names.user(*id).unwrap_or_default()).collect();
        let groups: Vec<&str> =
            groups.iter().map(|id| self.names.group(*id).unwrap_or_default()).collect();
        let (users, groups) = (strings(&users)?, strings(&groups)?);
        let mut data = Vec::new();
        for list in [users, groups] {
            let length = u32::try_from(list.len()).unwrap_or(0);
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(&list);
        }
        plain(ExtendedReply { id, data })
    }
}

/// A string that is a list of numbers.
fn ids(arguments: &mut Arguments) -> Answer<Vec<u32>> {
    let length = usize::try_from(arguments.next::<u32>()?).unwrap_or(usize::MAX);
    if length > arguments.0.len() || length % 4 != 0 {
        return Err(failure(&Errno::INVAL.into()));
    }
    let mut list = Arguments(arguments.0.split_to(length));
    let mut ids = Vec::new();
    while !list.0.is_empty() {
        ids.push(list.next::<u32>()?);
    }
    Ok(ids)
}

fn strings(list: &[&str]) -> Answer<Vec<u8>> {
    let mut bytes = Vec::new();
    for text in list {
        bytes.extend_from_slice(&encode(text)?);
    }
    Ok(bytes)
}

fn reply(id: u32, value: &impl serde::Serialize) -> Answer<Bytes> {
    plain(ExtendedReply { id, data: encode(value)?.to_vec() })
}

fn statvfs(found: StatVfs) -> Statvfs {
    Statvfs {
        block_size: found.f_bsize,
        fragment_size: found.f_frsize,
        blocks: found.f_blocks,
        blocks_free: found.f_bfree,
        blocks_avail: found.f_bavail,
        inodes: found.f_files,
        inodes_free: found.f_ffree,
        inodes_avail: found.f_favail,
        fs_id: found.f_fsid,
        flags: found.f_flag.bits() & 3,
        name_max: found.f_namemax,
    }
}
