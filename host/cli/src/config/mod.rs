//! The configuration: a TOML file and the environment. The environment takes precedence; every
//! problem is reported at once.
//!
//! ```text
//! file, environment ─▶ reader ─▶ access, gateway, http, … ─▶ Config
//!                        │
//!                       keys: the one table of names, defaults and descriptions
//! ```

mod access;
mod gateway;
mod http;
pub mod keys;
mod policies;
mod reader;
#[cfg(test)]
mod tests;
mod unknown;
mod wallet;

pub use gateway::{GatewayConfig, GatewayHttpConfig, GatewayProcess, IrohConfig, JumpHostConfig};
pub use http::HttpConfig;
pub use policies::default_policies;
pub(crate) use reader::Reader;
pub use unknown::{UnknownVariable, unknown_variables};

use paygress_cluster::guard::Allowed;
use paygress_cluster::{ExtraCapacity, PodRoot, PodRoute, RunImage, SshHostFrom, SshServerVolume};
use paygress_core::backend::policy::{RefundTerms, Slot};
use paygress_core::limits;
use paygress_core::model::access::AccessMode;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, Seconds};
use paygress_core::orders::{Capture, PodAccess, RefundFees};
use paygress_http_client::Proxies;
use paygress_nostr::{Keys, RelayUrl};
use paygress_oci::{RegistryOptions, VerificationPolicy};
use paygress_policy::PolicyDir;
use policies::PolicySettings;
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;

/// Everything that is wrong with the configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for Problems {}

/// Where earnings are paid to.
#[derive(Clone, Debug)]
pub struct Payout {
    /// A Lightning address.
    pub address: String,
    /// The balance at a mint above which it is paid out.
    pub above: Sat,
}

/// The validated configuration.
pub struct Config {
    /// Whether the Nostr transport is on.
    pub nostr: bool,
    /// The HTTP server, if it is on.
    pub http: Option<HttpConfig>,
    /// The duration that is quoted when a customer names none.
    pub suggested: Seconds,
    /// How long before the end of a pod there are notices.
    pub end_notices: Vec<Seconds>,
    /// The service's keys.
    pub keys: Keys,
    pub relays: Vec<RelayUrl>,
    /// Whether customers may name relays at private addresses.
    pub private_relays: bool,
    /// Name and description in profile and offers.
    pub name: String,
    pub about: String,
    /// The accepted mints.
    pub mints: Vec<MintUrl>,
    /// The wallet's database.
    pub wallet: PathBuf,
    /// The wallet's mnemonic, if given.
    pub mnemonic: Option<Secret>,
    /// The ledger's database.
    pub ledger: PathBuf,
    /// A Postgres instead of the two files.
    pub database: Option<Secret>,
    /// What the operator's backup writes last.
    pub backup_file: Option<PathBuf>,
    /// The highest balance at one mint.
    pub max_balance: Option<Sat>,
    /// The refund terms of a stop where the policy has none. `None`: a stop is never refunded.
    pub refund_on_stop: Option<RefundTerms>,
    /// Who bears the mint's fees of what fails through a fault of ours.
    pub refund_fees: RefundFees,
    /// How long a refund waits to be redeemed.
    pub refund_kept: Seconds,
    /// When the payment for a new pod is taken.
    pub capture: Capture,
    pub payout: Option<Payout>,
    /// What templates may request beyond the ordinary.
    pub allowed: Allowed,
    /// The directory of the components.
    pub policies: PathBuf,
    /// The directory of compiled components.
    pub policy_cache: PathBuf,
    /// The directory of the history.
    pub policy_state: PathBuf,
    /// The socket of the operator's commands.
    pub admin_socket: PathBuf,
    /// Whose components are accepted.
    pub verification: VerificationPolicy,
    /// Credentials for registries, and whether helpers may be run for them.
    pub registries: RegistryOptions,
    /// The namespace of `Policy` resources.
    pub policy_namespace: Option<String>,
    /// The collector of traces.
    pub otlp: Option<String>,
    /// The components' settings.
    pub policy_settings: PolicySettings,
    pub kubeconfig: Option<PathBuf>,
    /// The pods' namespace.
    pub namespace: String,
    /// How long a pod may take to become ready.
    pub ready_within: Seconds,
    /// How long an ended pod's Job is kept.
    pub ttl: Seconds,
    /// The nodes that an autoscaler adds.
    pub extra_capacity: Option<ExtraCapacity>,
    /// Whether unknown pods are removed.
    pub sweep: bool,
    /// The image with the SSH server that is put into customers' images.
    pub ssh_server_image: Option<String>,
    /// How it comes into them.
    pub ssh_server_volume: SshServerVolume,
    /// Whether customers are root in their pods.
    pub root: PodRoot,
    /// Whether orders may have their image's own program run.
    pub run_image: RunImage,
    /// Whether nothing is sold before a probe pod has started.
    pub probe: bool,
    /// Whether pods write to customers of Nostr by themselves.
    pub reply_from_pod: bool,
    /// Whether answers carry signed receipts.
    pub receipts: bool,
    /// The host that customers log in to.
    pub ssh_host: String,
    /// Whether they log in there, or at the node of their pod.
    pub ssh_host_from: SshHostFrom,
    /// How long a node may be not ready before the leases of its pods end.
    pub node_lost_after: Seconds,
    /// The port of the SSH server inside a pod.
    pub ssh_port: u16,
    /// How customers reach pods, and how many pods that allows.
    pub access: PodAccess,
    /// A way to pods that needs no port of a node, if it is on.
    pub gateway: Option<GatewayConfig>,
    /// How the gateway reaches pods.
    pub route: PodRoute,
}

/// Reads a part of the configuration, for commands that need no more: problems elsewhere do not
/// stop them.
///
/// # Errors
/// All [`Problems`] of this part.
pub(crate) fn part<T>(
    file: Option<&str>,
    environment: impl IntoIterator<Item = (String, String)>,
    read: impl FnOnce(&mut Reader) -> T,
) -> Result<T, Problems> {
    let mut reader = Reader::new(file, environment);
    let part = read(&mut reader);
    if reader.problems.is_empty() { Ok(part) } else { Err(Problems(reader.problems)) }
}

/// The transports that `RUN_MODE` turns on.
struct Transports {
    nostr: bool,
    http: bool,
}

impl Transports {
    fn read(reader: &mut Reader) -> Self {
        match reader.text_or_default("RUN_MODE").as_str() {
            "nostr" => Self { nostr: true, http: false },
            "http" => Self { nostr: false, http: true },
            "both" => Self { nostr: true, http: true },
            _ => {
                reader.problem("RUN_MODE: must be nostr, http or both");
                Self { nostr: true, http: false }
            }
        }
    }
}

impl Reader {
    /// A key is returned in any case: with a problem noted, no [`Config`] is made of it.
    fn keys(&mut self) -> Keys {
        let text = self.needed("NOSTR_PRIVATE_KEY");
        Keys::parse(&text).unwrap_or_else(|_| {
            if !text.is_empty() {
                self.problem(
                    "NOSTR_PRIVATE_KEY: is not a secret key; write nsec1… or 64 hex digits",
                );
            }
            Keys::generate()
        })
    }

    fn relays(&mut self, transports: &Transports) -> Vec<RelayUrl> {
        let urls = match transports.nostr {
            true => self.list("NOSTR_RELAYS"),
            false => self.names("NOSTR_RELAYS"),
        };
        let mut relays = Vec::new();
        for text in urls {
            match RelayUrl::parse(&text) {
                Ok(relay) => relays.push(relay),
                Err(_) => self.problem(format!(
                    "NOSTR_RELAYS: {text} is not a relay; write wss://host[:port]"
                )),
            }
        }
        relays
    }

    fn mints(&mut self) -> Vec<MintUrl> {
        let mut mints = Vec::new();
        for text in self.list("WHITELISTED_MINTS") {
            match MintUrl::parse(text.as_str()) {
                Ok(mint) => mints.push(mint),
                Err(_) => self.problem(format!(
                    "WHITELISTED_MINTS: {text} is not the URL of a mint; write https://host[:port][/path]"
                )),
            }
        }
        mints
    }

    fn end_notices(&mut self) -> Vec<Seconds> {
        let items = self.names("END_NOTICES");
        if matches!(items.as_slice(), [only] if only == "none") {
            return Vec::new();
        }
        let seconds = |item: &String| item.parse::<u64>().ok().filter(|n| (1..=86_400).contains(n));
        let notices: Option<Vec<Seconds>> =
            items.iter().map(|item| seconds(item).map(Seconds)).collect();
        notices.filter(|notices| notices.len() <= limits::END_NOTICES).unwrap_or_else(|| {
            self.problem(format!(
                "END_NOTICES: must be at most {} numbers of seconds from 1 to 86400, as 600,60, or none",
                limits::END_NOTICES
            ));
            Vec::new()
        })
    }

    fn extra_capacity(&mut self) -> Option<ExtraCapacity> {
        let items = self.names("POD_EXTRA_CAPACITY");
        if items.is_empty() {
            return None;
        }
        match ExtraCapacity::parse(&items) {
            Ok(extra) => Some(extra),
            Err(errors) => {
                for error in errors {
                    self.problem(format!("POD_EXTRA_CAPACITY: {error}"));
                }
                None
            }
        }
    }

    fn ssh_server_image(&mut self) -> Option<String> {
        let image = self.text("SSH_SERVER_IMAGE")?;
        if image.contains(|c: char| c.is_whitespace() || c == ',') {
            self.problem("SSH_SERVER_IMAGE: must be one image, registry/repository:tag");
        }
        Some(image)
    }

    fn ssh_server_volume(&mut self) -> SshServerVolume {
        let values = [
            ("auto", SshServerVolume::Auto),
            ("copy", SshServerVolume::Copy),
            ("image", SshServerVolume::Image),
        ];
        self.one_of("SSH_SERVER_VOLUME", &values).unwrap_or(SshServerVolume::Copy)
    }

    fn ssh_host_from(&mut self) -> SshHostFrom {
        let values = [("setting", SshHostFrom::Setting), ("node", SshHostFrom::Node)];
        self.one_of("SSH_HOST_FROM", &values).unwrap_or(SshHostFrom::Setting)
    }

    fn run_image(&mut self) -> RunImage {
        if self.flag("POD_RUN_IMAGE") { RunImage::Allowed } else { RunImage::Never }
    }

    /// Mints, registries and the API server are reached through proxies that the environment names.
    /// Each client reads them for itself, and would fail with the first problem.
    fn refuse_unusable_proxies(&mut self) {
        for problem in Proxies::problems(|name| self.variable(name)) {
            self.problem(problem.to_string());
        }
    }
}

impl Config {
    /// The directory of policies, with their settings.
    #[must_use]
    pub fn policy_dir(&self) -> PolicyDir {
        let settings = |slot: Slot| {
            Value::Object(self.policy_settings.get(slot.as_str()).cloned().unwrap_or_default())
                .to_string()
        };
        let directory = PolicyDir::new(
            self.policies.clone(),
            Slot::ALL.into_iter().map(|slot| (slot, settings(slot))).collect(),
        )
        .with_verification(self.verification.clone());
        match self.policy_namespace {
            Some(_) => directory.defer_to_resources(),
            None => directory,
        }
    }

    /// What pods that write to their customers lack: a customer to write to, and the image with the
    /// program. Only pods of a cluster have it.
    fn pod_reply_problems(&self) -> Vec<String> {
        let missing = [
            (self.nostr, "the Nostr transport; set RUN_MODE to nostr or both"),
            (self.ssh_server_image.is_some(), "SSH_SERVER_IMAGE, which has the program for it"),
        ];
        let missing = missing.iter().filter(|(is_there, _)| self.reply_from_pod && !is_there);
        missing.map(|(_, what)| format!("REPLY_FROM_POD: needs {what}")).collect()
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// All [`Problems`].
    pub fn read(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        part(file, environment, Self::from_reader)
    }

    /// With problems noted, what is returned is not used.
    // long: one line for each setting.
    fn from_reader(reader: &mut Reader) -> Self {
        let transports = Transports::read(reader);
        // Read in any case: its problems are reported even if it is off.
        let http = HttpConfig::read(reader);
        if http.apps_domain.is_some() && !transports.http {
            reader.problem("APPS_DOMAIN: needs the HTTP transport; set RUN_MODE to http or both");
        }
        let operator_token = http.operator_token.clone();
        let settings = reader.policy_settings();
        let suggested = settings
            .get("duration")
            .and_then(|duration| duration.get("suggested_minutes")?.as_u64())
            .unwrap_or(60);
        let database = reader.text("DATABASE_URL").map(Secret::new);
        let mnemonic = reader.mnemonic(database.as_ref());
        let config = Self {
            nostr: transports.nostr,
            http: transports.http.then_some(http),
            suggested: Seconds(suggested.saturating_mul(60)),
            end_notices: reader.end_notices(),
            keys: reader.keys(),
            relays: reader.relays(&transports),
            private_relays: reader.flag("ALLOW_PRIVATE_RELAYS"),
            name: reader.text_or_default("SERVICE_NAME"),
            about: reader.text_or_default("SERVICE_ABOUT"),
            mints: reader.mints(),
            wallet: reader.text_or_default("CASHU_DB_PATH").into(),
            mnemonic,
            ledger: reader.text_or_default("LEDGER_PATH").into(),
            database,
            backup_file: reader.text("BACKUP_FILE").map(PathBuf::from),
            max_balance: reader.number("MAX_SATS_PER_MINT", 1..=2_100_000_000_000_000).map(Sat),
            refund_on_stop: reader
                .flag("REFUND_ON_STOP")
                .then_some(RefundTerms { step: Seconds(60), percent: 100 }),
            refund_fees: reader
                .one_of(
                    "REFUND_FEES",
                    &[("operator", RefundFees::Operator), ("customer", RefundFees::Customer)],
                )
                .unwrap_or(RefundFees::Operator),
            refund_kept: Seconds(
                reader.number("REFUND_KEPT_DAYS", 1..=3_650).unwrap_or(0).saturating_mul(86_400),
            ),
            capture: reader
                .one_of(
                    "CAPTURE",
                    &[("launch", Capture::BeforeLaunch), ("ready", Capture::OnceReady)],
                )
                .unwrap_or(Capture::BeforeLaunch),
            payout: reader.payout(),
            allowed: reader.allowed(),
            policies: reader.text("POLICY_DIR").map_or_else(default_policies, PathBuf::from),
            policy_cache: reader.text_or_default("POLICY_CACHE_DIR").into(),
            policy_state: reader.text_or_default("POLICY_STATE_DIR").into(),
            admin_socket: reader.admin_socket(),
            verification: reader.trust(),
            registries: reader.registries(),
            policy_namespace: reader.text("POLICY_NAMESPACE"),
            otlp: reader.endpoint("OTLP_ENDPOINT"),
            policy_settings: settings,
            kubeconfig: reader.text("KUBECONFIG").map(PathBuf::from),
            namespace: reader.text_or_default("POD_NAMESPACE"),
            ready_within: Seconds(reader.number("POD_READY_SECONDS", 1..=3_600).unwrap_or(0)),
            ttl: Seconds(reader.number("POD_TTL_SECONDS", 0..=86_400).unwrap_or(0)),
            extra_capacity: reader.extra_capacity(),
            sweep: reader.flag("ENABLE_CLEANUP_TASK"),
            ssh_server_image: reader.ssh_server_image(),
            ssh_server_volume: reader.ssh_server_volume(),
            root: reader
                .one_of("POD_ROOT", &[("auto", PodRoot::Auto), ("never", PodRoot::Never)])
                .unwrap_or(PodRoot::Never),
            run_image: reader.run_image(),
            probe: reader.flag("POD_PROBE"),
            reply_from_pod: reader.flag("REPLY_FROM_POD"),
            receipts: reader.flag("RECEIPTS"),
            ssh_host: reader.ssh_host(),
            ssh_host_from: reader.ssh_host_from(),
            node_lost_after: Seconds(reader.number("NODE_LOST_SECONDS", 10..=86_400).unwrap_or(0)),
            ssh_port: reader.port("SSH_PORT"),
            access: reader.pod_access(),
            gateway: GatewayConfig::read(reader, operator_token),
            route: reader.pod_route(),
        };
        if config.policy_state == config.policies {
            reader
                .problem("POLICY_STATE_DIR: must not be POLICY_DIR; the service manages its files");
        }
        if config.run_image == RunImage::Allowed && config.ssh_server_image.is_none() {
            reader.problem("POD_RUN_IMAGE: needs SSH_SERVER_IMAGE; without it the image's own program is the SSH server");
        }
        reader.problems.extend(config.pod_reply_problems());
        if config.access.modes().contains(AccessMode::Gateway) && config.gateway.is_none() {
            reader.problem(
                "ACCESS: names gateway, and there is none; set GATEWAY_SSH_LISTEN or GATEWAY_IROH",
            );
        }
        let is_apart = |gateway: &GatewayConfig| gateway.process == GatewayProcess::Own;
        if config.gateway.as_ref().is_some_and(is_apart) && config.database.is_none() {
            reader.problem("GATEWAY_IN_SERVICE=false: needs DATABASE_URL, by which the gateway reads leases; a SQLite ledger is the service's alone");
        }
        reader.refuse_unusable_proxies();
        reader.refuse_unknown_keys();
        config
    }
}
