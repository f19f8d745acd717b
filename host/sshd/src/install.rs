//! `paygress-sshd install`: what an init container puts into a directory for a container of any
//! image.
//!
//! ```text
//! DIR/paygress-sshd            this program
//! DIR/busybox, DIR/bin/sh …    busybox and a link for each of its programs, if this image has it
//! DIR/paygress-nostr           what extends the pod from inside, as DIR/bin/paygress-top-up, if
//!                              this image has it
//! DIR/host-keys                the keys of the server, which are kept if they exist
//! ```
//!
//! The public host keys go into the termination log: whoever reads the state of the init container
//! knows them before the server listens.
//!
//! Where root of the container must be nobody on its node, nothing is installed unless it is: no
//! container of that pod starts then.
//!
//! An image that has the same at the same places below its own root, and an empty directory
//! `host-keys`, needs no installation where it can be mounted itself.

use crate::host_keys;
use crate::keys::Error;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the project's own image has it.
const BUSYBOX: &str = "/bin/busybox";
/// Where the project's own image has `paygress-nostr`, and its names for the pod's user.
const NOSTR: &str = "/bin/paygress-nostr";
const NOSTR_LINKS: [&str; 2] = ["paygress-nostr", "paygress-top-up"];
/// Who the users of this process's namespace are outside of it.
const USER_MAP: &str = "/proc/self/uid_map";
/// Programs of busybox that need more rights than a pod has, or a password.
const LEFT_OUT: [&str; 4] = ["busybox", "su", "login", "passwd"];

/// How a server ends that requires a user namespace and has none, before it listens: as `EX_NOPERM` of
/// `sysexits.h`.
pub const NO_USER_NAMESPACE: u8 = 77;

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot list the programs of /bin/busybox: {0}")]
    Busybox(#[source] io::Error),
    #[error(transparent)]
    HostKey(#[from] Error),
    #[error("cannot read /proc/self/uid_map: {0}")]
    UserMap(#[source] io::Error),
    #[error("root of this pod is root of its node, which has no user namespaces")]
    RootOfNode,
}

/// Fails unless root of this container is another user outside: runtimes that know no user
/// namespaces may leave `hostUsers` out in silence, and nodes may differ.
///
/// # Errors
/// [`InstallError::RootOfNode`] or [`InstallError::UserMap`].
pub fn require_user_namespace() -> Result<(), InstallError> {
    let map = std::fs::read_to_string(USER_MAP).map_err(InstallError::UserMap)?;
    if is_root_nobody(&map) { Ok(()) } else { Err(InstallError::RootOfNode) }
}

/// Each line has the first user inside, the same outside, and how many follow.
fn is_root_nobody(map: &str) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u64> =
            line.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect();
        matches!(numbers.as_slice(), [0, outside, _] if *outside != 0)
    })
}

/// Installs the server, its tools and its host keys into a directory, and writes the public keys,
/// `kind base64` in each line, to a file.
///
/// # Errors
/// [`InstallError`].
pub fn install(directory: &Path, termination_log: &Path) -> Result<(), InstallError> {
    let (bin, host_keys) = (directory.join("bin"), directory.join("host-keys"));
    for path in [&bin, &host_keys] {
        std::fs::create_dir_all(path).map_err(failed(path))?;
    }
    let program = directory.join("paygress-sshd");
    std::env::current_exe().and_then(|own| copy(&own, &program)).map_err(failed(&program))?;
    if Path::new(BUSYBOX).exists() {
        let busybox = directory.join("busybox");
        copy(Path::new(BUSYBOX), &busybox).map_err(failed(&busybox))?;
        for applet in applets()? {
            link("../busybox", &bin.join(applet))?;
        }
    }
    if Path::new(NOSTR).exists() {
        let nostr = directory.join("paygress-nostr");
        copy(Path::new(NOSTR), &nostr).map_err(failed(&nostr))?;
        for name in NOSTR_LINKS {
            link("../paygress-nostr", &bin.join(name))?;
        }
    }
    let keys = host_keys::kept(&host_keys)?;
    let lines: Vec<String> =
        keys.iter().map(host_keys::public_line).collect::<Result<_, Error>>()?;
    std::fs::write(termination_log, lines.join("\n") + "\n").map_err(failed(termination_log))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Write { path, source }
}

fn link(target: &str, path: &Path) -> Result<(), InstallError> {
    match symlink(target, path) {
        // The init container ran before.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(failed(path)),
    }
}

/// Whole or not at all, and executable; a program that runs is not changed but replaced.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let directory = to.parent().unwrap_or(Path::new("/"));
    let mut copied = tempfile::NamedTempFile::new_in(directory)?;
    io::copy(&mut File::open(from)?, copied.as_file_mut())?;
    copied.as_file().set_permissions(Permissions::from_mode(0o755))?;
    copied.persist(to).map(drop).map_err(|error| error.error)
}

fn applets() -> Result<Vec<String>, InstallError> {
    let listed = Command::new(BUSYBOX).arg("--list").output().map_err(InstallError::Busybox)?;
    let is_wanted = |applet: &&str| !LEFT_OUT.contains(applet) && !applet.contains('/');
    let list = String::from_utf8_lossy(&listed.stdout);
    Ok(list.lines().filter(is_wanted).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_nobody_where_its_user_has_another_number_outside() {
        for (map, is_nobody) in [
            ("         0 2985230336      65536\n", true),
            ("         1     200000      65535\n         0     100000          1\n", true),
            // Of the node itself.
            ("         0          0 4294967295\n", false),
            ("      1000     100000          1\n", false),
            ("0 100000", false),
            ("0 100000 65536 1", false),
            ("0 -1 65536", false),
            ("", false),
        ] {
            assert_eq!(is_root_nobody(map), is_nobody, "{map}");
        }
    }
}
