//! The policies: where they come from, who must have signed them, and their settings.

use super::reader::Reader;
use ipnet::IpNet;
use paygress_cluster::guard::{Allowed, Overcommit};
use paygress_core::backend::policy::Slot;
use paygress_oci::{
    CredentialHelpers, Keys as PolicyKeys, RegistryHost, RegistryOptions, SignatureMode,
    VerificationPolicy,
};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// The settings of each slot's component.
pub(crate) type PolicySettings = BTreeMap<&'static str, Map<String, Value>>;

/// How many networks may be closed beyond the private ones: the admission policy compares each with
/// each of a rule.
const EGRESS_EXCEPT: usize = 32;

/// The default directory of the components: beside the program, or where packages install them.
#[must_use]
pub fn default_policies() -> PathBuf {
    let program = std::env::current_exe().ok();
    let beside = program
        .as_deref()
        .and_then(Path::parent)
        .into_iter()
        .flat_map(|bin| ["plugins", "../plugins", "../../plugins"].map(|path| bin.join(path)));
    beside
        .into_iter()
        .find(|path| path.join("images.wasm").exists())
        .unwrap_or_else(|| PathBuf::from("/usr/share/paygress/plugins"))
}

impl Reader {
    /// The socket of the running service.
    pub(crate) fn admin_socket(&mut self) -> PathBuf {
        self.text_or_default("ADMIN_SOCKET").into()
    }

    /// What templates may request.
    pub(crate) fn allowed(&mut self) -> Allowed {
        Allowed {
            devices: self.names("POD_DEVICES"),
            runtime_classes: self.names("POD_RUNTIME_CLASSES"),
            tolerations: self.names("POD_TOLERATIONS"),
            overcommit: Overcommit {
                cpu: self.times("POD_CPU_OVERCOMMIT"),
                memory: self.times("POD_MEMORY_OVERCOMMIT"),
            },
            egress_except: self.networks("POD_EGRESS_EXCEPT"),
        }
    }

    /// Networks as the API server takes them too.
    fn networks(&mut self, key: &'static str) -> Vec<IpNet> {
        let items = self.names(key);
        if items.len() > EGRESS_EXCEPT {
            self.problem(format!("{key}: must be at most {EGRESS_EXCEPT} networks"));
        }
        let mut networks = Vec::new();
        for text in items {
            match text.parse::<IpNet>() {
                Ok(network) if network == network.trunc() && network.prefix_len() > 0 => {
                    networks.push(network);
                }
                _ => self.problem(format!(
                    "{key}: {text} is not a network without bits after its prefix; write 203.0.113.7/32 or 2001:db8:1::/48"
                )),
            }
        }
        networks
    }

    fn times(&mut self, key: &'static str) -> NonZeroU32 {
        let times = self.number(key, 1..=100).and_then(|times| u32::try_from(times).ok());
        times.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
    }

    /// How registries are used.
    pub(crate) fn registries(&mut self) -> RegistryOptions {
        let mut plain_http = BTreeSet::new();
        for name in self.names("REGISTRY_PLAIN_HTTP") {
            match name.parse::<RegistryHost>() {
                Ok(host) => {
                    plain_http.insert(host);
                }
                Err(error) => self.problems.push(format!("REGISTRY_PLAIN_HTTP: {error}")),
            }
        }
        RegistryOptions {
            plain_http,
            auth_file: self.text("REGISTRY_AUTH_FILE").map(PathBuf::from),
            credential_helpers: match self.flag("REGISTRY_CREDENTIAL_HELPERS") {
                true => CredentialHelpers::Run,
                false => CredentialHelpers::Refuse,
            },
            ..RegistryOptions::default()
        }
    }

    /// The known keys, and whether signatures are required.
    pub(crate) fn trust(&mut self) -> VerificationPolicy {
        let mut keys = PolicyKeys::default();
        for file in self.names("POLICY_KEYS") {
            if let Err(error) = keys.add_file(Path::new(&file)) {
                self.problems.push(format!("POLICY_KEYS: {error}"));
            }
        }
        let mode = match self.text("POLICY_SIGNATURES").as_deref() {
            None if keys.is_empty() => SignatureMode::Off,
            None | Some("required") => SignatureMode::Required,
            Some("warn") => SignatureMode::Warn,
            Some("off") => SignatureMode::Off,
            Some(_) => {
                self.problems.push("POLICY_SIGNATURES: must be required, warn or off".to_owned());
                SignatureMode::Required
            }
        };
        if keys.is_empty() && mode != SignatureMode::Off {
            self.problems.push(
                "POLICY_SIGNATURES: without POLICY_KEYS nothing is signed by a known key"
                    .to_owned(),
            );
        }
        VerificationPolicy::new(keys, mode)
    }

    /// The settings of the policies: `[policy.pricing]` and so on, as they are, and the keys that
    /// stand for one of them.
    pub(super) fn policy_settings(&mut self) -> PolicySettings {
        let mut given = match self.file.remove("policy") {
            None => toml::Table::new(),
            Some(toml::Value::Table(table)) => table,
            Some(_) => {
                self.problems.push(
                    "policy: must be a table with tables images, pricing, duration, pod-template"
                        .to_owned(),
                );
                toml::Table::new()
            }
        };
        let mut settings: PolicySettings = BTreeMap::new();
        for slot in Slot::ALL {
            let table = match given.remove(slot.as_str()).map(serde_json::to_value) {
                None => Map::new(),
                Some(Ok(Value::Object(table))) => table,
                Some(_) => {
                    self.problems.push(format!("policy.{slot}: must be a table"));
                    Map::new()
                }
            };
            settings.insert(slot.as_str(), table);
        }
        for unknown in given.keys() {
            self.problems.push(format!("policy.{unknown}: there is no such slot; the slots are images, pricing, duration, pod-template"));
        }
        let rate = self.number("PAYMENT_RATE_SATS_PER_HOUR", 1..=10_000_000_000).map(Value::from);
        let minutes = self.number("DEFAULT_POD_DURATION_MINUTES", 1..=5_256_000).map(Value::from);
        let image = self.text("SSH_BASE_IMAGE").map(Value::from);
        let stand_ins = [
            ("PAYMENT_RATE_SATS_PER_HOUR", "pricing", "sats_per_hour", rate),
            ("DEFAULT_POD_DURATION_MINUTES", "duration", "suggested_minutes", minutes),
            ("SSH_BASE_IMAGE", "images", "default", image),
        ];
        for (key, slot, field, value) in stand_ins {
            let Some(value) = value else { continue };
            if settings.entry(slot).or_default().insert(field.to_owned(), value).is_some() {
                self.problems.push(format!(
                    "{key} and policy.{slot}.{field} are the same setting; use one of them"
                ));
            }
        }
        settings
    }
}
