//! What the service requests of the API server, by the audit log of the testbed.

use crate::support::testbed::AuditLog;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::thread;
use std::time::{Duration, Instant};

/// The requests of leases are over when there were none for so long…
const QUIET: Duration = Duration::from_secs(2);
/// …and are counted after this in any case.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// What a lease consists of.
const OBJECTS: [&str; 5] = ["jobs", "pods", "secrets", "services", "networkpolicies"];

/// Requests from a moment on.
pub(super) struct Requests(AuditLog);

/// How many of each kind there were.
#[derive(Default)]
pub(super) struct RequestCounts {
    /// Those that name a lease, or create an object of one.
    pub(super) of_leases: BTreeMap<String, u64>,
    pub(super) others: BTreeMap<String, u64>,
}

impl Requests {
    pub(super) fn begin() -> Self {
        Self(AuditLog::begin())
    }

    pub(super) fn count(&self) -> RequestCounts {
        let mut counted = RequestCounts::default();
        for line in self.0.reader().lines() {
            // The last one may not be complete yet.
            let Ok(entry) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
            if !is_request(&entry) {
                continue;
            }
            let counts = match is_of_lease(&entry) {
                true => &mut counted.of_leases,
                false => &mut counted.others,
            };
            *counts.entry(kind(&entry)).or_default() += 1;
        }
        counted
    }

    /// Those so far, once those of leases are over: some follow the answer.
    pub(super) fn settled(&self) -> RequestCounts {
        let begun = Instant::now();
        let mut before = self.count();
        loop {
            thread::sleep(QUIET);
            let now = self.count();
            if now.of_leases == before.of_leases || begun.elapsed() > SETTLED_WITHIN {
                return now;
            }
            before = now;
        }
    }
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().unwrap_or_default()
}

/// Each request has a line at its end; a watch one at its begin too, and may never end.
fn is_request(entry: &Value) -> bool {
    match text(entry, "verb") {
        "watch" => text(entry, "stage") == "ResponseStarted",
        _ => text(entry, "stage") == "ResponseComplete",
    }
}

fn is_of_lease(entry: &Value) -> bool {
    let uri = text(entry, "requestURI");
    let is_created =
        text(entry, "verb") == "create" && OBJECTS.contains(&text(&entry["objectRef"], "resource"));
    is_created || uri.contains("ssh-pod-") || uri.contains("paygress.dev%2Flease%3D")
}

fn kind(entry: &Value) -> String {
    let object = &entry["objectRef"];
    let mut kind = format!("{} {}", text(entry, "verb"), text(object, "resource"));
    if let Some(subresource) = object["subresource"].as_str() {
        kind = format!("{kind}/{subresource}");
    }
    match text(entry, "requestURI").contains("dryRun=All") {
        true => format!("{kind} (dry run)"),
        false => kind,
    }
}
