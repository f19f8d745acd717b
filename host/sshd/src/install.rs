//! `paygress-sshd install`: what an init container puts into a directory for a container of any
//! image.
//!
//! ```text
//! DIR/paygress-sshd            this program
//! DIR/busybox, DIR/bin/sh …    busybox and a link for each of its programs, if this image has it
//! DIR/host-keys                the keys of the server, which are kept if they exist
//! ```
//!
//! The public host keys go into the termination log: whoever reads the state of the init container
//! knows them before the server listens.

use crate::account::Error;
use crate::host_keys;
use russh::keys::PrivateKey;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the project's own image has it.
const BUSYBOX: &str = "/bin/busybox";
/// Its programs that need more rights than a pod has, or a password.
const LEFT_OUT: [&str; 4] = ["busybox", "su", "login", "passwd"];

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot list the programs of /bin/busybox: {0}")]
    Busybox(#[source] io::Error),
    #[error(transparent)]
    HostKey(#[from] Error),
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
            let link = bin.join(applet);
            match symlink("../busybox", &link) {
                // The init container ran before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(failed(&link))?,
            }
        }
    }
    let keys = host_keys::kept(&host_keys)?;
    let lines: Vec<String> = keys.iter().map(public_line).collect::<Result<_, Error>>()?;
    std::fs::write(termination_log, lines.concat()).map_err(failed(termination_log))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Write { path, source }
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

/// Without a comment.
fn public_line(key: &PrivateKey) -> Result<String, Error> {
    let public = key.public_key().to_openssh()?;
    let fields: Vec<&str> = public.split(' ').take(2).collect();
    Ok(format!("{}\n", fields.join(" ")))
}
