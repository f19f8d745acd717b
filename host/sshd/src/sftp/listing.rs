//! Directories, and the lines of `ls -l` that a client shows as they are.

use super::files;
use super::packets::NameEntry;
use crate::date::{DAY, civil, hour_and_minute};
use paygress_regular_file::read_at_most;
use russh_sftp::protocol::FileAttributes;
use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file older than this is listed with its year.
const HALF_A_YEAR: u64 = 365 / 2 * DAY;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// No more is read of `/etc/passwd` and `/etc/group`.
const MAX_NAMES_BYTES: u64 = 1_048_576;

/// The names of users and groups.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    pub(super) fn read() -> Self {
        let [users, groups] = ["/etc/passwd", "/etc/group"].map(|path| read_names(Path::new(path)));
        Self { users, groups }
    }

    pub(super) fn user(&self, id: u32) -> Option<&str> {
        self.users.get(&id).map(String::as_str)
    }

    pub(super) fn group(&self, id: u32) -> Option<&str> {
        self.groups.get(&id).map(String::as_str)
    }
}

fn read_names(path: &Path) -> HashMap<u32, String> {
    let bytes = read_at_most(path, MAX_NAMES_BYTES).unwrap_or_default();
    let file = String::from_utf8_lossy(&bytes);
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    file.lines().filter_map(entry).collect()
}

/// An open directory.
pub(super) struct Directory {
    path: PathBuf,
    /// What the system leaves out.
    dots: VecDeque<OsString>,
    entries: std::fs::ReadDir,
}

impl Directory {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let entries = std::fs::read_dir(&path)?;
        Ok(Self { path, dots: VecDeque::from([".".into(), "..".into()]), entries })
    }

    /// The next entries, none at the end. One that has gone meanwhile is left out.
    pub(super) fn next(&mut self, most: usize, names: &Names) -> Vec<NameEntry> {
        let mut entries = Vec::new();
        while entries.len() < most {
            let entry = self.dots.pop_front().map(Ok);
            let entry = entry.or_else(|| Some(self.entries.next()?.map(|entry| entry.file_name())));
            let name = match entry {
                Some(Ok(name)) => name,
                Some(Err(_)) | None => break,
            };
            entries.extend(describe(&self.path.join(&name), name, names));
        }
        entries
    }
}

fn describe(path: &Path, name: OsString, names: &Names) -> Option<NameEntry> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    let attrs = files::describe(&metadata);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let name = name.into_vec();
    let long_name = long_name(&attrs, metadata.nlink(), &name, names, now);
    Some(NameEntry { name, long_name, attrs })
}

fn long_name(attrs: &FileAttributes, links: u64, name: &[u8], names: &Names, now: u64) -> Vec<u8> {
    let (uid, gid) = (attrs.uid.unwrap_or(0), attrs.gid.unwrap_or(0));
    let user = names.user(uid).map_or_else(|| uid.to_string(), str::to_owned);
    let group = names.group(gid).map_or_else(|| gid.to_string(), str::to_owned);
    let size = attrs.size.unwrap_or(0);
    let (mode, date) =
        (mode(attrs.permissions.unwrap_or(0)), date(attrs.mtime.unwrap_or(0).into(), now));
    let columns = format!("{mode} {links:>4} {user:<8} {group:<8} {size:>8} {date} ");
    [columns.as_bytes(), name].concat()
}

/// `-rwxr-xr-x`
fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, symbol) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => symbol,
            (false, true) => symbol.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `Nov 27 16:24`, or `Nov 27  2024` for what is old, in UTC.
fn date(time: u64, now: u64) -> String {
    let (year, month, day) = civil(time.div_euclid(DAY));
    let month = MONTHS.get(month).copied().unwrap_or_default();
    if time <= now && now.saturating_sub(time) < HALF_A_YEAR {
        let (hour, minute) = hour_and_minute(time);
        return format!("{month} {day:>2} {hour:02}:{minute:02}");
    }
    format!("{month} {day:>2}  {year}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Root of a pod may put anything there.
    #[test]
    fn names_of_a_fifo_are_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (fifo, passwd) = (directory.path().join("fifo"), directory.path().join("passwd"));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(read_names(&fifo).is_empty());
        std::fs::write(&passwd, "root:x:0:0::/:/bin/sh\nno entry\n").unwrap();
        assert_eq!(read_names(&passwd), HashMap::from([(0, "root".to_owned())]));
    }

    #[test]
    fn lines_look_as_those_of_ls() {
        let names =
            Names { users: HashMap::from([(0, "root".to_owned())]), groups: HashMap::new() };
        let now = 1_764_260_000; // 27 November 2025, 16:13
        let line = |mode, mtime| {
            let attrs = FileAttributes {
                size: Some(42),
                uid: Some(0),
                gid: Some(7),
                permissions: Some(mode),
                mtime: Some(mtime),
                ..FileAttributes::empty()
            };
            String::from_utf8(long_name(&attrs, 2, b"a b", &names, now)).unwrap()
        };
        assert_eq!(
            line(0o100_644, 1_764_260_000),
            "-rw-r--r--    2 root     7              42 Nov 27 16:13 a b"
        );
        assert_eq!(
            line(0o041_777, 951_782_400),
            "drwxrwxrwt    2 root     7              42 Feb 29  2000 a b"
        );
        assert_eq!(
            line(0o104_755, 0),
            "-rwsr-xr-x    2 root     7              42 Jan  1  1970 a b"
        );
        assert_eq!(
            line(0o122_600, u32::MAX),
            "lrw---S---    2 root     7              42 Feb  7  2106 a b"
        );
    }
}
