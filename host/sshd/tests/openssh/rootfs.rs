//! An image, imitated by a directory: the server runs in it as in a container, as process 1 of its
//! own namespaces, with what Kubernetes adds to every image.

use crate::server::{PASSWORD, TIMEOUT, client, text};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// As a container runtime does it, with a tools directory that is read-only. Arguments: the root,
/// `ro` or `rw`, and the command.
const CONTAINER: &str = r#"
set -e
root=$1 mode=$2; shift 2
mount --bind "$root" "$root"; cd "$root"
mount -t proc proc proc
mount -t tmpfs -o mode=755 dev dev
for device in null zero random urandom tty; do
  : > dev/$device; mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm; chmod 1777 dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount --bind .paygress .paygress; mount -o remount,bind,ro "$root/.paygress"
[ "$mode" = rw ] || mount -o remount,bind,ro "$root"
exec "$@"
"#;

pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_paygress-sshd");
const BUSYBOX: &str = "/bin/busybox";

/// The options of `unshare` with which this user can do so.
fn namespaces() -> Vec<&'static str> {
    let mut options = vec!["--mount", "--pid", "--fork", "--kill-child"];
    if !rustix::process::getuid().is_root() {
        options.extend(["--user", "--map-root-user"]);
    }
    options
}

/// Why the server cannot be run as this user of an image.
fn obstacle(uid: u32) -> Option<&'static str> {
    if !Path::new(BUSYBOX).exists() {
        return Some("busybox-static is not installed");
    }
    if uid != 0 && !rustix::process::getuid().is_root() {
        return Some("another user than root of an image needs root here");
    }
    let mut command = Command::new("unshare");
    command.args(namespaces()).args(["sh", "-c", "mount -t tmpfs tmpfs /tmp"]);
    let is_possible = command.stderr(Stdio::null()).status().is_ok_and(|it| it.success());
    (!is_possible).then_some("namespaces cannot be made")
}

/// Copies what can be run. By another program: what this process has open to write, a child of another
/// test has open too until it is another program, and nobody can run it meanwhile ("Text file busy").
fn install(file: &Path, place: &Path) {
    let mut install = Command::new("install");
    install.args(["-D", "-m", "755", "--"]).args([file, place]);
    assert!(install.status().unwrap().success(), "{}", place.display());
}

pub(crate) struct Rootfs {
    directory: tempfile::TempDir,
    uid: u32,
    /// What the init container leaves in its termination log.
    pub(crate) log: String,
}

impl Rootfs {
    /// The image `scratch` with what `install` adds, for this user; none, which fails in CI, where
    /// it cannot be run.
    pub(crate) fn scratch(uid: u32, test: &str) -> Option<Self> {
        if let Some(reason) = obstacle(uid) {
            assert!(std::env::var_os("CI").is_none(), "{test}: {reason}");
            println!("NOT RUN: {test}: {reason}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["dev", "proc", "run/paygress/login"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut install = Command::new(SERVER);
        install.arg("install").arg(root.join(".paygress"));
        install.arg("--termination-log").arg(log.path());
        assert!(install.status().unwrap().success());
        let log = std::fs::read_to_string(log.path()).unwrap();
        let rootfs = Self { directory, uid, log };
        rootfs.file("run/paygress/login/username", "alice");
        rootfs.file("run/paygress/login/password", PASSWORD);
        // Released, the server is static.
        rootfs.libraries(Path::new(SERVER));
        rootfs.give_to_user(".paygress");
        Some(rootfs)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(crate) fn file(&self, path: &str, content: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn script(&self, path: &str, content: &str) {
        let mut written = tempfile::NamedTempFile::new().unwrap();
        written.write_all(content.as_bytes()).unwrap();
        install(written.path(), &self.path(path));
    }

    /// A program of this machine, at the same place.
    pub(crate) fn program(&self, program: &Path) {
        self.copy(program);
        self.libraries(program);
    }

    /// A file of this machine, at the same place.
    pub(crate) fn copy(&self, file: &Path) {
        install(file, &self.directory.path().join(file.strip_prefix("/").unwrap()));
    }

    fn libraries(&self, program: &Path) {
        let listed = Command::new("ldd").arg(program).output().unwrap();
        for line in text(&listed.stdout).lines() {
            // `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`
            let path = line.split_whitespace().find(|field| field.starts_with('/'));
            path.into_iter().for_each(|path| self.copy(Path::new(path)));
        }
    }

    /// Makes a directory or file the user's, as far as this user may.
    pub(crate) fn give_to_user(&self, path: &str) {
        if rustix::process::getuid().is_root() {
            let mut chown = Command::new("chown");
            chown.arg("-R").arg(format!("{0}:{0}", self.uid)).arg(self.path(path));
            assert!(chown.status().unwrap().success());
        }
    }

    /// Starts the server as Kubernetes would, with `KEY=VALUE` of the image.
    pub(crate) fn start(&self, mode: &str, variables: &[&str]) -> Container {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut command = Command::new("unshare");
        command.args(namespaces()).args(["sh", "-c", CONTAINER, "sh"]);
        command.arg(self.directory.path()).arg(mode);
        command.args(["/usr/bin/env", "-i"]).args(variables).arg("/usr/sbin/chroot");
        if self.uid != 0 {
            command.arg(format!("--userspec={0}:{0}", self.uid));
        }
        command.arg(self.directory.path()).args(["/.paygress/paygress-sshd", "--tools"]);
        command.args(["/.paygress", "--host-keys", "/.paygress/host-keys", "--listen"]);
        command.arg(format!("127.0.0.1:{port}"));
        let container = Container { child: command.spawn().unwrap(), port };
        container.wait_until_it_listens()
    }
}

/// Ends with the test.
pub(crate) struct Container {
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Container {
    fn drop(&mut self) {
        // Process 1, and all of its namespace with it: what has become another user does not end with
        // `unshare` by itself.
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            if let Some(pid) = Pid::from_raw(child) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Container {
    fn wait_until_it_listens(mut self) -> Self {
        let started = Instant::now();
        let mut banner = [0; 4];
        while !TcpStream::connect(("127.0.0.1", self.port))
            .is_ok_and(|mut stream| stream.read_exact(&mut banner).is_ok())
        {
            assert!(self.child.try_wait().unwrap().is_none(), "the server has ended");
            assert!(started.elapsed() < TIMEOUT, "the server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// One of OpenSSH's programs, for this server.
    pub(crate) fn client(&self, program: &str, port: &str) -> Command {
        client(program, port, self.port, "ERROR")
    }

    /// What a command prints with both outputs, and that it works.
    pub(crate) fn run(&self, user: &str, options: &[&str], script: &str) -> String {
        let mut ssh = self.client("ssh", "-p");
        ssh.args(options).arg(format!("{user}@127.0.0.1")).arg(script);
        shown(&ssh.output().unwrap())
    }
}

pub(crate) fn shown(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr)).replace('\r', "")
}
