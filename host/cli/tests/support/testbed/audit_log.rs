//! What the service's account requests of the API server.

use super::state;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::PathBuf;

/// The log of requests from a moment on, a line of JSON each.
pub struct AuditLog {
    /// How long it was then.
    begin: u64,
}

impl AuditLog {
    pub fn begin() -> Self {
        let log = path();
        let begin = std::fs::metadata(&log).unwrap_or_else(|error| {
            panic!("{}: {error}; `cargo xtask cluster up` starts a testbed with it", log.display())
        });
        Self { begin: begin.len() }
    }

    pub fn reader(&self) -> BufReader<File> {
        let mut log = File::open(path()).unwrap();
        log.seek(SeekFrom::Start(self.begin)).unwrap();
        BufReader::new(log)
    }
}

fn path() -> PathBuf {
    state().join("log/audit.log")
}
