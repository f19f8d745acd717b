//! A static server, what speaks Nostr in pods, busybox, and a user's home.

use super::architecture::Architecture;
use super::arm64;
use super::settings::{SSH, USER};
use super::size;
use crate::run::{cargo, output, step, target};
use crate::sbom::{self, Product};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names of `paygress-nostr` beside its own.
const NOSTR_LINKS: [&str; 1] = ["paygress-top-up"];

/// The build of the server and of `paygress-nostr`, static.
pub(crate) fn build_of_server(architecture: Architecture) -> Result<Command> {
    let mut command = cargo(&[
        "build",
        "--quiet",
        "--release",
        "--package",
        "paygress-sshd",
        "--package",
        "paygress-pod-nostr",
        "--target",
        architecture.triple(),
    ])?;
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    if architecture == Architecture::Arm64 {
        arm64::set_linker(&mut command);
    }
    Ok(command)
}

pub(super) fn fill(architecture: Architecture, rootfs: &Path) -> Result<()> {
    if architecture == Architecture::Arm64 {
        arm64::prepare()?;
    }
    step("build the SSH server, static", &mut build_of_server(architecture)?)?;
    let built = target().join(architecture.triple()).join("release");
    let programs =
        Programs { server: built.join("paygress-sshd"), nostr: built.join("paygress-nostr") };
    let own = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|it| Path::new(it).exists());
    let own = own.context("busybox is missing: apt-get install busybox-static")?;
    let applets = output(Command::new(own).arg("--list"))?;
    let busybox = match architecture {
        Architecture::Amd64 => PathBuf::from(own),
        Architecture::Arm64 => {
            arm64::check(&programs.server, &programs.nostr)?;
            arm64::busybox()?
        }
    };
    put_together(rootfs, &programs, &busybox, &applets)?;
    sbom::write(Product::Ssh, architecture.triple(), &rootfs.join(sbom::IN_IMAGES))?;
    size::check(&SSH, rootfs)
}

/// What is built of the project's own.
struct Programs {
    server: PathBuf,
    nostr: PathBuf,
}

/// Puts together what the image holds.
fn put_together(rootfs: &Path, programs: &Programs, busybox: &Path, applets: &str) -> Result<()> {
    for directory in [
        "bin",
        "etc",
        "tmp",
        "home/user",
        "run/paygress",
        "var/tmp",
        "usr/bin",
        "usr/sbin",
        "sbin",
        "root",
        "host-keys",
        "proc",
        "dev",
        "sys",
    ] {
        fs::create_dir_all(rootfs.join(directory))?;
    }
    fs::copy(busybox, rootfs.join("bin/busybox"))?;
    fs::copy(&programs.server, rootfs.join("bin/paygress-sshd"))?;
    fs::copy(&programs.nostr, rootfs.join("bin/paygress-nostr"))?;
    for name in NOSTR_LINKS {
        symlink("paygress-nostr", rootfs.join("bin").join(name))?;
    }
    // What `paygress-sshd install` makes of it, for pods into which the image itself is mounted:
    // wherever that is, each link leads into it.
    for name in ["paygress-sshd", "paygress-nostr", "busybox"] {
        symlink(Path::new("bin").join(name), rootfs.join(name))?;
    }
    let left_out = ["busybox", "su", "login", "passwd"];
    for applet in applets.lines().filter(|applet| !left_out.contains(applet)) {
        symlink("busybox", rootfs.join("bin").join(applet)).with_context(|| applet.to_owned())?;
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/sbin/nologin\n")?;
    fs::write(rootfs.join("etc/group"), format!("root:x:0:\nuser:x:{USER}:\n"))?;
    fs::write(rootfs.join("etc/profile"), "export PS1='\\u@\\h:\\w\\$ '\n")?;
    for directory in ["tmp", "var/tmp"] {
        fs::set_permissions(rootfs.join(directory), fs::Permissions::from_mode(0o1777))?;
    }
    // The pod's user owns its home, and the file that gives it a name.
    for own in ["home/user", "etc/passwd"] {
        chown(rootfs.join(own), Some(USER), Some(USER))
            .context("building the image needs root, for the owner of the user's home")?;
    }
    Ok(())
}
