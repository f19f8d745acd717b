//! What a pod's image has of what a login needs: a name, a shell, a home, a search path and a place
//! for temporary files.
//!
//! What is missing is made where that is possible, or comes from the tools that `install` has put
//! beside the server. Nothing that the image has is replaced, and nothing here is an error: a login
//! must work in an image that is empty and read-only as well.

use paygress_regular_file::open_regular;
use rustix::fs::{Access, access};
use rustix::process::{getgid, getuid};
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const PASSWD: &str = "/etc/passwd";
/// A larger file is left alone.
const MAX_PASSWD_BYTES: u64 = 1_048_576;
/// The search path of an image that has none, as container runtimes set it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// By their worth; the tools have the second one.
const SHELLS: [&str; 2] = ["bash", "sh"];
/// Where shells are, beside the search path.
const SHELL_DIRECTORIES: [&str; 3] = ["/bin", "/usr/bin", "/usr/local/bin"];
/// What an entry of /etc/passwd has for somebody who does not log in.
const NO_SHELLS: [&str; 2] = ["nologin", "false"];
/// Kubernetes makes the last one, whatever the image has.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// The home of the user of the project's own image.
const HOME: &str = "/home/user";
/// After all others of its directory.
const PROFILE: &str = "zz-paygress.sh";

/// The surroundings of a pod's user.
#[derive(Clone, Debug)]
pub struct Image {
    uid: u32,
    gid: u32,
    pub(crate) shell: PathBuf,
    pub(crate) home: PathBuf,
    /// The image's own variables, with the search path and the place for temporary files.
    pub(crate) environment: Vec<(OsString, OsString)>,
}

impl Image {
    /// Finds what there is for the user of this process. `tools` is the directory of `install`; a
    /// shell or home that is given is not searched for.
    #[must_use]
    pub fn find(tools: Option<&Path>, shell: Option<PathBuf>, home: Option<PathBuf>) -> Self {
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        let passwd = read_passwd(Path::new(PASSWD)).unwrap_or_default();
        let own = entries(&passwd).find(|entry| entry.uid == uid);
        let mut path =
            std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| PATH.into());
        let _ = make_temporary(Path::new("/tmp"));
        if let Some(tools) = tools {
            let bin = tools.join("bin");
            // Best effort: each of them needs a directory that the user may write.
            let _ = provide_shell(&bin.join("sh"), Path::new("/bin/sh"));
            let _ = keep_path(Path::new("/etc/profile.d"), &path, &bin);
            path.push(":");
            path.push(bin);
        }
        let own_shell = own.as_ref().map(|entry| Path::new(entry.shell));
        let shell = shell.unwrap_or_else(|| best_shell(own_shell, &path));
        let homes = [
            own.map(|entry| PathBuf::from(entry.home)),
            (uid == 0).then(|| "/root".into()),
            std::env::var_os("HOME").map(PathBuf::from),
            Some(HOME.into()),
        ];
        let home = home.unwrap_or_else(|| best_home(homes.into_iter().flatten()));
        let environment = environment(path, &home);
        Self { uid, gid, shell, home, environment }
    }

    /// The names besides the customer's that log in: whoever is root is known as that too.
    pub(crate) fn aliases(&self) -> Vec<String> {
        if self.uid == 0 { vec!["root".to_owned()] } else { Vec::new() }
    }

    /// Adds the user to the container's own /etc/passwd, so that prompts and `whoami` show a name.
    /// If the file cannot be written, the user is shown as a number, and nothing else changes.
    pub fn name_user(&self, username: &str) {
        let name = if self.uid == 0 { "root" } else { username };
        if let Err(error) = self.add_entry(Path::new(PASSWD), name) {
            tracing::debug!(%error, "the user has no entry in /etc/passwd");
        }
    }

    /// Adds an entry, unless the user or the name has one.
    fn add_entry(&self, passwd: &Path, name: &str) -> io::Result<()> {
        let text = match read_passwd(passwd) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let (home, shell) = (self.home.to_string_lossy(), self.shell.to_string_lossy());
        let is_field = |field: &str| !field.contains(|c: char| c == ':' || c.is_control());
        let fields: [&str; 3] = [name, &home, &shell];
        let is_possible = !name.is_empty() && fields.into_iter().all(is_field);
        let has_entry = |entry: PasswdEntry<'_>| entry.uid == self.uid || entry.name == name;
        if !is_possible || entries(&text).any(has_entry) {
            return Ok(());
        }
        if let Some(directory) = passwd.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let before = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let line = format!("{before}{name}:x:{}:{}::{home}:{shell}\n", self.uid, self.gid);
        OpenOptions::new().append(true).create(true).open(passwd)?.write_all(line.as_bytes())
    }
}

/// Where sockets and temporary files go; the home if there is no other place.
pub(crate) fn temporary_directory(home: &Path) -> PathBuf {
    // `TMPDIR`, or /tmp.
    let own = std::env::temp_dir();
    let mut places = [own].into_iter().chain(TEMPORARY.map(PathBuf::from));
    places.find(|place| is_writable(place)).unwrap_or_else(|| home.to_owned())
}

/// An entry of /etc/passwd.
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    home: &'a str,
    shell: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        // After the group and the comment.
        let home = fields.nth(2)?;
        Some(PasswdEntry { name, uid, home, shell: fields.next().unwrap_or_default() })
    })
}

/// The home of the user of this name.
pub(crate) fn home_of(name: &str) -> Option<PathBuf> {
    let passwd = read_passwd(Path::new(PASSWD)).ok()?;
    entries(&passwd).find(|entry| entry.name == name).map(|entry| entry.home.into())
}

fn read_passwd(path: &Path) -> io::Result<String> {
    let (file, metadata) = open_regular(path)?;
    if metadata.len() > MAX_PASSWD_BYTES {
        return Err(io::Error::other("not a file of a usual size"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_PASSWD_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

fn is_writable(directory: &Path) -> bool {
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    directory.is_dir() && access(directory, all).is_ok()
}

/// The user's own shell, or the best one of the image, or that of the tools, which are last in the
/// search path.
fn best_shell(own: Option<&Path>, path: &OsStr) -> PathBuf {
    let logs_in = |shell: &&Path| !NO_SHELLS.iter().any(|none| shell.ends_with(none));
    let own = own.filter(logs_in).map(Path::to_owned);
    let in_path = std::env::split_paths(path).filter(|directory| directory.is_absolute());
    let directories: Vec<PathBuf> =
        SHELL_DIRECTORIES.map(PathBuf::from).into_iter().chain(in_path).collect();
    let places =
        SHELLS.iter().flat_map(|name| directories.iter().map(move |place| place.join(name)));
    let mut shells = own.into_iter().chain(places);
    shells.find(|shell| is_program(shell)).unwrap_or_else(|| "/bin/sh".into())
}

/// The first of these homes that the user can write, or that can be made; or else one among the
/// temporary files.
fn best_home(homes: impl Iterator<Item = PathBuf>) -> PathBuf {
    let is_home = |home: &PathBuf| home.is_absolute() && home.parent().is_some();
    let spare = TEMPORARY.iter().map(|place| Path::new(place).join("home"));
    let mut homes = homes.filter(is_home).chain(spare);
    homes.find(|home| is_writable(home) || make_home(home).is_ok()).unwrap_or_else(|| "/".into())
}

/// For its user alone.
fn make_home(home: &Path) -> io::Result<()> {
    if let Some(parent) = home.parent() {
        std::fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(home)
}

/// For everybody, as far as it does not exist.
fn make_temporary(directory: &Path) -> io::Result<()> {
    std::fs::create_dir(directory)?;
    std::fs::set_permissions(directory, Permissions::from_mode(0o1777))
}

/// Scripts begin with `#!/bin/sh`.
fn provide_shell(spare: &Path, place: &Path) -> io::Result<()> {
    if !is_program(spare) {
        return Ok(());
    }
    if let Some(directory) = place.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // Fails where the image has one.
    symlink(spare, place)
}

/// `/etc/profile` of most images gives login shells a search path of its own.
fn keep_path(directory: &Path, path: &OsStr, bin: &Path) -> io::Result<()> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let (Some(path), Some(bin)) = (path.to_str().map(quoted), bin.to_str().map(quoted)) else {
        return Ok(());
    };
    let script = format!(
        "# Written by paygress-sshd: /etc/profile has replaced the search path of the image.\n\
         case \":$PATH:\" in\n*:{bin}:*) ;;\n*) export PATH={path}:\"$PATH\":{bin} ;;\nesac\n"
    );
    let file = directory.join(PROFILE);
    OpenOptions::new().write(true).create_new(true).open(file)?.write_all(script.as_bytes())
}

/// The container's variables: those of the image.
fn environment(path: OsString, home: &Path) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    variables.push(("PATH".into(), path));
    let temporary = temporary_directory(home);
    if temporary != std::env::temp_dir() {
        variables.push(("TMPDIR".into(), temporary.into()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::process::Command;

    fn image(uid: u32) -> Image {
        let (shell, home) = ("/bin/sh".into(), "/home/user".into());
        Image { uid, gid: 7, shell, home, environment: Vec::new() }
    }

    fn program(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn an_entry_is_added_only_where_neither_the_user_nor_the_name_has_one() {
        let root = tempfile::tempdir().unwrap();
        let passwd = root.path().join("etc/passwd");
        let node = "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash";
        for (before, uid, name, added) in [
            (None, 0, "root", "root:x:0:7::/home/user:/bin/sh\n"),
            (Some(""), 5, "alice", "alice:x:5:7::/home/user:/bin/sh\n"),
            (Some(node), 5, "alice", "\nalice:x:5:7::/home/user:/bin/sh\n"),
            (Some(node), 1000, "alice", ""),
            (Some(node), 0, "root", ""),
            (Some(node), 5, "node", ""),
            (Some(node), 5, "a:x:0:0::/:/bin/sh\nb", ""),
            (Some(node), 5, "", ""),
        ] {
            let _ = std::fs::remove_dir_all(passwd.parent().unwrap());
            if let Some(text) = before {
                std::fs::create_dir(passwd.parent().unwrap()).unwrap();
                std::fs::write(&passwd, text).unwrap();
            }
            image(uid).add_entry(&passwd, name).unwrap();
            let after = std::fs::read_to_string(&passwd).unwrap();
            assert_eq!(after, format!("{}{added}", before.unwrap_or_default()), "{uid} {name:?}");
        }
    }

    #[test]
    fn what_is_no_usual_passwd_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (directory, large) = (root.path().join("directory"), root.path().join("large"));
        std::fs::create_dir(&directory).unwrap();
        File::create(&large).unwrap().set_len(MAX_PASSWD_BYTES + 1).unwrap();
        for passwd in [directory, large] {
            assert!(image(5).add_entry(&passwd, "alice").is_err(), "{}", passwd.display());
        }
        assert_eq!(root.path().join("large").metadata().unwrap().len(), MAX_PASSWD_BYTES + 1);
    }

    #[test]
    fn the_best_shell_is_the_users_own_then_bash_then_sh() {
        let root = tempfile::tempdir().unwrap();
        let [own, first, last] = ["own/fish", "first/sh", "last/sh"].map(|it| root.path().join(it));
        [&own, &first, &last].into_iter().for_each(|path| program(path));
        let directories = [first.parent().unwrap(), last.parent().unwrap()];
        let path = std::env::join_paths(directories).unwrap();
        assert_eq!(best_shell(Some(&own), &path), own);
        // Debian has both where the tests run; here only the search path counts.
        let of_path = |shell: PathBuf| shell.starts_with(root.path()).then_some(shell);
        for none in ["/usr/sbin/nologin", "/bin/false", "/none/fish"] {
            let found = best_shell(Some(Path::new(none)), &path);
            assert_ne!(found, Path::new(none));
            assert!(of_path(found.clone()).is_none_or(|found| found == first), "{found:?}");
        }
        let bash = root.path().join("last/bash");
        program(&bash);
        let found = best_shell(None, &path);
        assert!(found.ends_with("bash"), "bash is better, wherever it is: {found:?}");
    }

    #[test]
    fn the_home_is_the_first_that_can_be_used_or_made() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let (below_file, new) = (file.join("home"), root.path().join("a/b"));
        let homes = ["relative".into(), "/".into(), file, below_file, new.clone()];
        assert_eq!(best_home(homes.into_iter()), new);
        assert_eq!(new.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_login_shell_finds_what_the_image_and_the_tools_have() {
        let root = tempfile::tempdir().unwrap();
        let (own, bin) = ("/opt/it's/bin:/bin", Path::new("/.paygress/bin"));
        keep_path(root.path(), OsStr::new(own), bin).unwrap();
        assert!(keep_path(root.path(), OsStr::new(own), bin).is_err(), "never twice");
        let file = root.path().join(PROFILE);
        let run = |path: &str| {
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(format!(". {}; /bin/echo \"$PATH\"", file.display()));
            let output = shell.env("PATH", path).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let replaced = run("/usr/bin:/usr/games");
        assert_eq!(replaced, format!("{own}:/usr/bin:/usr/games:/.paygress/bin\n"));
        let whole = format!("{own}:/.paygress/bin");
        assert_eq!(run(&whole), format!("{whole}\n"));
    }

    #[test]
    fn an_image_without_a_shell_gets_one_and_keeps_its_own() {
        let root = tempfile::tempdir().unwrap();
        let (spare, place) = (root.path().join("tools/sh"), root.path().join("bin/sh"));
        provide_shell(&spare, &place).unwrap();
        assert!(!place.exists(), "there is none to give");
        program(&spare);
        provide_shell(&spare, &place).unwrap();
        assert_eq!(std::fs::read_link(&place).unwrap(), spare);
        std::fs::remove_file(&place).unwrap();
        program(&place);
        assert!(provide_shell(&spare, &place).is_err());
        assert!(std::fs::read_link(&place).is_err());
    }
}
