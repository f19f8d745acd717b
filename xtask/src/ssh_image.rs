//! Builds the pods' SSH image without a container engine: a static server, busybox, and a user's
//! home.

use crate::run::{cargo, output, root, step, target};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const IMAGE: &str = "paygress.local/ssh:1";
/// The user of the pods: `user_id` of the pod-template policy.
const USER: u32 = 1000;

/// The build of the server, static.
pub(crate) fn build_of_server() -> Result<Command> {
    let mut command = cargo(&[
        "build",
        "--quiet",
        "--release",
        "--package",
        "paygress-sshd",
        "--target",
        TRIPLE,
    ])?;
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    Ok(command)
}

pub(crate) fn build() -> Result<()> {
    step("build the SSH server, static", &mut build_of_server()?)?;
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.context("busybox is missing: apt-get install busybox-static")?;
    let rootfs = target().join("ssh-image");
    if rootfs.exists() {
        fs::remove_dir_all(&rootfs)?;
    }
    fill(&rootfs, busybox)?;
    pack(&rootfs)
}

/// Puts together what the image holds.
fn fill(rootfs: &Path, busybox: &str) -> Result<()> {
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
        "proc",
        "dev",
        "sys",
    ] {
        fs::create_dir_all(rootfs.join(directory))?;
    }
    fs::copy(busybox, rootfs.join("bin/busybox"))?;
    fs::copy(
        target().join(TRIPLE).join("release/paygress-sshd"),
        rootfs.join("bin/paygress-sshd"),
    )?;
    for applet in output(Command::new(busybox).arg("--list"))?
        .lines()
        .filter(|applet| !matches!(*applet, "busybox" | "su" | "login" | "passwd"))
    {
        symlink("/bin/busybox", rootfs.join("bin").join(applet))
            .with_context(|| applet.to_owned())?;
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

fn pack(rootfs: &Path) -> Result<()> {
    let archive = target().join("ssh-image.tar");
    let mut pack = Command::new(root().join("k8s/testbed/oci-image"));
    pack.arg(&archive).arg(IMAGE).arg(rootfs);
    pack.args([
        "--entrypoint",
        r#"["/bin/paygress-sshd"]"#,
        "--user",
        &format!("{USER}:{USER}"),
        "--port",
        "2222",
    ]);
    step("pack the SSH image", &mut pack)
}
