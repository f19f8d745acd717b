//! The two servers that are compared, for the account of whoever runs the tests.

use crate::server::{PASSWORD, SecurityKey, free_port, keygen, program, text};
use paygress_sshd::{Account, HostKeys, Password, listen_on_both_families, parse_keys, serve};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// [`PASSWORD`] in `/etc/shadow`: `openssl passwd -6 -salt paygress`.
const PASSWORD_HASH: &str = "$6$paygress$7pxah4jva2O5va45Pcl0FVITE.g.yNnIzvUHE9nY92ZJPtFQEob6PBWPXivsMWmU6uPjfGDHzL38Pm1rscWZL.";
/// What sshd asks PAM, without what Debian has for people: the message of the day and limits.
const PAM: &str = "auth required pam_unix.so\naccount required pam_permit.so\n\
                   session required pam_mail.so quiet\n";
/// The kinds of the user's keys, the options of `ssh-keygen` for each.
const KEYS: [&[&str]; 4] =
    [&["ecdsa", "-b256"], &["ecdsa", "-b384"], &["ecdsa", "-b521"], &["rsa", "-b2048"]];

/// Keys with options, and the options. They are in the user's own file, which is theirs alone where
/// sshd has files of its own.
const OPTIONS: [(&str, &str); 18] = [
    ("command", r#"command="echo \"[$SSH_ORIGINAL_COMMAND]\"; cat; exit 3""#),
    ("sftp", r#"restrict,command="internal-sftp""#),
    ("restrict", "restrict"),
    ("pty", "RESTRICT,Pty"),
    ("no-pty", "no-pty,no-user-rc"),
    ("no-forwarding", "no-port-forwarding,no-agent-forwarding,no-X11-forwarding"),
    ("from", r#"from="!127.0.0.2,10.0.0.0/8,127.0.0.0/8""#),
    ("from-pattern", r#"from="host.invalid,127.0.0.?""#),
    ("from-mistake", r#"from="*,127.0.0.1/8""#),
    ("from-spelling", r#"from="*,!0x7f.1,!127.33""#),
    ("environment", r#"environment="OWN=1",environment="PATH=/none""#),
    ("expired", r#"expiry-time="20000101""#),
    ("unexpired", r#"expiry-time="209901011200Z""#),
    ("open", r#"permitopen="localhost:*",permitopen="[::1]:1""#),
    ("listen", r#"permitlisten="local*:*""#),
    ("unknown", "no-pty,unknown"),
    ("malformed", r#"environment="A-B=1""#),
    ("twice", r#"command="true",command="true""#),
];

/// The account of whoever runs the tests: name, home and shell.
pub(crate) struct User {
    pub(crate) name: String,
    home: PathBuf,
    shell: PathBuf,
    /// Whether sshd is given files of its own in place of the machine's.
    has_own_files: bool,
}

impl User {
    /// With an empty home in this directory, where sshd can be given it: the files by which a
    /// login shell begins are the person's, and may run what changes from one login to the next.
    pub(crate) fn current(files: &Path) -> Self {
        let id = text(&Command::new("id").arg("-u").output().unwrap().stdout);
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let own = fields.into_iter().find(|fields| fields[2] == id.trim()).unwrap();
        let has_own_files = id.trim() == "0" && has_own_mounts();
        let home = if has_own_files { files.join("home") } else { own[5].into() };
        std::fs::create_dir_all(&home).unwrap();
        Self { name: own[0].to_owned(), home, shell: own[6].into(), has_own_files }
    }
}

fn has_own_mounts() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--mount", "true"]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Keys and files of both servers, and what runs beside them until the end.
pub(crate) struct Files {
    directory: tempfile::TempDir,
    /// A security key, if there is Node.
    agent: Option<SecurityKey>,
}

impl Files {
    /// The user's keys: `key`, one of each kind, some that do not log in, those of a security key.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut lines = Vec::new();
        let mut add = |name: String| {
            lines.push(std::fs::read_to_string(path.join(format!("{name}.pub"))).unwrap());
        };
        keygen(&path.join("key"), &["ed25519"]);
        add("key".to_owned());
        for options in KEYS {
            keygen(&path.join(options.concat()), options);
            add(options.concat());
        }
        for number in 1..=7 {
            keygen(&path.join(format!("wrong{number}")), &["ed25519"]);
        }
        let agent = SecurityKey::start(path);
        if agent.is_some() {
            SecurityKey::NAMES.iter().for_each(|name| add((*name).to_owned()));
        }
        std::fs::write(path.join("authorized"), lines.concat()).unwrap();
        let with_options = OPTIONS.map(|(name, options)| {
            let key = path.join(format!("with-{name}"));
            keygen(&key, &["ed25519"]);
            let line = std::fs::read_to_string(key.with_extension("pub")).unwrap();
            format!("{options} {line}")
        });
        std::fs::write(path.join("with-options"), with_options.concat()).unwrap();
        let host_keys = path.join("host-keys");
        std::fs::create_dir(&host_keys).unwrap();
        for (name, options) in
            [("ed25519", &["ed25519"][..]), ("ecdsa", &["ecdsa"]), ("rsa", &["rsa", "-b2048"])]
        {
            keygen(&host_keys.join(format!("ssh_host_{name}_key")), options);
        }
        std::fs::write(path.join("connect.py"), include_str!("connect.py")).unwrap();
        Self { directory, agent }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn agent(&self) -> &Path {
        self.agent.as_ref().map_or(Path::new(""), |agent| agent.socket.as_path())
    }
}

/// The port of a server, and that of a slow link to it.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) server: u16,
    pub(crate) slow: u16,
}

impl Ports {
    fn of(server: u16) -> Self {
        Self { server, slow: slow_link(server) }
    }
}

/// A port whose connections reach another at 1.6 MB/s in each direction.
pub(crate) fn slow_link(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || copy_slowly(from, to));
            }
        }
    });
    port
}

fn copy_slowly(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = [0; 16_384];
    while let Ok(read) = from.read(&mut piece) {
        if read == 0 || to.write_all(&piece[..read]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Debian's sshd with a configuration of its own; ends with the test.
pub(crate) struct Reference {
    child: Child,
    pub(crate) ports: Ports,
    /// Whether it knows [`PASSWORD`], and the keys with options.
    pub(crate) has_own_files: bool,
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None` where there is none.
pub(crate) fn reference(files: &Path, user: &User) -> Option<Reference> {
    let sshd = program("sshd")?;
    let (port, has_own_files) = (free_port(), user.has_own_files);
    let host_key = |kind: &str| {
        format!("HostKey {}\n", files.join(format!("host-keys/ssh_host_{kind}_key")).display())
    };
    let configuration = format!(
        "Port {port}\nListenAddress 127.0.0.1\nListenAddress ::1\n{}PidFile none\n\
         StrictModes no\nAuthorizedKeysFile {} {}\nUsePAM {}\nPermitRootLogin yes\n\
         PasswordAuthentication yes\nKbdInteractiveAuthentication yes\nAcceptEnv LANG LC_*\n\
         Subsystem sftp internal-sftp\nPrintMotd no\nPrintLastLog no\n",
        ["ed25519", "ecdsa", "rsa"].map(host_key).concat(),
        files.join("authorized").display(),
        files.join("with-options").display(),
        if has_own_files { "yes" } else { "no" },
    );
    let file = files.join("sshd_config");
    std::fs::write(&file, configuration).unwrap();
    // For the separation of privileges, if this is root.
    let _ = std::fs::create_dir_all("/run/sshd");
    let mut command = if has_own_files { with_own_files(files, user) } else { Command::new("env") };
    command.arg(sshd).args(["-D", "-e", "-f"]).arg(file).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "sshd has ended: is there a user sshd?");
        assert!(started.elapsed() < Duration::from_secs(20), "sshd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(Reference { child, ports: Ports::of(port), has_own_files })
}

/// What starts a program for which the user has the password and the home; nobody else sees it.
fn with_own_files(files: &Path, user: &User) -> Command {
    let home = user.home.to_str().unwrap();
    std::fs::write(files.join("shadow"), changed("/etc/shadow", user, 1, PASSWORD_HASH)).unwrap();
    std::fs::write(files.join("passwd"), changed("/etc/passwd", user, 5, home)).unwrap();
    std::fs::write(files.join("pam"), PAM).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg(
        "mount --bind \"$1\" /etc/shadow && mount --bind \"$2\" /etc/passwd && \
         mount --bind \"$3\" /etc/pam.d/sshd && shift 3 && exec \"$@\"",
    );
    command.arg("sh").args(["shadow", "passwd", "pam"].map(|name| files.join(name)));
    command
}

/// The machine's file of accounts with another value in a field of the user's line.
fn changed(file: &str, user: &User, field: usize, value: &str) -> String {
    let machines = std::fs::read_to_string(file).unwrap();
    let lines = machines.lines().map(|line| {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields[0] == user.name {
            fields[field] = value;
        }
        fields.join(":") + "\n"
    });
    lines.collect()
}

/// Our server for the same account.
pub(crate) struct Ours {
    pub(crate) ports: Ports,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Ours {
    pub(crate) async fn start(files: &Path, user: &User) -> Self {
        let listener = listen_on_both_families(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let account = Account {
            keys: parse_keys(&std::fs::read_to_string(files.join("authorized")).unwrap()).unwrap(),
            shell: user.shell.clone(),
            ..Account::new(user.name.clone(), Password::new(PASSWORD), user.home.clone())
        };
        if user.has_own_files {
            let own = user.home.join(".ssh");
            std::fs::create_dir_all(&own).unwrap();
            let file = own.join("authorized_keys");
            std::fs::copy(files.join("with-options"), &file).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let host_keys = HostKeys::in_directory(&files.join("host-keys")).unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listener, account, host_keys, stopped));
        Self { ports: Ports::of(port), stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}
