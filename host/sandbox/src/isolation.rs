//! How local pods are kept apart from the machine that they run on.
//!
//! A pod has mounts, processes, a network and a host name of its own. Its files are the machine's
//! `/usr`, read-only, and small file systems in memory for `/tmp` and its home; its network is a
//! loopback interface. The listener of its SSH server is opened outside and is its standard input.
//! It has no capability, cannot get one, and is not root outside.
//!
//! ```text
//! as root         bwrap … ─▶ paygress-pod init ────┬─▶ setpriv --reuid … ─▶ paygress-pod serve
//!                 unshare … ─▶ paygress-pod enter ─┘
//! as anybody else bwrap --unshare-user … ─▶ paygress-pod init ─┬─▶ paygress-pod serve
//!                 unshare --user … ─▶ paygress-pod enter ──────┘
//! ```
//! Programs are started with vectors of arguments, never by a shell; none of them is a secret.

use crate::pod_directory::{HOME, HOST_KEY, PodDirectory};
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program that a pod runs.
const PROGRAM: &str = "paygress-pod";
/// Where a pod finds it, its login, and the end of its lease.
const PROGRAM_INSIDE: &str = "/run/paygress/pod";
const LOGIN_INSIDE: &str = "/run/paygress/login";
const LEASE_INSIDE: &str = "/run/paygress/lease";
/// Where programs are found: outside and inside.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// As root a pod has the user of this number and its port: systemd's list of user ids has no use
/// for those above 1879048191.
const FIRST_USER: u32 = 2_000_000_000;
/// The user of a pod whose real one is whoever started this.
const USER_INSIDE: u32 = 1_000;
/// The size of a pod's home, of its `/tmp` and of its `/dev/shm`.
const TMPFS_BYTES: &str = "67108864";

/// What keeps a pod apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Namespaces, made by bubblewrap.
    Bubblewrap,
    /// Namespaces, made by `unshare` of util-linux and `paygress-pod`.
    Unshare,
    /// A user of its own, which needs root. Processes, network, and files that anybody may read are
    /// the machine's.
    OwnUser,
    /// Nothing: it runs as whoever started this, who must not be root.
    Nothing,
}

impl Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bubblewrap => "namespaces by bubblewrap",
            Self::Unshare => "namespaces by unshare",
            Self::OwnUser => "a user of its own",
            Self::Nothing => "no isolation",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    #[error(
        "paygress-pod is missing beside this program; run `cargo build --package paygress-sandbox`"
    )]
    NoProgram,
    #[error("{0} needs root")]
    NeedsRoot(Means),
    #[error("{0} is not for root: pods would run as root")]
    NotForRoot(Means),
    #[error("{means}: {reason}")]
    Failed { means: Means, reason: String },
    #[error("pods cannot be kept apart from this machine: {}", .0.join("; "))]
    NotPossible(Vec<String>),
}

/// A way to start pods that was tried on this machine.
#[derive(Clone, Debug)]
pub struct Isolation {
    means: Means,
    program: PathBuf,
    /// Why better means were not taken.
    refused: Vec<String>,
}

impl Isolation {
    /// The best that this machine permits: namespaces, or else, as root, a user of its own for each
    /// pod.
    ///
    /// # Errors
    /// [`IsolationError::NoProgram`], or [`IsolationError::NotPossible`] with all reasons.
    pub fn best() -> Result<Self, IsolationError> {
        let mut refused = Vec::new();
        for means in [Means::Bubblewrap, Means::Unshare, Means::OwnUser] {
            match Self::by(means) {
                Ok(isolation) => return Ok(Self { refused, ..isolation }),
                Err(IsolationError::NoProgram) => return Err(IsolationError::NoProgram),
                Err(error) => refused.push(error.to_string()),
            }
        }
        Err(IsolationError::NotPossible(refused))
    }

    /// These means and no others, if a pod runs with them.
    ///
    /// # Errors
    /// Why not.
    pub fn by(means: Means) -> Result<Self, IsolationError> {
        match (means, geteuid().is_root()) {
            (Means::OwnUser, false) => return Err(IsolationError::NeedsRoot(means)),
            (Means::Nothing, true) => return Err(IsolationError::NotForRoot(means)),
            _ => {}
        }
        let isolation = Self { means, program: find_program()?, refused: Vec::new() };
        isolation.check()?;
        Ok(isolation)
    }

    #[must_use]
    pub const fn means(&self) -> Means {
        self.means
    }

    /// Why [`Isolation::best`] has not found better means.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Runs a pod that tries what pods do.
    fn check(&self) -> Result<(), IsolationError> {
        let failed = |reason: String| IsolationError::Failed { means: self.means, reason };
        let pod = self.directory(0, "user", &[(HOST_KEY, b"".as_slice())]);
        let pod = pod.map_err(|error| failed(error.to_string()))?;
        let mut commands = vec![self.command(&pod, "check", "check")];
        // Whether it can be run.
        commands.extend(self.kill(&pod, "-L"));
        for mut command in commands {
            let name = command.get_program().to_string_lossy().into_owned();
            let output = command.stdin(Stdio::null()).output();
            let output = output.map_err(|error| failed(format!("cannot start {name}: {error}")))?;
            if !output.status.success() {
                let errors = String::from_utf8_lossy(&output.stderr);
                let last = errors.lines().last().unwrap_or("it printed no error");
                return Err(failed(format!("{last} ({})", output.status)));
            }
        }
        Ok(())
    }

    /// What a pod on this port finds of its own.
    pub(crate) fn directory(
        &self,
        port: u16,
        username: &str,
        login: &[(&str, &[u8])],
    ) -> io::Result<PodDirectory> {
        let owner = geteuid().is_root().then(|| FIRST_USER.saturating_add(u32::from(port)));
        let pod = PodDirectory::new(username, owner.unwrap_or(USER_INSIDE), owner, login)?;
        if self.means == Means::OwnUser {
            // Its user may not enter the directory that it is in.
            let copy = pod.path().join(PROGRAM);
            std::fs::hard_link(&self.program, &copy)
                .or_else(|_| copy_program(&self.program, &copy))?;
        }
        Ok(pod)
    }

    /// Starts `paygress-pod` in a pod of this host name.
    pub(crate) fn command(&self, pod: &PodDirectory, name: &str, role: &str) -> Command {
        let mut line = Arguments::default();
        match self.means {
            Means::Bubblewrap => line.bubblewrap(pod.owner()),
            Means::Unshare => {
                line.unshare(pod.owner());
                line.argument(&self.program);
                line.options("enter");
            }
            Means::OwnUser | Means::Nothing => return self.without_namespaces(pod, role),
        }
        line.files(&self.program, pod);
        line.options(&format!("--hostname {name} --chdir {HOME} --"));
        if self.means == Means::Bubblewrap {
            line.options(&format!("{PROGRAM_INSIDE} init"));
        }
        if let Some(owner) = pod.owner() {
            line.as_user(owner);
        }
        line.options(&format!("{PROGRAM_INSIDE} {role} {LOGIN_INSIDE} {LEASE_INSIDE} {HOME}"));
        line.command()
    }

    fn without_namespaces(&self, pod: &PodDirectory, role: &str) -> Command {
        let mut line = Arguments::default();
        let program = match pod.owner() {
            Some(owner) => {
                line.as_user(owner);
                pod.path().join(PROGRAM)
            }
            None => {
                line.options("setpriv --no-new-privs");
                self.program.clone()
            }
        };
        line.options("--pdeathsig KILL");
        line.argument(program);
        line.options(role);
        line.argument(pod.login());
        line.argument(pod.lease());
        line.argument(pod.home());
        line.command()
    }

    /// Ends what a process namespace would end with the pod.
    pub(crate) fn cleanup(&self, pod: &PodDirectory) -> Option<Command> {
        self.kill(pod, "-KILL -1")
    }

    /// `kill` as the user of a pod that has no process namespace.
    fn kill(&self, pod: &PodDirectory, options: &str) -> Option<Command> {
        let owner = pod.owner().filter(|_| self.means == Means::OwnUser)?;
        let mut line = Arguments::default();
        line.as_user(owner);
        line.options("kill");
        line.options(options);
        Some(line.command())
    }
}

/// Beside this program, or in the directory above: cargo puts tests one deeper.
fn find_program() -> Result<PathBuf, IsolationError> {
    let own = std::env::current_exe().and_then(|own| own.canonicalize()).unwrap_or_default();
    let mut candidates = own.ancestors().skip(1).take(2).map(|directory| directory.join(PROGRAM));
    candidates.find(|program| program.is_file()).ok_or(IsolationError::NoProgram)
}

/// By another program: what this process has open to write, a child that another thread starts has open
/// too until it is another program, and nobody can run it meanwhile ("Text file busy").
fn copy_program(from: &Path, to: &Path) -> io::Result<()> {
    let mut line = Arguments::default();
    line.options("install -m 755 --");
    line.argument(from);
    line.argument(to);
    let status = line.command().stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("install: {status}"))) }
}

/// A program and its arguments.
#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn argument(&mut self, argument: impl AsRef<OsStr>) {
        self.0.push(argument.as_ref().to_owned());
    }

    /// Several, apart by spaces.
    fn options(&mut self, options: &str) {
        self.0.extend(options.split_ascii_whitespace().map(OsString::from));
    }

    fn bind(&mut self, source: impl AsRef<Path>, target: impl AsRef<Path>) {
        self.options("--ro-bind");
        self.argument(source.as_ref());
        self.argument(target.as_ref());
    }

    fn bubblewrap(&mut self, owner: Option<u32>) {
        self.options("bwrap --unshare-ipc --unshare-pid --unshare-net --unshare-uts");
        self.options("--as-pid-1 --die-with-parent --new-session");
        if owner.is_none() {
            self.options(&format!("--unshare-user --uid {USER_INSIDE} --gid {USER_INSIDE}"));
        }
    }

    fn unshare(&mut self, owner: Option<u32>) {
        self.options("setpriv --pdeathsig KILL");
        self.options("unshare --mount --uts --ipc --net --pid --fork --kill-child=KILL");
        if owner.is_none() {
            self.options(&format!("--map-user={USER_INSIDE} --map-group={USER_INSIDE}"));
            // For `paygress-pod enter`, which gives them up.
            self.options("--keep-caps");
        }
    }

    /// Without root's rights, and without a way to them.
    fn as_user(&mut self, user: u32) {
        self.options(&format!("setpriv --reuid {user} --regid {user} --clear-groups"));
        self.options("--no-new-privs --bounding-set=-all --inh-caps=-all");
    }

    /// The files of a pod, in options of bubblewrap, which `paygress-pod enter` takes as well.
    fn files(&mut self, program: &Path, pod: &PodDirectory) {
        self.bind("/usr", "/usr");
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            let path = Path::new("/").join(name);
            match std::fs::read_link(&path) {
                Ok(target) => {
                    self.options("--symlink");
                    self.argument(target);
                    self.argument(path);
                }
                Err(_) if path.is_dir() => self.bind(&path, &path),
                Err(_) => {}
            }
        }
        // What the machine's owner has put there may be private.
        if std::fs::symlink_metadata("/usr/local").is_ok_and(|local| local.is_dir()) {
            self.options("--perms 0755 --size 65536 --tmpfs /usr/local");
        }
        self.options("--perms 0755 --dir /etc");
        for name in ["passwd", "group"] {
            self.bind(pod.path().join(name), Path::new("/etc").join(name));
        }
        // Of programs in /usr.
        for path in ["/etc/alternatives", "/etc/ld.so.cache"].map(Path::new) {
            if path.exists() {
                self.bind(path, path);
            }
        }
        self.options("--perms 0755 --dir /run --perms 0755 --dir /run/paygress");
        self.bind(program, PROGRAM_INSIDE);
        self.bind(pod.login(), LOGIN_INSIDE);
        self.bind(pod.lease(), LEASE_INSIDE);
        self.options("--proc /proc --dev /dev");
        for path in ["/dev/shm", "/tmp"] {
            self.options(&format!("--perms 1777 --size {TMPFS_BYTES} --tmpfs {path}"));
        }
        self.options("--perms 0755 --dir /home");
        // It has one user, who does not own what root has made.
        self.options(&format!("--perms 0777 --size {TMPFS_BYTES} --tmpfs {HOME}"));
        self.options("--remount-ro /dev --remount-ro /");
    }

    /// With no variable of whoever started this.
    fn command(self) -> Command {
        let mut arguments = self.0.into_iter();
        let mut command = Command::new(arguments.next().unwrap_or_default());
        command.args(arguments).env_clear().env("PATH", PATH).current_dir("/");
        command
    }
}
