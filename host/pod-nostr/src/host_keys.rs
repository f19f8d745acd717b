//! The public host keys that `paygress-sshd install` has left.

use paygress_core::limits;
use paygress_core::model::host_key::HostKey;
use paygress_regular_file::read_text;
use std::io;
use std::path::{Path, PathBuf};

/// The kinds of the answers' first keys, in their order; others come after them.
const FIRST: [&str; 3] =
    ["ssh_host_ed25519_key.pub", "ssh_host_ecdsa_key.pub", "ssh_host_rsa_key.pub"];
/// A line, and its end.
const FILE_BYTES: usize = limits::PUBLIC_KEY_BYTES + 2;

/// The keys in the directory's `*.pub` files, as many as a pod has at most.
pub(crate) fn read(directory: &Path) -> io::Result<Vec<HostKey>> {
    let entries = std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = entries.collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "pub"));
    files.sort_by_key(|file| {
        let rank = FIRST.iter().position(|name| file.ends_with(name)).unwrap_or(FIRST.len());
        (rank, file.clone())
    });
    files.truncate(limits::HOST_KEYS);
    let texts: Vec<String> =
        files.iter().map(|file| read_text(file, FILE_BYTES)).collect::<io::Result<_>>()?;
    Ok(HostKey::parse_all(texts.iter().flat_map(|text| text.lines())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::testing::HOST_KEY;

    #[test]
    fn public_keys_are_read_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        write("ssh_host_ed25519_key", "a private key");
        write("ssh_host_ed25519_key.pub", &format!("{HOST_KEY} root@pod\n"));
        write("broken.pub", "ssh-ed25519 AAAA\n");
        let keys = read(directory.path()).unwrap();
        assert_eq!(keys, [HostKey::parse(HOST_KEY).unwrap()]);
        write("long.pub", &"x".repeat(FILE_BYTES + 1));
        assert!(read(directory.path()).is_err());
        assert!(read(&directory.path().join("none")).is_err());
    }
}
