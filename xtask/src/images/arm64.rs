//! The server, `paygress-nostr` and busybox for arm64, built on amd64 by Debian's cross compiler and
//! checked with QEMU.

use super::architecture::Architecture;
use super::pack::directory;
use crate::run::{output, remove_directory, step, toolchain};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINKER: &str = "aarch64-linux-gnu-gcc";
const QEMU: &str = "qemu-aarch64-static";

pub(super) fn set_linker(command: &mut Command) {
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
}

/// What the build and its check need.
pub(super) fn prepare() -> Result<()> {
    for (program, packages) in
        [(LINKER, "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"), (QEMU, "qemu-user-static")]
    {
        if output(Command::new(program).arg("--version")).is_err() {
            bail!("{program} is missing: apt-get install {packages}");
        }
    }
    toolchain(&[Architecture::Arm64.triple()])
}

/// That of Debian for arm64, by lists of its own: this system does not get another architecture.
pub(super) fn busybox() -> Result<PathBuf> {
    let apt = directory().join("apt-arm64");
    remove_directory(&apt)?;
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(apt.join("cache/archives/partial"))?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64"]);
        command.args(["-o", "Dir::State::status=/dev/null", "-o", "APT::Sandbox::User=root"]);
        command.arg("-o").arg(format!("Dir::State::Lists={}", apt.join("lists").display()));
        command.arg("-o").arg(format!("Dir::Cache={}", apt.join("cache").display()));
        step("busybox for arm64", command.args(arguments).current_dir(&apt))
    };
    run(&["update"])?;
    run(&["download", "busybox-static"])?;
    let mut files = fs::read_dir(&apt)?.filter_map(|entry| Some(entry.ok()?.path()));
    let package = files.find(|path| path.extension().is_some_and(|it| it == "deb"));
    let mut extract = Command::new("dpkg-deb");
    extract.arg("-x").arg(package.context("there is no package")?).arg(apt.join("files"));
    output(&mut extract)?;
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| apt.join("files").join(place));
    places.into_iter().find(|place| place.exists()).context("there is no busybox in its package")
}

/// Installs, starts and logs in, by QEMU; the shell is this machine's. `paygress-nostr` prints its
/// help.
pub(super) fn check(server: &Path, nostr: &Path) -> Result<()> {
    let help = output(Command::new(QEMU).arg(nostr).arg("--help"))?;
    ensure!(help.starts_with("usage: "), "the arm64 paygress-nostr prints {help:?}");
    let directory = directory().join("check-arm64");
    remove_directory(&directory)?;
    let (tools, log) = (directory.join("tools"), directory.join("log"));
    fs::create_dir_all(directory.join("login"))?;
    fs::write(directory.join("login/username"), "alice")?;
    fs::write(directory.join("login/password"), "password")?;
    let mut install = Command::new(QEMU);
    install.arg(server).arg("install").arg(&tools).arg("--termination-log").arg(&log);
    step("install by the arm64 server", &mut install)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let keys = fs::read_to_string(&log)?;
    let known = keys.lines().map(|key| format!("[127.0.0.1]:{port} {key}\n"));
    let known_hosts = directory.join("known_hosts");
    fs::write(&known_hosts, known.collect::<String>())?;
    let mut serve = Command::new(QEMU);
    serve.arg(server).arg("--login").arg(directory.join("login"));
    serve.arg("--host-keys").arg(tools.join("host-keys")).arg("--home").arg(&directory);
    serve.args(["--shell", "/bin/sh", "--listen", &format!("127.0.0.1:{port}")]);
    let mut running = serve.spawn()?;
    let mut ssh = Command::new("sshpass");
    ssh.args(["-p", "password", "ssh", "-p", &port.to_string(), "alice@127.0.0.1"]);
    ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known_hosts.display()));
    // One each second, until it listens.
    ssh.args(["-o", "StrictHostKeyChecking=yes", "-o", "ConnectionAttempts=30", "echo in"]);
    let shown = output(&mut ssh);
    running.kill()?;
    running.wait()?;
    let shown = shown.context("the login at the arm64 server")?;
    ensure!(shown == "in", "the arm64 server's shell prints {shown:?}");
    remove_directory(&directory)
}
