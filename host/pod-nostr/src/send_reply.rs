//! `paygress-nostr reply`: the pod's own access message, by a key that nobody else ever has.

use crate::host_keys;
use crate::output::print_note;
use crate::reply::{
    ERROR_CHARS, RELAY_BYTES, REQUEST_BYTES, ReplyFileError, ReplyReport, ReplyRequest,
};
use paygress_core::error_chain;
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids;
use paygress_core::model::secret::Secret;
use paygress_core::protocol::{pod_identity, sorted};
use paygress_core::sanitize::plain;
use paygress_nostr::gift_wrap::{WrapError, gift_wrap};
use paygress_nostr::{EventId, Keys, PublicKey, RelayFailures, RelayUrl, broadcast, npub};
use paygress_regular_file::read_text;
use serde_json::{Map, Value};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// For all relays together: the customer's container starts after it.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The arguments of `paygress-nostr reply`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplyFiles {
    /// A [`ReplyRequest`].
    pub(crate) message: PathBuf,
    /// The directory of the SSH server's keys.
    pub(crate) host_keys: PathBuf,
    /// Where the [`ReplyReport`] goes.
    pub(crate) termination_message: PathBuf,
}

/// Why the message was not sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the message cannot be read")]
    Message(#[source] io::Error),
    #[error("the message cannot be read")]
    Form(#[from] ReplyFileError),
    #[error("the host keys cannot be read")]
    HostKeys(#[source] io::Error),
    #[error("there is no host key")]
    NoHostKey,
    #[error("the recipient is not a public key, or the request not an event's id")]
    Recipient,
    #[error("the reply has no ssh_host and ssh_port")]
    NoAddress,
    #[error("the message cannot be wrapped")]
    Wrap(#[from] WrapError),
    #[error("no relay is named")]
    NoRelay,
    #[error("no relay took the message ({0})")]
    NotTaken(RelayFailures),
}

/// Sends the message and writes the report. Whatever fails, the pod starts: the service answers
/// then.
pub(crate) async fn reply(files: &ReplyFiles) {
    let report = report(files).await;
    if let Err(error) = std::fs::write(&files.termination_message, report.to_line()) {
        print_note(format_args!("paygress-nostr: the report cannot be written: {error}"));
    }
}

async fn report(files: &ReplyFiles) -> ReplyReport {
    // In this memory alone, and wiped when it is dropped.
    let keys = Keys::generate();
    let mut report = ReplyReport {
        public_key: ids::PublicKey::from_bytes(keys.public_key().to_bytes()),
        host_keys: Vec::new(),
        accepted: Vec::new(),
        event: None,
        error: None,
    };
    if let Err(error) = send(files, &keys, &mut report).await {
        report.error = Some(plain(&error_chain(&error), ERROR_CHARS));
    }
    report
}

/// Fills the report on its way.
async fn send(files: &ReplyFiles, keys: &Keys, report: &mut ReplyReport) -> Result<(), SendError> {
    report.host_keys = host_keys::read(&files.host_keys).map_err(SendError::HostKeys)?;
    let text = read_text(&files.message, REQUEST_BYTES);
    let text = text.map(Secret::new).map_err(SendError::Message)?;
    let request = ReplyRequest::parse(text.expose())?;
    let recipient = PublicKey::from_hex(request.recipient.as_str());
    let recipient = recipient.map_err(|_| SendError::Recipient)?;
    let answers = request.request.as_deref().map(EventId::from_hex).transpose();
    let answers = answers.map_err(|_| SendError::Recipient)?;
    let parsed = request.usable_relays().filter_map(|url| RelayUrl::parse(url).ok());
    // As it is reported: what is escaped is longer.
    let relays: Vec<RelayUrl> = parsed.filter(|url| url.as_str().len() <= RELAY_BYTES).collect();
    if relays.is_empty() {
        return Err(SendError::NoRelay);
    }
    let content = content(request.reply, &npub(&keys.public_key()), &report.host_keys)?;
    let (_, wrap) = gift_wrap(keys, &recipient, content.expose(), answers)?;
    report.event = Some(wrap.id.to_hex());
    let sent = broadcast(&wrap, &relays, SEND_TIMEOUT).await;
    report.accepted = sent.accepted.iter().map(ToString::to_string).collect();
    match report.accepted.is_empty() {
        true => Err(SendError::NotTaken(sent.failures)),
        false => Ok(()),
    }
}

/// The reply, with what only the pod knows.
fn content(
    mut reply: Map<String, Value>,
    npub: &str,
    host_keys: &[HostKey],
) -> Result<Secret, SendError> {
    if host_keys.is_empty() {
        return Err(SendError::NoHostKey);
    }
    let host = reply.get("ssh_host").and_then(Value::as_str);
    let port = reply.get("ssh_port").and_then(Value::as_u64).and_then(|it| u16::try_from(it).ok());
    let (Some(host), Some(port)) = (host, port) else { return Err(SendError::NoAddress) };
    let identity = sorted(&pod_identity(host_keys, host, port));
    let identity = identity.as_object().cloned().unwrap_or_default();
    reply.extend(identity);
    reply.insert("pod_npub".to_owned(), Value::String(npub.to_owned()));
    Ok(Secret::new(Value::Object(reply).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::testing::HOST_KEY;
    use serde_json::json;

    #[test]
    fn the_pod_adds_its_key_and_its_host_keys_and_changes_nothing_else() {
        let reply = |value: Value| value.as_object().cloned().unwrap();
        let keys = [HostKey::parse(HOST_KEY).unwrap()];
        let given = json!({"type": "access_details", "pod_npub": "ssh-pod-a", "root": true, "ssh_host": "node.example.com", "ssh_port": 20_427});
        let added = content(reply(given.clone()), "npub1abc", &keys).unwrap();
        let added: Value = serde_json::from_str(added.expose()).unwrap();
        let mut expected = given;
        expected["pod_npub"] = json!("npub1abc");
        expected["ssh_host_keys"] = json!([HOST_KEY]);
        expected["known_hosts"] = json!(format!("[node.example.com]:20427 {HOST_KEY}"));
        assert_eq!(added, expected);
        let without = json!({"ssh_host": "node.example.com", "ssh_port": 70_000});
        assert!(matches!(content(reply(without), "", &keys), Err(SendError::NoAddress)));
        assert!(matches!(content(reply(json!({})), "", &[]), Err(SendError::NoHostKey)));
    }
}
