//! What is built on amd64 for arm64: by Debian's cross compiler, with libraries and busybox of
//! Debian's packages, and checked with QEMU.

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
const READELF: &str = "aarch64-linux-gnu-readelf";
/// What the interpreter of every dynamic program is.
const LOADER: &str = "ld-linux-aarch64.so.1";

pub(super) fn set_linker(command: &mut Command) {
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
}

/// What a build and its check need.
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

pub(super) fn busybox() -> Result<PathBuf> {
    let files = packages(&["busybox-static"])?;
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| files.join(place));
    places.into_iter().find(|place| place.exists()).context("there is no busybox in its package")
}

/// The files of Debian's packages for arm64, by lists of its own: this system does not get another
/// architecture.
fn packages(names: &[&str]) -> Result<PathBuf> {
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
        let name = format!("{} for arm64", names.join(", "));
        step(&name, command.args(arguments).current_dir(&apt))
    };
    run(&["update"])?;
    run([&["download"][..], names].concat().as_slice())?;
    for entry in fs::read_dir(&apt)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "deb") {
            let mut extract = Command::new("dpkg-deb");
            output(extract.arg("-x").arg(path).arg(apt.join("files")))?;
        }
    }
    Ok(apt.join("files"))
}

/// The libraries that a program names, and what loads it: where each is, and its place in an image.
/// Not those of the cross compiler, which are older than Debian's updates.
pub(super) fn libraries(program: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let files = packages(&["libc6", "libgcc-s1"])?;
    let section = output(Command::new(READELF).arg("--dynamic").arg("--wide").arg(program))?;
    let directory = Path::new("lib/aarch64-linux-gnu");
    let mut found = vec![(files.join(directory).join(LOADER), Path::new("lib").join(LOADER))];
    for name in needed(&section).filter(|name| *name != LOADER) {
        found.push((files.join(directory).join(name), directory.join(name)));
    }
    Ok(found)
}

/// The names in what readelf prints of a program's dynamic section.
fn needed(section: &str) -> impl Iterator<Item = &str> {
    section
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split_once('[')?.1.split_once(']'))
        .map(|(name, _)| name)
}

/// What a program of this root file system prints, with no library but those there.
pub(super) fn run_in(rootfs: &Path, program: &str, argument: &str) -> Result<String> {
    let mut qemu = Command::new(QEMU);
    qemu.arg("-L").arg(rootfs).arg(rootfs.join(program.trim_start_matches('/'))).arg(argument);
    output(&mut qemu)
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

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn the_libraries_that_a_program_names_are_read() {
        let section = "Dynamic section at offset 0x1f0 contains 4 entries:
  Tag        Type                         Name/Value
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [ld-linux-aarch64.so.1]
 0x000000000000000e (SONAME)             Library soname: [libm.so.6]
";
        let names: Vec<&str> = needed(section).collect();
        assert_eq!(names, ["libc.so.6", "ld-linux-aarch64.so.1"]);
    }
}
