//! What the init container of a reply is given, and what it reports.

use paygress_core::limits;
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::PublicKey;
use paygress_core::model::secret::Secret;
use paygress_core::model::ssh_host::SshHost;
use paygress_core::protocol::sorted;
use paygress_core::sanitize::{is_plain, plain};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// The file of a request: no message is longer.
pub const REQUEST_BYTES: usize = limits::REQUEST_BYTES;
/// A report: the kubelet cuts a termination message there.
pub const REPORT_BYTES: usize = 4_096;
/// Relays that are sent to, at the same time; more are left out. A list of NIP-17 has three.
pub const RELAYS: usize = 16;
/// The URL of a relay; longer ones are left out: a report names some of them.
pub const RELAY_BYTES: usize = 256;
/// What is kept of the reason why nothing was sent: a report has room for it beside the host keys.
pub const ERROR_CHARS: usize = 300;

/// The message that the pod is to send: JSON in a file of a Secret, which no other container has.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyRequest {
    /// The customer's key.
    pub recipient: PublicKey,
    /// Where to send it, `ws://` or `wss://`.
    pub relays: Vec<String>,
    /// The id of the message that it answers, in hex.
    #[serde(default)]
    pub request: Option<String>,
    /// The content, but for what only the pod knows: its key and its host keys.
    pub reply: Map<String, Value>,
}

impl ReplyRequest {
    /// # Errors
    /// [`ReplyFileError`]; it quotes nothing of the text, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, ReplyFileError> {
        parse(text, REQUEST_BYTES)
    }

    /// The relays that it is sent to: what is no relay, and what is too much, is left out.
    pub fn usable_relays(&self) -> impl Iterator<Item = &str> {
        self.relays.iter().map(String::as_str).filter(|url| is_relay(url)).take(RELAYS)
    }
}

/// Without the reply, which may hold a password.
impl fmt::Debug for ReplyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyRequest").field("recipient", &self.recipient).finish_non_exhaustive()
    }
}

/// The text of a request whose reply names this host: that of the pod's node, which is not known when
/// the request is made.
///
/// # Errors
/// [`ReplyFileError`]: the text is no request.
pub fn with_ssh_host(request: &str, host: &SshHost) -> Result<Secret, ReplyFileError> {
    let mut request: Map<String, Value> = parse(request, REQUEST_BYTES)?;
    let reply = request.get_mut("reply").and_then(Value::as_object_mut);
    let reply = reply.ok_or(ReplyFileError::Field)?;
    reply.insert("ssh_host".to_owned(), Value::String(host.to_string()));
    Ok(Secret::new(Value::Object(request).to_string()))
}

/// What became of it: the init container's termination message, one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyReport {
    /// The pod's key.
    pub public_key: PublicKey,
    /// The public keys of its SSH server.
    #[serde(default)]
    pub host_keys: Vec<HostKey>,
    /// The relays that have the message; none: the service has to answer.
    #[serde(default)]
    pub accepted: Vec<String>,
    /// The id of the gift wrap, in hex, if there was one to send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Why no relay has the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ReplyReport {
    /// Reads a termination message, which may be anything.
    ///
    /// # Errors
    /// [`ReplyFileError`].
    pub fn parse(text: &str) -> Result<Self, ReplyFileError> {
        let mut report: Self = parse(text, REPORT_BYTES)?;
        let too_many = report.host_keys.len() > limits::HOST_KEYS || report.accepted.len() > RELAYS;
        if too_many || !report.accepted.iter().all(|url| is_relay(url)) {
            return Err(ReplyFileError::Field);
        }
        if report.event.as_deref().is_some_and(|id| !is_event_id(id)) {
            return Err(ReplyFileError::Field);
        }
        report.error = report.error.map(|error| plain(&error, ERROR_CHARS));
        Ok(report)
    }

    /// One line, as long as the kubelet keeps it. What is too much is left out, the names of relays
    /// first.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut fitting = self.clone();
        loop {
            let line = sorted(&fitting).to_string();
            if line.len() <= REPORT_BYTES || !fitting.shorten() {
                return line;
            }
        }
    }

    fn shorten(&mut self) -> bool {
        self.accepted.pop().is_some()
            || self.error.take().is_some()
            || self.host_keys.pop().is_some()
    }
}

/// Why a request or a report cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyFileError {
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    #[error("it is not JSON of the form that is expected (line {line}, column {column})")]
    Json { line: usize, column: usize },
    /// Too many keys or relays, a URL that is no relay's, or an id that is none.
    #[error("a field holds what does not belong there")]
    Field,
}

fn parse<T: DeserializeOwned>(text: &str, most: usize) -> Result<T, ReplyFileError> {
    if text.len() > most {
        return Err(ReplyFileError::TooLong(most));
    }
    serde_json::from_str(text)
        .map_err(|error| ReplyFileError::Json { line: error.line(), column: error.column() })
}

fn is_relay(url: &str) -> bool {
    let has_scheme = url.starts_with("wss://") || url.starts_with("ws://");
    has_scheme && url.len() <= RELAY_BYTES && url.chars().all(|c| is_plain(c) && c != ' ')
}

fn is_event_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::testing::HOST_KEY;
    use serde_json::json;

    fn report() -> Value {
        json!({
            "public_key": "a".repeat(64),
            "host_keys": [HOST_KEY],
            "accepted": ["wss://relay.example.com"],
            "event": "b".repeat(64),
        })
    }

    #[test]
    fn a_request_is_read_and_shows_no_password() {
        let text = json!({
            "recipient": "c".repeat(64),
            "relays": ["wss://a.example", "https://b.example", "ws://c.example:7777"],
            "reply": {"type": "access_details", "ssh_password": "hunter22"},
        });
        let request = ReplyRequest::parse(&text.to_string()).unwrap();
        let usable: Vec<&str> = request.usable_relays().collect();
        assert_eq!(usable, ["wss://a.example", "ws://c.example:7777"]);
        assert!(!format!("{request:?}").contains("hunter22"));
        let many = ReplyRequest { relays: vec!["wss://a.example".to_owned(); 40], ..request };
        assert_eq!(many.usable_relays().count(), RELAYS);
        for text in ["", "{}", "\"hunter22\"", r#"{"recipient": "hunter22"}"#] {
            let error = ReplyRequest::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter22"), "{error}");
        }
        let long = " ".repeat(REQUEST_BYTES + 1);
        assert_eq!(ReplyRequest::parse(&long), Err(ReplyFileError::TooLong(REQUEST_BYTES)));
    }

    #[test]
    fn a_report_is_read_only_if_each_field_is_what_it_should_be() {
        let read = |change: &dyn Fn(&mut Value)| {
            let mut report = report();
            change(&mut report);
            ReplyReport::parse(&report.to_string())
        };
        let good = read(&|_| ()).unwrap();
        assert_eq!(ReplyReport::parse(&good.to_line()).unwrap(), good);
        for (field, bad) in [
            ("public_key", json!("A".repeat(64))),
            ("public_key", json!("npub1abc")),
            ("host_keys", json!(["ssh-ed25519 AAAA"])),
            ("host_keys", json!(vec![HOST_KEY; 9])),
            ("accepted", json!(["https://relay.example.com"])),
            ("accepted", json!(["wss://a\u{1b}[2J"])),
            ("accepted", json!(vec!["wss://a.example"; 17])),
            ("event", json!("x")),
            ("error", json!(7)),
            ("other", json!("")),
        ] {
            let read = read(&|report| report[field] = bad.clone());
            assert!(read.is_err(), "{field}: {bad}");
        }
        assert!(ReplyReport::parse("ssh-ed25519 AAAA").is_err());
        assert!(ReplyReport::parse(&format!("{}{}", report(), " ".repeat(4_096))).is_err());
        let shown = read(&|report| report["error"] = json!("a\u{1b}b")).unwrap();
        assert_eq!(shown.error.as_deref(), Some("a\\u{1b}b"));
    }

    #[test]
    fn a_report_is_as_long_as_the_kubelet_keeps_it() {
        let relay = format!("wss://a.example/{}", "x".repeat(RELAY_BYTES - 16));
        let mut report = ReplyReport::parse(&report().to_string()).unwrap();
        report.accepted = vec![relay; RELAYS];
        report.error = Some("\u{e9}".repeat(ERROR_CHARS));
        let line = report.to_line();
        assert!(line.len() <= REPORT_BYTES && !line.contains('\n'), "{}", line.len());
        let read = ReplyReport::parse(&line).unwrap();
        assert!(!read.accepted.is_empty() && read.host_keys == report.host_keys);
        assert_eq!(read.error, report.error);
    }
}
