//! A Postgres server of a test's own: started in a directory of its own on a free port, ended with
//! this value.

use paygress_core::model::secret::Secret;
use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starting takes about a second.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Who runs it: the server refuses to be root.
const USER: &str = "postgres";

/// A server.
pub struct Server {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

fn programs() -> io::Result<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    versions.sort();
    versions.pop().ok_or_else(|| io::Error::other("no Postgres: apt-get install postgresql"))
}

/// A program of Postgres', as its own user if we are root.
fn command(program: &Path) -> io::Result<Command> {
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(program);
    Ok(command)
}

impl Server {
    /// Starts a server.
    ///
    /// # Errors
    /// When Postgres is not installed, or does not start.
    pub fn start() -> io::Result<Self> {
        let bin = programs()?;
        let directory = tempfile::tempdir()?;
        if std::fs::metadata("/proc/self")?.uid() == 0 {
            let passwd = std::fs::read_to_string("/etc/passwd")?;
            let line = passwd.lines().find(|line| line.starts_with(&format!("{USER}:")));
            let id = line
                .and_then(|line| line.split(':').nth(2)?.parse().ok())
                .ok_or_else(|| io::Error::other("no user postgres"))?;
            chown(directory.path(), Some(id), None)?;
        }
        let data = directory.path().join("data");
        let made = command(&bin.join("initdb"))?
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=paygress",
                "--encoding=UTF8",
                "--locale=C",
                "-D",
            ])
            .arg(&data)
            .stdout(Stdio::null())
            .status()?;
        if !made.success() {
            return Err(io::Error::other("initdb failed"));
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(directory.path().join("log"))?;
        let child = command(&bin.join("postgres"))?
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                &format!("port={port}"),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
                "-c",
                "fsync=off",
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let server = Self { child, port, _directory: directory };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > TIMEOUT {
                return Err(io::Error::other("Postgres does not start"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> Secret {
        Secret::new(format!("postgres://paygress@127.0.0.1:{}/postgres?sslmode=disable", self.port))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
