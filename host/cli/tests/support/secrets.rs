//! The secrets of a test, and the logs of services, which hold none of them.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Those of all tests of this program.
static SECRETS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// How tokens and private keys begin.
const PREFIXES: [&str; 3] = ["cashuA", "cashuB", "nsec1"];
/// Variables of a service that hold one…
const VARIABLES: [&str; 4] =
    ["DATABASE_URL", "NOSTR_PRIVATE_KEY", "OPERATOR_TOKEN", "WALLET_MNEMONIC"];
/// …fields of requests and answers…
const FIELDS: [&str; 2] = ["ssh_password", "bearer_token"];
/// …and files beside the ledger.
const GATEWAY_KEYS: [&str; 2] = ["gateway_host_key", "gateway_endpoint_key"];
/// Of the log of a service whose test has failed.
const SHOWN_LINES: usize = 100;
/// What is shorter may be in a log by chance.
const SHORTEST: usize = 8;

pub fn add(secret: &str) {
    if secret.len() >= SHORTEST {
        SECRETS.lock().unwrap_or_else(PoisonError::into_inner).insert(secret.to_owned());
    }
}

/// Adds those of a request or an answer.
pub fn add_fields(message: &Value) {
    FIELDS.iter().filter_map(|field| message[*field].as_str()).for_each(add);
}

/// What a program is started with.
pub fn environment(command: &Command) -> BTreeMap<String, String> {
    let variables = command.get_envs();
    variables
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value?.to_str()?.to_owned())))
        .collect()
}

/// Fails if there is one of them, and shows what is before it in its line.
pub fn assert_none(what: &str, log: &str) {
    let secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for secret in secrets.iter().map(String::as_str).chain(PREFIXES) {
        let before = log.split_once(secret).map(|(before, _)| before);
        let line = before.map(|before| before.rsplit('\n').next().unwrap_or_default());
        assert!(line.is_none(), "{what} holds a secret, after: {line:?}");
    }
}

/// The end of a log, without the lines that hold one of them.
fn end_without(log: &str) -> String {
    let secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let has_one = |line: &&str| {
        secrets.iter().map(String::as_str).chain(PREFIXES).any(|secret| line.contains(secret))
    };
    let lines: Vec<&str> = log.lines().filter(|line| !has_one(line)).collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// The log of a service, which is searched when this is dropped; where the test has failed, its end is
/// printed.
pub struct SearchedLog {
    log: File,
    /// Where the service stores the secrets that it makes.
    files: Vec<PathBuf>,
}

impl SearchedLog {
    /// Of a service with this environment.
    pub fn new(log: File, environment: &BTreeMap<String, String>) -> Self {
        let variables = VARIABLES.iter().filter_map(|name| environment.get(*name));
        variables.for_each(|secret| add(secret));
        let path = |name: &str| environment.get(name).map(Path::new);
        let mnemonic = path("CASHU_DB_PATH").map(|wallet| wallet.with_extension("mnemonic"));
        let keys =
            path("LEDGER_PATH").map(|ledger| GATEWAY_KEYS.map(|key| ledger.with_file_name(key)));
        Self { log, files: mnemonic.into_iter().chain(keys.into_iter().flatten()).collect() }
    }

    fn read(&mut self) -> std::io::Result<String> {
        for file in &self.files {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.lines().filter(|line| !line.starts_with("-----")).for_each(add);
        }
        let mut log = Vec::new();
        self.log.read_to_end(&mut log)?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }
}

impl Drop for SearchedLog {
    fn drop(&mut self) {
        let log = self.read();
        if std::thread::panicking() {
            let end = end_without(&log.unwrap_or_default());
            eprintln!("the end of the log of a service:\n{end}");
        } else {
            assert_none("the log of a service", &log.unwrap());
        }
    }
}
