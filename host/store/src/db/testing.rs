//! A Postgres server for one test, in a temporary directory and on a free port; and a directory that
//! costs no time.

use paygress_core::model::secret::Secret;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Starting takes about a second.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The server refuses to run as root.
const USER: &str = "postgres";

/// A temporary directory, in memory where there is a place for one: for tests that write much, and
/// measure something else.
pub fn fast_directory() -> io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

/// Stopped when it is dropped.
pub struct Server {
    child: Child,
    port: u16,
    databases: AtomicUsize,
    directory: tempfile::TempDir,
}

fn programs() -> io::Result<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    versions.sort();
    versions.pop().ok_or_else(|| {
        io::Error::other("Postgres is not installed; run apt-get install postgresql")
    })
}

/// A command that runs a Postgres program; as its own user when this process is root's.
fn command(program: &Path) -> io::Result<Command> {
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(program);
    Ok(command)
}

/// A directory that the server's user may use.
fn own_directory() -> io::Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    if std::fs::metadata("/proc/self")?.uid() == 0 {
        let passwd = std::fs::read_to_string("/etc/passwd")?;
        let line = passwd.lines().find(|line| line.starts_with(&format!("{USER}:")));
        let id = line
            .and_then(|line| line.split(':').nth(2)?.parse().ok())
            .ok_or_else(|| io::Error::other("there is no user postgres"))?;
        chown(directory.path(), Some(id), None)?;
    }
    Ok(directory)
}

/// Makes the files of an empty database.
fn initialize(bin: &Path, data: &Path) -> io::Result<()> {
    let initialized = command(&bin.join("initdb"))?
        .args(["--no-sync", "--auth=trust", "--username=paygress"])
        .args(["--encoding=UTF8", "--locale=C", "-D"])
        .arg(data)
        .stdout(Stdio::null())
        .status()?;
    if !initialized.success() {
        return Err(io::Error::other("initdb failed"));
    }
    Ok(())
}

/// Starts a server on the files in this directory, and on a port that is free now.
fn spawn(directory: &Path) -> io::Result<(Child, u16)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let port_setting = format!("port={port}");
    let child = command(&programs()?.join("postgres"))?
        .arg("-D")
        .arg(directory.join("data"))
        .args(["-c", &port_setting, "-c", "listen_addresses=127.0.0.1"])
        .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
        .stdout(Stdio::null())
        .stderr(File::create(directory.join("log"))?)
        .spawn()?;
    Ok((child, port))
}

/// What a program prints; its messages are the error.
fn output(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// Tries until it succeeds.
fn eventually<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(_) if begun.elapsed() < TIMEOUT => std::thread::sleep(Duration::from_millis(20)),
            ended => return ended,
        }
    }
}

impl Server {
    /// # Errors
    /// When Postgres is not installed, or does not start.
    pub fn start() -> io::Result<Self> {
        let directory = own_directory()?;
        initialize(&programs()?, &directory.path().join("data"))?;
        Self::serve(directory)
    }

    /// Starts a standby of this server. From then on a commit here waits until it is there too.
    /// Blocks.
    ///
    /// # Errors
    /// When it does not start, or gets nothing.
    pub fn start_standby(&self) -> io::Result<Self> {
        let directory = own_directory()?;
        // This one may still be starting.
        eventually(|| self.psql(&["SELECT 1"]))?;
        let mut copy = command(&programs()?.join("pg_basebackup"))?;
        copy.args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf"])
            .args(["--host=127.0.0.1", "--username=paygress"])
            .arg(format!("--port={}", self.port))
            .arg("--pgdata")
            .arg(directory.path().join("data"));
        output(&mut copy)?;
        let standby = Self::serve(directory)?;
        self.wait_for_standby("state", "streaming")?;
        let waits = "ALTER SYSTEM SET synchronous_standby_names = '*'";
        self.psql(&[waits, "SELECT pg_reload_conf()"])?;
        self.wait_for_standby("sync_state", "sync")?;
        Ok(standby)
    }

    fn wait_for_standby(&self, column: &str, value: &str) -> io::Result<()> {
        let query = format!("SELECT {column} FROM pg_stat_replication");
        eventually(|| match self.psql(&[&query])?.trim() == value {
            true => Ok(()),
            false => Err(io::Error::other("the standby does not follow")),
        })
    }

    /// Makes this standby a server that is written.
    ///
    /// # Errors
    /// When it is no standby.
    pub fn promote(&self) -> io::Result<()> {
        self.psql(&["SELECT pg_promote()"]).map(drop)
    }

    /// Kills it, at once.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// What these statements give, each a transaction.
    fn psql(&self, statements: &[&str]) -> io::Result<String> {
        let mut psql = Command::new(programs()?.join("psql"));
        psql.args(["--quiet", "--no-psqlrc", "--no-align", "--tuples-only"]);
        psql.args(statements.iter().flat_map(|statement| ["--command", *statement]));
        output(psql.arg(self.url().expose()))
    }

    /// Starts it on the files in this directory.
    fn serve(directory: tempfile::TempDir) -> io::Result<Self> {
        let (child, port) = spawn(directory.path())?;
        let mut server = Self { child, port, databases: AtomicUsize::new(0), directory };
        // Others may take what was free a moment ago.
        let mut more_tries = 0_u8..7;
        while !server.wait_until_ready()? {
            if more_tries.next().is_none() {
                let log = std::fs::read_to_string(server.directory.path().join("log"))?;
                return Err(io::Error::other(log));
            }
            (server.child, server.port) = spawn(server.directory.path())?;
        }
        Ok(server)
    }

    /// Waits until it takes connections; `false`: it has ended.
    fn wait_until_ready(&mut self) -> io::Result<bool> {
        // What listens at the port may be another server: this file is its own.
        let pid_file = self.directory.path().join("data/postmaster.pid");
        eventually(|| {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            // The eighth line is the state, as `pg_ctl` reads it.
            match std::fs::read_to_string(&pid_file)?.lines().nth(7).map(str::trim) {
                Some("ready" | "standby") => Ok(true),
                _ => Err(io::Error::other("Postgres is still starting")),
            }
        })
    }

    /// The URL of both: of the one that is written, as long as there is one.
    #[must_use]
    pub fn url_with(&self, standby: &Self) -> Secret {
        Secret::new(format!(
            "postgres://paygress@127.0.0.1:{},127.0.0.1:{}/postgres?sslmode=disable&target_session_attrs=read-write",
            self.port, standby.port
        ))
    }

    /// The URL of a database that every caller shares.
    #[must_use]
    pub fn url(&self) -> Secret {
        self.url_of("postgres")
    }

    /// Creates an empty database; returns its URL.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn new_database(&self) -> io::Result<Secret> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        // The server may still be starting when it takes connections.
        let begun = Instant::now();
        loop {
            let created = Command::new(programs()?.join("createdb"))
                .args(["--host=127.0.0.1", "--username=paygress", "--maintenance-db=postgres"])
                .arg(format!("--port={}", self.port))
                .arg(&name)
                .output()?;
            if created.status.success() {
                return Ok(self.url_of(&name));
            }
            if begun.elapsed() > TIMEOUT {
                let error = String::from_utf8_lossy(&created.stderr).into_owned();
                return Err(io::Error::other(error));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs the statements in a file.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn run_file(&self, database: &Secret, file: &Path) -> io::Result<()> {
        let mut psql = Command::new(programs()?.join("psql"));
        psql.args(["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]);
        output(psql.arg("--file").arg(file).arg(database.expose())).map(drop)
    }

    fn url_of(&self, database: &str) -> Secret {
        Secret::new(format!(
            "postgres://paygress@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
