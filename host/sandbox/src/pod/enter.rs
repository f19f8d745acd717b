//! The pod's files where bubblewrap is missing: its options, as far as a pod needs them, done in
//! the order in which they are given.
//!
//! `unshare` has made the namespaces. Here the old root is moved aside, a new one is made with parts
//! of it, and the old one is unmounted: what was not mounted into the new one is out of reach,
//! whatever the pod does.

use rustix::fs::{Mode, StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, mount_remount, unmount,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};
use rustix::process::{
    DumpableBehavior, Pid, WaitOptions, chdir, pivot_root, set_dumpable_behavior, umask, wait,
};
use rustix::system::sethostname;
use rustix::thread::{clear_ambient_capability_set, set_no_new_privs};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{File, create_dir, create_dir_all};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Where the roots are put together; what it held is seen below [`OLD`].
const BASE: &str = "/tmp";
const OLD: &str = "/old";
const NEW: &str = "/new";

#[derive(Debug, thiserror::Error)]
pub(crate) enum EnterError {
    #[error("unknown option {0:?}")]
    UnknownOption(OsString),
    #[error("an argument is missing")]
    MissingArgument,
    #[error("cannot {action}: {source}")]
    Failed { action: String, source: io::Error },
}

/// For `map_err`: names what failed.
fn during<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> EnterError {
    let action = action.into();
    move |source| EnterError::Failed { action, source: source.into() }
}

/// Runs the command in its new root, as process 1 until it ends.
pub(crate) fn enter(arguments: &[OsString]) -> Result<ExitCode, EnterError> {
    umask(Mode::from_raw_mode(0o022));
    leave_root().map_err(during("leave the root"))?;
    let mut arguments = arguments.iter();
    let directory = fill(&mut arguments)?;
    take_root().map_err(during("take the new root"))?;
    raise_loopback().map_err(during("raise the loopback interface"))?;
    run(arguments, directory)
}

/// Runs the command as process 1 until it ends, in a root that is there already. bubblewrap's own process
/// 1 has the pod's user, unless root has started it, and what it has open could be taken from it.
pub(crate) fn init(arguments: &[OsString]) -> Result<ExitCode, EnterError> {
    run(arguments.iter(), Path::new("."))
}

fn run<'a>(
    mut arguments: impl Iterator<Item = &'a OsString>,
    directory: &Path,
) -> Result<ExitCode, EnterError> {
    // What was needed for the mounts is not inherited by the command, nor taken from this process.
    clear_ambient_capability_set()
        .and_then(|()| set_no_new_privs(true))
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(during("drop rights"))?;
    let program = arguments.next().ok_or(EnterError::MissingArgument)?;
    let child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .spawn()
        .map_err(during(format!("start {}", program.display())))?;
    let child = Pid::from_child(&child);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == child => {
                let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
                return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
            }
            // An orphan.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(during("wait for the command")(error)),
        }
    }
}

/// Puts an empty root in place of the old one, which is at [`OLD`] then.
fn leave_root() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", BASE, "tmpfs", flags, c"mode=0755")?;
    let base = Path::new(BASE);
    let (old, new) = (inside(BASE, Path::new(OLD)), inside(BASE, Path::new(NEW)));
    create_dir(&old)?;
    create_dir(&new)?;
    mount("tmpfs", &new, "tmpfs", flags, c"mode=0755")?;
    pivot_root(base, &old)?;
    chdir("/")?;
    Ok(())
}

/// Unmounts all but the new root.
fn take_root() -> io::Result<()> {
    mount_change(OLD, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    unmount(OLD, UnmountFlags::DETACH)?;
    chdir(NEW)?;
    // The former root lies over the new one then, and is unmounted.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    Ok(())
}

/// A path as it is seen below one of the roots.
fn inside(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").unwrap_or(path))
}

/// What `--perms` and `--size` say of the next file system.
struct Tmpfs {
    mode: String,
    bytes: Option<String>,
}

impl Default for Tmpfs {
    fn default() -> Self {
        Self { mode: "0755".to_owned(), bytes: None }
    }
}

impl Tmpfs {
    fn mount(self, target: &Path) -> io::Result<()> {
        let size = self.bytes.map_or_else(String::new, |bytes| format!(",size={bytes}"));
        let data = CString::new(format!("mode={}{size}", self.mode))?;
        create_dir_all(target)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        Ok(mount("tmpfs", target, "tmpfs", flags, data.as_c_str())?)
    }
}

/// Does what the options say, up to `--`: the command's working directory.
fn fill<'a>(arguments: &mut impl Iterator<Item = &'a OsString>) -> Result<&'a Path, EnterError> {
    let mut directory = Path::new("/");
    let mut tmpfs = Tmpfs::default();
    loop {
        let option = value(arguments)?;
        let name = option.to_str().unwrap_or_default();
        if name == "--" {
            return Ok(directory);
        }
        let first = value(arguments)?;
        let target = inside(NEW, Path::new(first));
        let done = match name {
            "--perms" => {
                tmpfs.mode = first.to_string_lossy().into_owned();
                continue;
            }
            "--size" => {
                tmpfs.bytes = Some(first.to_string_lossy().into_owned());
                continue;
            }
            "--chdir" => {
                directory = Path::new(first);
                continue;
            }
            "--ro-bind" => bind_read_only(first, value(arguments)?),
            "--symlink" => symlink(first, inside(NEW, Path::new(value(arguments)?))),
            "--tmpfs" => std::mem::take(&mut tmpfs).mount(&target),
            // All directories have the mode 0755.
            "--dir" => create_dir_all(&target),
            "--proc" => mount_proc(&target),
            "--dev" => fill_dev(&target),
            "--remount-ro" => remount_read_only(&target),
            "--hostname" => sethostname(first.as_bytes()).map_err(io::Error::from),
            _ => return Err(EnterError::UnknownOption(option.clone())),
        };
        done.map_err(during(format!("do {name} {}", first.display())))?;
        tmpfs = Tmpfs::default();
    }
}

fn value<'a>(
    arguments: &mut impl Iterator<Item = &'a OsString>,
) -> Result<&'a OsString, EnterError> {
    arguments.next().ok_or(EnterError::MissingArgument)
}

fn bind_read_only(source: &OsStr, target: &OsStr) -> io::Result<()> {
    let (source, target) = (inside(OLD, Path::new(source)), inside(NEW, Path::new(target)));
    if source.is_dir() {
        create_dir_all(&target)?;
    } else {
        make_file(&target)?;
    }
    mount_bind_recursive(&source, &target)?;
    remount_read_only(&target)
}

/// To mount something on.
fn make_file(path: &Path) -> io::Result<()> {
    create_dir_all(path.parent().unwrap_or(Path::new(NEW)))?;
    File::create(path).map(drop)
}

fn remount_read_only(target: &Path) -> io::Result<()> {
    // In a user namespace none of those may be taken away.
    let kept = statvfs(target)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
    for (is, flag) in [
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        flags.set(flag, kept.contains(is));
    }
    Ok(mount_remount(target, flags, "")?)
}

fn mount_proc(target: &Path) -> io::Result<()> {
    create_dir_all(target)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("proc", target, "proc", flags, None::<&CStr>)?)
}

/// Devices without effect on the machine, and terminals of the pod's own.
fn fill_dev(target: &Path) -> io::Result<()> {
    create_dir_all(target)?;
    mount("tmpfs", target, "tmpfs", MountFlags::NOSUID, c"mode=0755")?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let device = target.join(name);
        make_file(&device)?;
        mount_bind(inside(OLD, &Path::new("/dev").join(name)), &device)?;
    }
    let terminals = target.join("pts");
    create_dir(&terminals)?;
    create_dir(target.join("shm"))?;
    let data = c"newinstance,ptmxmode=0666,mode=0620";
    mount("devpts", &terminals, "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, data)?;
    symlink("pts/ptmx", target.join("ptmx"))?;
    symlink("/proc/self/fd", target.join("fd"))?;
    for (number, name) in ["stdin", "stdout", "stderr"].into_iter().enumerate() {
        symlink(format!("/proc/self/fd/{number}"), target.join(name))?;
    }
    Ok(())
}

/// Sets the flag IFF_UP of the pod's first interface (rtnetlink(7)): programs expect 127.0.0.1.
fn raise_loopback() -> io::Result<()> {
    const LENGTH: u32 = 32;
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_AND_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    let mut request = Vec::new();
    request.extend(LENGTH.to_ne_bytes());
    request.extend(RTM_NEWLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST_AND_ACK.to_ne_bytes());
    // Sequence number and sender.
    request.extend([0; 8]);
    // Address family and type of the interface: any.
    request.extend([0; 4]);
    let first_interface: i32 = 1;
    request.extend(first_interface.to_ne_bytes());
    // The flags, and which of them change.
    request.extend(IFF_UP.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());
    // Without a protocol it is NETLINK_ROUTE.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    send(&socket, &request, SendFlags::empty())?;
    let mut answer = [0_u8; 256];
    recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    // After the header of 16 bytes: zero, or an error's number below zero.
    let code = answer.get(16..20).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
