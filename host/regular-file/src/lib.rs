//! `paygress-regular-file`: files that a customer may have replaced by anything, by a FIFO, a device or
//! a file without end. Only regular ones are read, a part of bounded size, and nobody waits for the
//! other end of a FIFO.
//!
//! ```
//! use paygress_regular_file::read_text;
//! use std::path::Path;
//!
//! let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
//! assert!(read_text(&file, 4_096)?.contains("paygress-regular-file"));
//! assert!(read_text(&file, 8).is_err(), "it is longer");
//! assert!(read_text(Path::new("/dev/zero"), 8).is_err(), "it is no regular file");
//! # Ok::<(), std::io::Error>(())
//! ```

use rustix::fs::{Mode, OFlags, open};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// Opens a regular file to read it.
///
/// # Errors
/// It cannot be opened, or is anything else.
pub fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("not a file")) }
}

/// The first bytes of a regular file, `most` of them.
///
/// # Errors
/// As [`open_regular`], or it cannot be read.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (file, _) = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The whole text of a regular file.
///
/// # Errors
/// As [`read_at_most`], or it is longer than `most` bytes, or not UTF-8.
pub fn read_text(path: &Path, most: usize) -> io::Result<String> {
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let bytes = read_at_most(path, limit.saturating_add(1))?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    // Not what it holds, which may be secret.
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
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
            assert!(read_text(path, 8).is_err(), "{}", path.display());
        }
        assert_eq!(read_at_most(&large, 8).unwrap(), [0; 8]);
        assert!(read_text(&large, 8).is_err());
        let missing = read_at_most(&directory.path().join("missing"), 8).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_text_is_read_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        for (content, expected) in
            [("", Some("")), ("12345678", Some("12345678")), ("123456789", None)]
        {
            std::fs::write(&file, content).unwrap();
            assert_eq!(read_text(&file, 8).ok().as_deref(), expected, "{content}");
        }
        std::fs::write(&file, [0xff]).unwrap();
        assert!(read_text(&file, 8).is_err());
    }
}
