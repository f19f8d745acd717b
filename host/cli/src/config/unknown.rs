//! Names that are no settings: keys of the file are refused, and variables that look like settings
//! are reported. Of either the nearest setting is named; no value is read here.

use super::keys::{BESIDE, ENVIRONMENT_ONLY, KEYS, deployed};
use super::reader::Reader;
use std::collections::BTreeSet;
use std::fmt;

/// So many characters may be added, left out, replaced or swapped in a typo, and a quarter of the
/// setting's at most.
const TYPO: usize = 2;
/// A longer variable is no typo of a setting.
const NAME_BYTES: usize = 64;

/// Prefixes that in a service's environment only settings have, but for what is [`USUAL`].
const FAMILIES: [&str; 11] = [
    "APPS_",
    "CASHU_",
    "GATEWAY_",
    "NOSTR_",
    "PAYGRESS_",
    "PAYOUT_",
    "POD_",
    "POLICY_",
    "REFUND_",
    "SSH_",
    "WALLET_",
];

/// What has such a name and is no typo: variables of OpenSSH, of web servers, of deployments that
/// name their pod by them, of customers' commands and of the pods that are sold.
const USUAL: [&str; 29] = [
    "GATEWAY_INTERFACE",
    "PAYGRESS_CUSTOMER_KEY_FILE",
    "PAYGRESS_NPUB",
    "PAYGRESS_PASSWORD",
    "PAYGRESS_POD",
    "PAYGRESS_RELAYS",
    "PAYGRESS_SERVICE",
    "PAYGRESS_TOKEN",
    "PAYGRESS_URL",
    "POD_HOST_IP",
    "POD_IP",
    "POD_IPS",
    "POD_LABELS",
    "POD_NAME",
    "POD_SERVICE_ACCOUNT",
    "POD_UID",
    "SSH_AGENT_LAUNCHER",
    "SSH_AGENT_PID",
    "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE",
    "SSH_AUTH_SOCK",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_ORIGINAL_COMMAND",
    "SSH_PKCS11_HELPER",
    "SSH_SK_HELPER",
    "SSH_SK_PROVIDER",
    "SSH_TTY",
    "SSH_USER_AUTH",
];

/// A variable that is no setting, and looks like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    pub name: String,
    /// The setting with the nearest name.
    pub nearest: &'static str,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, nearest } = self;
        write!(f, "{name} is in the environment, and is no setting; the nearest is {nearest}")
    }
}

/// The variables of these names that look like settings, and are none.
#[must_use]
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<UnknownVariable> {
    let names: BTreeSet<String> = names.into_iter().collect();
    let known = deployed();
    let unknown = names.iter().filter(|name| {
        is_plain(name)
            && !known.contains(name.as_str())
            && !USUAL.contains(&name.as_str())
            && !is_of_service(name, &names)
    });
    unknown
        .filter_map(|name| {
            let nearest = resembled(name)?;
            Some(UnknownVariable { name: name.clone(), nearest })
        })
        .collect()
}

fn is_plain(name: &str) -> bool {
    name.len() <= NAME_BYTES
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether Kubernetes has set this variable for a Service of the namespace.
fn is_of_service(name: &str, names: &BTreeSet<String>) -> bool {
    let is_port = |rest: &str| {
        let mut parts = rest.split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.rsplit_once("_PORT_").is_some_and(|(_, rest)| is_port(rest))
        || name
            .strip_suffix("_PORT")
            .is_some_and(|service| names.contains(&format!("{service}_SERVICE_HOST")))
}

/// The settings of the service, and the parameters of its admission policy.
fn settings() -> impl Iterator<Item = &'static str> {
    let parameters = BESIDE.into_iter().filter(|name| name.starts_with("POD_"));
    KEYS.iter().map(|key| key.name).chain(parameters)
}

/// The setting that a variable looks like.
fn resembled(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    if let Some(same) = settings().find(|setting| has_same_parts(&upper, setting)) {
        return Some(same);
    }
    let nearest = nearest_of(settings(), &upper)?;
    let distance = strsim::osa_distance(&upper, nearest);
    let is_near = distance <= TYPO && distance.saturating_mul(4) <= nearest.len();
    (is_near || FAMILIES.iter().any(|family| upper.starts_with(*family))).then_some(nearest)
}

fn nearest_of(settings: impl Iterator<Item = &'static str>, name: &str) -> Option<&'static str> {
    settings.min_by_key(|setting| strsim::osa_distance(name, setting))
}

/// Whether a name has the parts of a setting's: in any order, in singular or plural, behind our own
/// name, or without the first of several.
fn has_same_parts(name: &str, setting: &str) -> bool {
    let name = parts(name.strip_prefix("PAYGRESS_").unwrap_or(name));
    let setting = parts(setting);
    let sorted = |parts: &[&str]| {
        let mut parts = parts.to_vec();
        parts.sort_unstable();
        parts.join("_")
    };
    let without_first = setting.get(1..).filter(|rest| rest.len() > 1);
    sorted(&name) == sorted(&setting) || without_first.is_some_and(|rest| name == rest)
}

fn parts(name: &str) -> Vec<&str> {
    name.split('_').map(|part| part.strip_suffix('S').unwrap_or(part)).collect()
}

impl Reader {
    /// Keys that no table row has are typos, and some are not read from the file.
    pub(super) fn refuse_unknown_keys(&mut self) {
        let problem = |key: &String| {
            let known = KEYS.iter().find(|known| known.name.to_lowercase() == *key);
            match known.map(|known| known.name) {
                None => Some(no_such_key(key)),
                Some(name) if ENVIRONMENT_ONLY.contains(&name) => {
                    Some(format!("{key}: is read from the environment only; set {name} there"))
                }
                Some(_) => None,
            }
        };
        let unknown: Vec<String> = self.file.keys().filter_map(problem).collect();
        self.problems.extend(unknown);
    }
}

fn no_such_key(key: &str) -> String {
    let upper = key.to_ascii_uppercase();
    let in_file =
        || KEYS.iter().map(|key| key.name).filter(|name| !ENVIRONMENT_ONLY.contains(name));
    let same = in_file().find(|setting| has_same_parts(&upper, setting));
    let nearest = same.or_else(|| nearest_of(in_file(), &upper)).unwrap_or_default();
    format!(
        "{key}: there is no such key; the nearest is {}; see \"Every setting\" in docs/operating.md",
        nearest.to_lowercase()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Vec<(String, &'static str)> {
        let found = unknown_variables(names.iter().map(|name| (*name).to_owned()));
        found.into_iter().map(|unknown| (unknown.name, unknown.nearest)).collect()
    }

    #[test]
    fn a_variable_that_looks_like_a_setting_is_found_with_the_setting() {
        for (name, nearest) in [
            ("SSH_HOTS", "SSH_HOST"),
            ("ssh_host", "SSH_HOST"),
            ("NOSTR_RELAY", "NOSTR_RELAYS"),
            ("ACESS", "ACCESS"),
            ("WHITELISTED_MINT", "WHITELISTED_MINTS"),
            ("MINTS_WHITELISTED", "WHITELISTED_MINTS"),
            ("RELAYS_NOSTR", "NOSTR_RELAYS"),
            ("CPU_OVERCOMMIT", "POD_CPU_OVERCOMMIT"),
            ("PAYGRESS_SSH_HOST", "SSH_HOST"),
            ("PAYGRESS_CONFIGS", "PAYGRESS_CONFIG"),
            ("POD_NODE_LABEL", "POD_NODE_LABELS"),
            ("POD_DEVICES_ALLOWED", "POD_DEVICES"),
            ("DATABASEURL", "DATABASE_URL"),
        ] {
            assert_eq!(found(&[name]), [(name.to_owned(), nearest)], "{name}");
        }
        let several = found(&["SSH_HOTS", "RUN_MODE", "POD_PROB"]);
        let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["POD_PROB", "SSH_HOTS"]);
    }

    #[test]
    fn what_others_set_is_left_alone() {
        let settings: Vec<&str> = deployed().into_iter().collect();
        assert!(found(&settings).is_empty(), "they are settings");
        assert!(found(&USUAL).is_empty(), "{:?}", found(&USUAL));
        let others = "CI EDITOR FTP_PROXY HOME HOST HOSTNAME INVOCATION_ID LANG LC_ALL LOGNAME \
            NODE_NAME NOTIFY_SOCKET PATH PORT PWD RUST_LOG_STYLE SHELL SHLVL SUCCESS TERM \
            TMPDIR USER XDG_RUNTIME_DIR _ all_proxy ftp_proxy http_proxy https_proxy \
            no_proxy";
        let others: Vec<&str> = others.split(' ').chain(["SSH_\u{1b}[2J", ""]).collect();
        assert!(found(&others).is_empty(), "{:?}", found(&others));
        let long = "SSH_".repeat(17);
        assert!(found(&[&long]).is_empty());
        let services = [
            "KUBERNETES_SERVICE_HOST",
            "PAYGRESS_PORT",
            "PAYGRESS_PORT_8080_TCP",
            "PAYGRESS_PORT_8080_TCP_ADDR",
            "PAYGRESS_SERVICE_HOST",
            "PAYGRESS_SERVICE_PORT",
            "PAYGRESS_SERVICE_PORT_HTTP",
            "SSH_POD_ABCDEFGHIJ_PORT",
            "SSH_POD_ABCDEFGHIJ_PORT_22_TCP",
            "SSH_POD_ABCDEFGHIJ_PORT_22_TCP_PROTO",
            "SSH_POD_ABCDEFGHIJ_SERVICE_HOST",
        ];
        assert!(found(&services).is_empty(), "{:?}", found(&services));
        // Nothing else says that there is such a Service.
        assert_eq!(found(&["PAYGRESS_PORT"]).len(), 1);
    }

    #[test]
    fn every_unknown_key_of_the_file_is_refused_with_the_nearest() {
        let file =
            "ssh_hots = 1\nnostr_relay = 2\nSSH_PORT = 3\nlog_format = \"hunter2\"\nrust_lgo = 4\n";
        let mut reader = Reader::new(Some(file), []);
        reader.refuse_unknown_keys();
        let expected = [
            "SSH_PORT: there is no such key; the nearest is ssh_port;",
            "log_format: is read from the environment only; set LOG_FORMAT there",
            "nostr_relay: there is no such key; the nearest is nostr_relays;",
            "rust_lgo: there is no such key; the nearest is",
            "ssh_hots: there is no such key; the nearest is ssh_host;",
        ];
        let mut problems = reader.problems;
        problems.sort();
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.starts_with(expected) && !problem.contains("hunter2"), "{problem}");
        }
    }
}
