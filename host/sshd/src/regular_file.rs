//! Files that a customer may have replaced by anything: a FIFO, a device, a file without end. Only
//! regular ones are read, a part of bounded size, and nobody waits for the other end of a FIFO.

use rustix::fs::{Mode, OFlags, open};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// Opens a regular file to read it; all else is an error.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("not a file")) }
}

/// The first bytes of a regular file, `most` of them.
pub(crate) fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (file, _) = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn only_a_part_of_a_regular_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let [fifo, device, large] =
            ["fifo", "device", "large"].map(|name| directory.path().join(name));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        symlink("/dev/zero", &device).unwrap();
        File::create(&large).unwrap().set_len(1 << 30).unwrap();
        for path in [fifo.as_path(), &device, directory.path()] {
            assert!(read_at_most(path, 8).is_err(), "{}", path.display());
        }
        assert_eq!(read_at_most(&large, 8).unwrap(), [0; 8]);
        let missing = read_at_most(&directory.path().join("missing"), 8).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
