//! A Postgres server for one test, in a temporary directory and on a free port; and a directory that
//! costs no time.

use paygress_core::model::secret::Secret;
use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
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
    _directory: tempfile::TempDir,
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

/// Makes the files of an empty database, in a directory that the server's user may use.
fn initialize(bin: &Path, directory: &Path, data: &Path) -> io::Result<()> {
    if std::fs::metadata("/proc/self")?.uid() == 0 {
        let passwd = std::fs::read_to_string("/etc/passwd")?;
        let line = passwd.lines().find(|line| line.starts_with(&format!("{USER}:")));
        let id = line
            .and_then(|line| line.split(':').nth(2)?.parse().ok())
            .ok_or_else(|| io::Error::other("there is no user postgres"))?;
        chown(directory, Some(id), None)?;
    }
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

impl Server {
    /// # Errors
    /// When Postgres is not installed, or does not start.
    pub fn start() -> io::Result<Self> {
        let bin = programs()?;
        let directory = tempfile::tempdir()?;
        let data = directory.path().join("data");
        initialize(&bin, directory.path(), &data)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(directory.path().join("log"))?;
        let port_setting = format!("port={port}");
        let child = command(&bin.join("postgres"))?
            .arg("-D")
            .arg(&data)
            .args(["-c", &port_setting, "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let server = Self { child, port, databases: AtomicUsize::new(0), _directory: directory };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > TIMEOUT {
                return Err(io::Error::other("Postgres did not start in time"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
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
        let output = Command::new(programs()?.join("psql"))
            .args(["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--output=/dev/null"])
            .arg("--file")
            .arg(file)
            .arg(database.expose())
            .output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
        }
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
