//! What a pod finds of its own: its login, the end of its lease, and the names of its user.

use paygress_sshd::END_FILE;
use std::fs::{DirBuilder, OpenOptions, Permissions, set_permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The file of a login that holds the private host key; `Account::read` knows the others.
pub const HOST_KEY: &str = "host_key";

/// Where a pod's user is at home.
pub(crate) const HOME: &str = "/home/user";
const LEASE: &str = "lease";

/// Removed, with all that the pod left in it, when this is dropped.
pub(crate) struct PodDirectory {
    /// Without symbolic links: it is mounted from another root.
    path: PathBuf,
    owner: Option<u32>,
    _directory: TempDir,
}

impl PodDirectory {
    /// Readable for `owner` alone; without one, for whoever started pod.
    pub(crate) fn new(
        username: &str,
        user_id: u32,
        owner: Option<u32>,
        login: &[(&str, &[u8])],
    ) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("paygress-pod-").tempdir()?;
        let path = directory.path().canonicalize()?;
        let pod = Self { path, owner, _directory: directory };
        if owner.is_some() {
            // The pod may pass through, and change nothing: whoever started it writes there while it
            // runs, as root.
            set_permissions(&pod.path, Permissions::from_mode(0o711))?;
        }
        for name in ["login", LEASE, "home"] {
            DirBuilder::new().mode(0o700).create(pod.path.join(name))?;
            pod.own(&pod.path.join(name))?;
        }
        let user = format!("{username}:x:{user_id}:{user_id}::{HOME}:/bin/sh\n");
        let users = format!("root:x:0:0::/:/usr/sbin/nologin\n{user}");
        let groups = format!("root:x:0:\n{username}:x:{user_id}:\n");
        pod.write(&pod.path.join("passwd"), users.as_bytes())?;
        pod.write(&pod.path.join("group"), groups.as_bytes())?;
        for (name, content) in login {
            pod.write(&pod.login().join(name), content)?;
        }
        Ok(pod)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn login(&self) -> PathBuf {
        self.path.join("login")
    }

    /// Where it finds the end of its lease.
    pub(crate) fn lease(&self) -> PathBuf {
        self.path.join(LEASE)
    }

    /// Lets the pod know the end of its lease: whole or not at all.
    pub(crate) fn write_end(&self, json: &str) -> io::Result<()> {
        // Of this directory, so that the pod sees nothing of it.
        let new = self.path.join(END_FILE);
        let _ = std::fs::remove_file(&new);
        self.write(&new, json.as_bytes())?;
        std::fs::rename(new, self.lease().join(END_FILE))
    }

    /// Where it is at home if it has no files of its own.
    pub(crate) fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// The user that it runs as on this machine, if not as whoever started pod.
    pub(crate) fn owner(&self) -> Option<u32> {
        self.owner
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(content)?;
        // The file, and not what may be in its place.
        self.owner.map_or(Ok(()), |owner| fchown(&file, Some(owner), Some(owner)))
    }

    fn own(&self, path: &Path) -> io::Result<()> {
        self.owner.map_or(Ok(()), |owner| chown(path, Some(owner), Some(owner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const OWNER: u32 = 2_000_000_001;

    /// Else it has root give it any file, by a link in the place of the one that is being written.
    #[test]
    fn a_pod_with_a_user_of_its_own_changes_nothing_beside_its_own_directories() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let pod = PodDirectory::new("alice", OWNER, Some(OWNER), &[("password", b"x".as_slice())])
            .unwrap();
        pod.write_end("{}").unwrap();
        let found = |path: &Path| {
            let metadata = path.metadata().unwrap();
            (metadata.uid(), metadata.mode() & 0o777)
        };
        assert_eq!(found(pod.path()), (0, 0o711));
        for own in [pod.login(), pod.lease(), pod.home()] {
            assert_eq!(found(&own), (OWNER, 0o700), "{}", own.display());
        }
        for own in [pod.login().join("password"), pod.lease().join(END_FILE)] {
            assert_eq!(found(&own), (OWNER, 0o600), "{}", own.display());
        }
    }
}
