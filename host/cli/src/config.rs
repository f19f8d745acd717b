//! The configuration: a TOML file and the environment. The environment wins; every problem is told
//! at once.

use paygress_cluster::guard::Allowed;
use paygress_core::backend::policy::{RefundTerms, Slot};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, Seconds};
use paygress_http::IpNet;
use paygress_nostr::{Keys, RelayUrl};
use paygress_oci::{Keys as PolicyKeys, SignatureMode, VerificationPolicy};
use paygress_policy::PolicyDir;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Every key: its name in the environment (in the file, the same in small letters), and what it is.
pub const KEYS: [(&str, &str); 48] = [
    ("RUN_MODE", "which doors: nostr, http or both"),
    ("BIND_ADDR", "where the HTTP door listens"),
    (
        "PUBLIC_URL",
        "what the world calls the HTTP door: https://host[:port]; wallets and NIP-98 signatures name it",
    ),
    ("OPERATOR_TOKEN", "opens the operator's page, listing and metrics; left out: there are none"),
    ("TRUSTED_PROXIES", "networks whose X-Forwarded-For is believed, separated by commas"),
    ("CORS_ORIGINS", "origins whose pages may call the HTTP door, separated by commas"),
    ("REQUESTS_PER_MINUTE", "how often one address may ask the HTTP door"),
    (
        "NOSTR_PRIVATE_KEY",
        "the service's secret key, nsec or hex; make one with `paygress keys generate`",
    ),
    ("NOSTR_RELAYS", "its relays, separated by commas"),
    (
        "ALLOW_PRIVATE_RELAYS",
        "whether customers may name relays at private addresses: true in closed networks only",
    ),
    ("SERVICE_NAME", "its name in profile and offers"),
    ("SERVICE_ABOUT", "what it says of itself there"),
    ("WHITELISTED_MINTS", "the mints whose tokens are accepted, separated by commas"),
    ("CASHU_DB_PATH", "the wallet's database"),
    (
        "WALLET_MNEMONIC",
        "the wallet's 12 to 24 words; left out: made once, and kept beside the database",
    ),
    ("LEDGER_PATH", "the ledger's database"),
    (
        "DATABASE_URL",
        "a Postgres for ledger and purse, instead of the two files: for several replicas",
    ),
    ("MAX_SATS_PER_MINT", "the most that is held at one mint; more of it is refused"),
    (
        "REFUND_ON_STOP",
        "whether who stops a pod is paid back at all: true or false; how much is the duration policy's",
    ),
    ("REFUND_KEPT_DAYS", "how long a refund waits to be redeemed before it is taken back"),
    ("PAYOUT_ADDRESS", "a Lightning address that earnings are paid to"),
    ("PAYOUT_ABOVE_SATS", "what a mint's holdings must exceed before they are paid out"),
    (
        "POLICY_DIR",
        "the four components: images.wasm, pricing.wasm, duration.wasm, pod-template.wasm",
    ),
    ("POLICY_CACHE_DIR", "where compiled components are kept; for this user only"),
    (
        "POLICY_STATE_DIR",
        "what has been in force is kept here, for the way back; each replica's own",
    ),
    (
        "ADMIN_SOCKET",
        "where `paygress policy` reaches this service: a socket for this user only; each replica's own",
    ),
    (
        "POLICY_KEYS",
        "public keys, as cosign.pub: files, separated by commas; one of them must have signed a policy",
    ),
    (
        "POLICY_SIGNATURES",
        "required, warn or off; left out: required where there are POLICY_KEYS, else off",
    ),
    (
        "REGISTRY_AUTH_FILE",
        "credentials for registries of policies: a file like docker's config.json",
    ),
    ("POLICY_NAMESPACE", "where `Policy` resources are looked for; left out: nowhere"),
    ("PAYMENT_RATE_SATS_PER_HOUR", "the price, for the default pricing policy"),
    ("DEFAULT_POD_DURATION_MINUTES", "the time that the default duration policy suggests"),
    ("SSH_BASE_IMAGE", "the image of orders that name none, for the default images policy"),
    ("KUBECONFIG", "the cluster; left out: ~/.kube/config, or the one that this runs in"),
    ("POD_NAMESPACE", "the namespace of the pods"),
    (
        "POD_DEVICES",
        "extended resources that templates may ask for, nvidia.com/gpu for instance, separated by commas",
    ),
    ("POD_RUNTIME_CLASSES", "runtime classes that templates may choose, separated by commas"),
    ("POD_TOLERATIONS", "keys of taints that templates may tolerate, separated by commas"),
    ("POD_READY_SECONDS", "how long a pod may take to become ready"),
    ("POD_TTL_SECONDS", "how long the Job of an ended pod is kept"),
    (
        "ENABLE_CLEANUP_TASK",
        "whether pods that the ledger does not know are removed: true or false",
    ),
    ("SSH_HOST", "the name or address that customers log in to"),
    ("SSH_PORT", "the port that the SSH server inside a pod listens on"),
    ("SSH_PORT_RANGE_START", "the first node port for pods"),
    ("SSH_PORT_RANGE_END", "the last one"),
    ("RUST_LOG", "what is logged; environment only"),
    (
        "OTLP_ENDPOINT",
        "the collector of OpenTelemetry traces, by OTLP over HTTP: http://collector:4318; left out: none are sent",
    ),
    ("PAYGRESS_CONFIG", "the config file; environment only"),
];

/// What is wrong, all of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for Problems {}

/// The HTTP door.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where it listens.
    pub bind: SocketAddr,
    /// What the world calls it.
    pub public_url: Option<String>,
    /// What the operator shows.
    pub operator_token: Option<Secret>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whose pages may call it.
    pub cors_origins: Vec<String>,
    /// Requests of one address a minute.
    pub requests_per_minute: u32,
}

/// The configuration, checked.
pub struct Config {
    /// Whether the Nostr door is open.
    pub nostr: bool,
    /// The HTTP door, if it is open.
    pub http: Option<HttpConfig>,
    /// The time that is suggested to who does not say how much he wants.
    pub suggested: Seconds,
    /// The service's keys.
    pub keys: Keys,
    /// Its relays.
    pub relays: Vec<RelayUrl>,
    /// Whether customers may name relays at private addresses.
    pub private_relays: bool,
    /// Its name.
    pub name: String,
    /// What it says of itself.
    pub about: String,
    /// The accepted mints.
    pub mints: Vec<String>,
    /// The wallet's database.
    pub wallet: PathBuf,
    /// The wallet's mnemonic, if given.
    pub mnemonic: Option<Secret>,
    /// The ledger's database.
    pub ledger: PathBuf,
    /// A Postgres instead of the two files.
    pub database: Option<Secret>,
    /// The most that is held at one mint.
    pub max_balance: Option<Sat>,
    /// The terms of paying back who stops a pod where the policy has none of its own; none: nobody
    /// is.
    pub refund_on_stop: Option<RefundTerms>,
    /// How long a refund waits to be redeemed.
    pub refund_kept: Seconds,
    /// Where earnings go, and above which holdings.
    pub payout: Option<(String, Sat)>,
    /// What templates may ask for beyond the ordinary.
    pub allowed: Allowed,
    /// The components.
    pub policies: PathBuf,
    /// Where compiled components are kept.
    pub policy_cache: PathBuf,
    /// Where what has been in force is kept.
    pub policy_state: PathBuf,
    /// Where the operator's commands come in.
    pub admin_socket: PathBuf,
    /// Whose policies are taken.
    pub trust: VerificationPolicy,
    /// Credentials for registries.
    pub registry_auth: Option<PathBuf>,
    /// The namespace of `Policy` resources.
    pub policy_namespace: Option<String>,
    /// The collector of traces.
    pub otlp: Option<String>,
    /// The components' settings.
    pub policy_settings: BTreeMap<&'static str, Map<String, Value>>,
    /// The cluster.
    pub kubeconfig: Option<PathBuf>,
    /// The pods' namespace.
    pub namespace: String,
    /// How long a pod may take to become ready.
    pub ready_within: Seconds,
    /// How long an ended pod's Job is kept.
    pub ttl: Seconds,
    /// Whether unknown pods are removed.
    pub sweep: bool,
    /// Where customers log in.
    pub ssh_host: String,
    /// Where the server inside a pod listens.
    pub ssh_port: u16,
    /// The node ports for pods.
    pub ports: RangeInclusive<u16>,
}

/// A shorter token is guessed.
const OPERATOR_CHARS: usize = 24;

/// What is separated by commas.
fn items(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Reads values one by one and notes what is wrong.
pub(crate) struct Reader {
    file: toml::Table,
    environment: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Reader {
    fn new(file: Option<&str>, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut reader = Self {
            file: toml::Table::new(),
            environment: environment.into_iter().collect(),
            problems: Vec::new(),
        };
        match file.map(str::parse::<toml::Table>) {
            None => {}
            Some(Ok(table)) => reader.file = table,
            // The parser's message quotes the line, and the line may hold the key.
            Some(Err(error)) => {
                let at = error.span().map(|span| {
                    file.unwrap_or_default()
                        .get(..span.start)
                        .unwrap_or_default()
                        .lines()
                        .count()
                        .max(1)
                });
                reader.problems.push(format!(
                    "the config file is not TOML: {} (line {})",
                    error.message(),
                    at.unwrap_or(1)
                ));
            }
        }
        reader
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let in_file = self.file.remove(&key.to_lowercase());
        if let Some(value) = self.environment.get(key).filter(|value| !value.trim().is_empty()) {
            return Some(value.trim().to_owned());
        }
        match in_file? {
            toml::Value::String(text) => Some(text),
            toml::Value::Integer(number) => Some(number.to_string()),
            toml::Value::Boolean(flag) => Some(flag.to_string()),
            toml::Value::Array(items) if items.iter().all(toml::Value::is_str) => {
                Some(items.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(","))
            }
            _ => {
                self.problems.push(format!(
                    "{}: must be a text, a number, true or false, or a list of texts",
                    key.to_lowercase()
                ));
                None
            }
        }
    }

    /// Where the running service is reached.
    pub(crate) fn admin_socket(&mut self) -> PathBuf {
        self.text_or("ADMIN_SOCKET", "data/admin.sock").into()
    }

    /// What templates may ask for.
    pub(crate) fn allowed(&mut self) -> Allowed {
        Allowed {
            devices: self.names("POD_DEVICES"),
            runtime_classes: self.names("POD_RUNTIME_CLASSES"),
            tolerations: self.names("POD_TOLERATIONS"),
        }
    }

    /// Credentials for registries.
    pub(crate) fn registry_auth(&mut self) -> Option<PathBuf> {
        self.text("REGISTRY_AUTH_FILE").map(PathBuf::from)
    }

    /// Known keys, and what is wanted of signatures.
    pub(crate) fn trust(&mut self) -> VerificationPolicy {
        let mut keys = PolicyKeys::default();
        for file in self.names("POLICY_KEYS") {
            if let Err(why) = keys.add_file(Path::new(&file)) {
                self.problems.push(format!("POLICY_KEYS: {why}"));
            }
        }
        let wanted = match self.text("POLICY_SIGNATURES").as_deref() {
            None if keys.is_empty() => SignatureMode::Off,
            None | Some("required") => SignatureMode::Required,
            Some("warn") => SignatureMode::Warn,
            Some("off") => SignatureMode::Off,
            Some(_) => {
                self.problems.push("POLICY_SIGNATURES: must be required, warn or off".to_owned());
                SignatureMode::Required
            }
        };
        if keys.is_empty() && wanted != SignatureMode::Off {
            self.problems.push(
                "POLICY_SIGNATURES: without POLICY_KEYS nothing is signed by a known key"
                    .to_owned(),
            );
        }
        VerificationPolicy::new(keys, wanted)
    }

    /// The address of a server that we send to.
    fn endpoint(&mut self, key: &str) -> Option<String> {
        let url = self.text(key)?;
        let good = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"))
            .is_some_and(|rest| !rest.is_empty());
        if !good || url.contains(['?', '#', '@', ' ']) {
            self.problems.push(format!("{key}: must be like http://collector:4318"));
        }
        Some(url)
    }

    fn text_or(&mut self, key: &str, default: &str) -> String {
        self.text(key).unwrap_or_else(|| default.to_owned())
    }

    fn needed(&mut self, key: &str) -> String {
        self.text(key).unwrap_or_else(|| {
            let what = KEYS.iter().find(|(name, _)| *name == key).map_or("", |(_, what)| what);
            self.problems.push(format!("{key} is missing: {what}"));
            String::new()
        })
    }

    fn list(&mut self, key: &str) -> Vec<String> {
        items(&self.needed(key))
    }

    /// A list that may be left out.
    fn names(&mut self, key: &str) -> Vec<String> {
        items(&self.text(key).unwrap_or_default())
    }

    fn http(&mut self) -> HttpConfig {
        let bind = self.text_or("BIND_ADDR", "127.0.0.1:8080");
        let bind = bind.parse().unwrap_or_else(|_| {
            self.problems
                .push("BIND_ADDR: must be address:port, 0.0.0.0:8080 for instance".to_owned());
            SocketAddr::from(([127, 0, 0, 1], 8080))
        });
        let public_url = self.text("PUBLIC_URL").map(|url| url.trim_end_matches('/').to_owned());
        let host = |url: &str| {
            url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).map(str::to_owned)
        };
        if public_url.as_deref().is_some_and(|url| {
            host(url).is_none_or(|host| host.is_empty() || host.contains(['/', '?', '#', '@', ' ']))
        }) {
            self.problems
                .push("PUBLIC_URL: must be https://host[:port], without a path".to_owned());
        }
        let operator_token = self.text("OPERATOR_TOKEN").map(Secret::new);
        if operator_token.as_ref().is_some_and(|token| token.expose().len() < OPERATOR_CHARS) {
            self.problems
                .push(format!("OPERATOR_TOKEN: must have {OPERATOR_CHARS} characters at least; make one with `openssl rand -hex 32`"));
        }
        let mut trusted_proxies = Vec::new();
        for text in self.names("TRUSTED_PROXIES") {
            match text
                .parse::<IpNet>()
                .or_else(|error| text.parse::<IpAddr>().map(IpNet::from).map_err(|_| error))
            {
                Ok(network) => trusted_proxies.push(network),
                Err(_) => self.problems.push(format!(
                    "TRUSTED_PROXIES: {text} is neither an address nor a network; write 10.0.0.0/8"
                )),
            }
        }
        let cors_origins = self.names("CORS_ORIGINS");
        for origin in cors_origins
            .iter()
            .filter(|origin| host(origin).is_none_or(|host| host.contains(['/', '*'])))
        {
            self.problems
                .push(format!("CORS_ORIGINS: {origin} is no origin; write https://host[:port]"));
        }
        let requests = self
            .number("REQUESTS_PER_MINUTE", 1..=1_000_000)
            .and_then(|number| u32::try_from(number).ok());
        HttpConfig {
            bind,
            public_url,
            operator_token,
            trusted_proxies,
            cors_origins,
            requests_per_minute: requests.unwrap_or(240),
        }
    }

    /// Both or neither.
    fn payout(&mut self) -> Option<(String, Sat)> {
        let (address, above) = (
            self.text("PAYOUT_ADDRESS"),
            self.number("PAYOUT_ABOVE_SATS", 100..=2_100_000_000_000_000),
        );
        match (address, above) {
            (Some(address), Some(above)) if address.contains('@') => Some((address, Sat(above))),
            (Some(_), Some(_)) => {
                self.problems
                    .push("PAYOUT_ADDRESS: must be a Lightning address, name@domain".to_owned());
                None
            }
            (None, None) => None,
            _ => {
                self.problems
                    .push("PAYOUT_ADDRESS and PAYOUT_ABOVE_SATS: set both or neither".to_owned());
                None
            }
        }
    }

    fn number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.text(key)?;
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            self.problems.push(format!(
                "{key}: must be a whole number from {} to {}",
                range.start(),
                range.end()
            ));
        }
        number
    }

    fn port(&mut self, key: &str, default: u16) -> u16 {
        self.number(key, 1..=65_535)
            .and_then(|number| u16::try_from(number).ok())
            .unwrap_or(default)
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.text(key).as_deref() {
            None => default,
            Some("true" | "1" | "yes") => true,
            Some("false" | "0" | "no") => false,
            Some(_) => {
                self.problems.push(format!("{key}: must be true or false"));
                default
            }
        }
    }

    /// The settings of the policies: `[policy.pricing]` and so on, as they are, and the keys that
    /// stand for one of them.
    fn policy_settings(&mut self) -> BTreeMap<&'static str, Map<String, Value>> {
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
        let mut settings: BTreeMap<&'static str, Map<String, Value>> = BTreeMap::new();
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

/// A part of the configuration, for commands that need no more of it: what is wrong elsewhere does
/// not stop them.
///
/// # Errors
/// [`Problems`], all that this part has.
pub(crate) fn part<T>(
    file: Option<&str>,
    environment: impl IntoIterator<Item = (String, String)>,
    read: impl FnOnce(&mut Reader) -> T,
) -> Result<T, Problems> {
    let mut reader = Reader::new(file, environment);
    let part = read(&mut reader);
    if reader.problems.is_empty() { Ok(part) } else { Err(Problems(reader.problems)) }
}

impl Config {
    /// The folder of policies, with their settings.
    #[must_use]
    pub fn policy_folder(&self) -> PolicyDir {
        let settings = |slot: Slot| {
            Value::Object(self.policy_settings.get(slot.as_str()).cloned().unwrap_or_default())
                .to_string()
        };
        PolicyDir::new(
            self.policies.clone(),
            Slot::ALL.into_iter().map(|slot| (slot, settings(slot))).collect(),
        )
        .trusting(self.trust.clone())
        .defer_to_resources(self.policy_namespace.is_some())
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// [`Problems`], all of them.
    pub fn read(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let mut reader = Reader::new(file, environment);
        let (nostr, is_http) = match reader.text_or("RUN_MODE", "nostr").as_str() {
            "nostr" => (true, false),
            "http" => (false, true),
            "both" => (true, true),
            _ => {
                reader.problems.push("RUN_MODE: must be nostr, http or both".to_owned());
                (true, false)
            }
        };
        // Read in any case: what is wrong is told, whichever door is open.
        let http = reader.http();
        let key = reader.needed("NOSTR_PRIVATE_KEY");
        let keys = Keys::parse(&key);
        if keys.is_err() && !key.is_empty() {
            reader.problems.push(
                "NOSTR_PRIVATE_KEY: is not a secret key; write nsec1… or 64 hex digits".to_owned(),
            );
        }
        let mut relays = Vec::new();
        let named = if nostr { reader.list("NOSTR_RELAYS") } else { reader.names("NOSTR_RELAYS") };
        for text in named {
            match RelayUrl::parse(&text) {
                Ok(relay) => relays.push(relay),
                Err(_) => reader
                    .problems
                    .push(format!("NOSTR_RELAYS: {text} is not a relay; write wss://host[:port]")),
            }
        }
        let ports =
            reader.port("SSH_PORT_RANGE_START", 30_000)..=reader.port("SSH_PORT_RANGE_END", 31_000);
        if ports.is_empty() {
            reader
                .problems
                .push("SSH_PORT_RANGE_END: must not be less than SSH_PORT_RANGE_START".to_owned());
        }
        let settings = reader.policy_settings();
        let suggested = settings
            .get("duration")
            .and_then(|duration| duration.get("suggested_minutes")?.as_u64())
            .unwrap_or(60);
        let (database, mnemonic) = (
            reader.text("DATABASE_URL").map(Secret::new),
            reader.text("WALLET_MNEMONIC").map(Secret::new),
        );
        if database.is_some() && mnemonic.is_none() {
            let told = "WALLET_MNEMONIC is missing: replicas that share a DATABASE_URL share one purse, and need the same 12 to 24 words";
            reader.problems.push(told.to_owned());
        }
        let config = Self {
            nostr,
            http: is_http.then_some(http),
            suggested: Seconds(suggested.saturating_mul(60)),
            // Replaced or refused below.
            keys: keys.unwrap_or_else(|_| Keys::generate()),
            relays,
            private_relays: reader.flag("ALLOW_PRIVATE_RELAYS", false),
            name: reader.text_or("SERVICE_NAME", "Paygress"),
            about: reader.text_or("SERVICE_ABOUT", "SSH pods for Cashu tokens, by the minute"),
            mints: reader.list("WHITELISTED_MINTS"),
            wallet: reader.text_or("CASHU_DB_PATH", "data/wallet.sqlite").into(),
            mnemonic,
            ledger: reader.text_or("LEDGER_PATH", "data/ledger.sqlite").into(),
            database,
            max_balance: reader.number("MAX_SATS_PER_MINT", 1..=2_100_000_000_000_000).map(Sat),
            refund_on_stop: reader
                .flag("REFUND_ON_STOP", true)
                .then_some(RefundTerms { step: Seconds(60), percent: 100 }),
            refund_kept: Seconds(
                reader.number("REFUND_KEPT_DAYS", 1..=3_650).unwrap_or(30).saturating_mul(86_400),
            ),
            payout: reader.payout(),
            allowed: reader.allowed(),
            policies: reader
                .text_or("POLICY_DIR", &crate::app::default_policies().to_string_lossy())
                .into(),
            policy_cache: reader.text_or("POLICY_CACHE_DIR", "data/compiled").into(),
            policy_state: reader.text_or("POLICY_STATE_DIR", "data/policies").into(),
            admin_socket: reader.admin_socket(),
            trust: reader.trust(),
            registry_auth: reader.registry_auth(),
            policy_namespace: reader.text("POLICY_NAMESPACE"),
            otlp: reader.endpoint("OTLP_ENDPOINT"),
            policy_settings: settings,
            kubeconfig: reader.text("KUBECONFIG").map(PathBuf::from),
            namespace: reader.text_or("POD_NAMESPACE", "user-workloads"),
            ready_within: Seconds(reader.number("POD_READY_SECONDS", 1..=3_600).unwrap_or(120)),
            ttl: Seconds(reader.number("POD_TTL_SECONDS", 0..=86_400).unwrap_or(60)),
            sweep: reader.flag("ENABLE_CLEANUP_TASK", true),
            ssh_host: reader.needed("SSH_HOST"),
            ssh_port: reader.port("SSH_PORT", paygress_core::backend::cluster::CONTAINER_PORT),
            ports,
        };
        if config.policy_state == config.policies {
            reader.problems.push(
                "POLICY_STATE_DIR: must not be POLICY_DIR; what is kept there is the service's own"
                    .to_owned(),
            );
        }
        let known: Vec<String> = KEYS.iter().map(|(name, _)| name.to_lowercase()).collect();
        for unknown in reader.file.keys().filter(|key| !known.contains(key)) {
            reader
                .problems
                .push(format!("{unknown}: there is no such key; see examples/paygress.toml"));
        }
        if reader.problems.is_empty() { Ok(config) } else { Err(Problems(reader.problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
        Config::read(
            Some(file),
            environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        )
    }

    const KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";

    fn good() -> String {
        format!(
            "nostr_private_key = \"{KEY}\"\nnostr_relays = [\"wss://a.example\", \"wss://b.example\"]\nwhitelisted_mints = \"https://m.example\"\nssh_host = \"h.example\"\n"
        )
    }

    #[test]
    fn the_example_is_good_but_for_what_it_leaves_to_the_operator() {
        let example = include_str!("../../../examples/paygress.toml");
        let config = read(example, &[("NOSTR_PRIVATE_KEY", KEY)])
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.policy_settings["pricing"]["minimum_sat"], 1);
    }

    #[test]
    fn all_problems_are_told_at_once_and_none_tells_the_key() {
        let file = "run_mode = \"carrier pigeon\"\nbind_addr = \"here\"\npublic_url = \"example.com\"\noperator_token = \"short\"\ntrusted_proxies = \"x\"\ncors_origins = \"*\"\nnostr_private_key = \"hunter2\"\nnostr_relays = \"http://x\"\nssh_port = 0\nenable_cleanup_task = \"maybe\"\nssh_port_range_start = 40000\nssh_port_range_end = 39999\notlp_endpoint = \"collector\"\ntypo = 1\n[policy.prices]\n";
        let Err(Problems(problems)) = read(file, &[]) else { panic!("accepted") };
        let told = problems.join("\n");
        for expected in [
            "RUN_MODE",
            "BIND_ADDR",
            "PUBLIC_URL",
            "OPERATOR_TOKEN",
            "TRUSTED_PROXIES",
            "CORS_ORIGINS",
            "NOSTR_PRIVATE_KEY",
            "NOSTR_RELAYS",
            "WHITELISTED_MINTS",
            "SSH_HOST",
            "SSH_PORT:",
            "ENABLE_CLEANUP_TASK",
            "SSH_PORT_RANGE_END",
            "OTLP_ENDPOINT",
            "typo",
            "policy.prices",
        ] {
            assert!(told.contains(expected), "{expected} is not told:\n{told}");
        }
        assert_eq!(problems.len(), 16, "{told}");
        assert!(!told.contains("hunter2"));
        let Err(Problems(broken)) = read("x = 1\nnostr_private_key = \"hunter2", &[]) else {
            panic!("accepted")
        };
        assert!(broken[0].contains("line 2") && !broken[0].contains("hunter2"), "{broken:?}");
    }

    #[test]
    fn a_part_is_read_by_itself() {
        let file =
            "ssh_port = 0\nadmin_socket = \"here.sock\"\npod_devices = [\"nvidia.com/gpu\"]\n";
        let read = |environment: &[(&str, &str)]| {
            let environment =
                environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            part(Some(file), environment, |reader| {
                (reader.admin_socket(), reader.allowed().devices, reader.trust().wanted())
            })
        };
        assert_eq!(
            read(&[]),
            Ok(("here.sock".into(), vec!["nvidia.com/gpu".to_owned()], SignatureMode::Off))
        );
        assert_eq!(read(&[("POLICY_SIGNATURES", "perhaps")]).unwrap_err().0.len(), 2);
        assert!(
            part(Some("x"), [], Reader::admin_socket).unwrap_err().to_string().contains("line 1")
        );
    }

    #[test]
    fn each_door_needs_what_is_its_own() {
        let alone = format!(
            "run_mode = \"http\"\nnostr_private_key = \"{KEY}\"\nwhitelisted_mints = \"https://m.example\"\nssh_host = \"h\"\n"
        );
        let config = read(
            &alone,
            &[("PUBLIC_URL", "https://a.example/"), ("TRUSTED_PROXIES", "10.0.0.1,10.1.0.0/16")],
        );
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let http = config.http.unwrap();
        assert!(!config.nostr && http.trusted_proxies.len() == 2 && http.operator_token.is_none());
        assert_eq!(http.public_url.as_deref(), Some("https://a.example"));
        assert!(read(&good(), &[]).is_ok_and(|config| config.nostr && config.http.is_none()));
        assert!(
            read(&good(), &[("RUN_MODE", "both")])
                .is_ok_and(|config| config.nostr && config.http.is_some())
        );
    }

    #[test]
    fn the_environment_wins_and_stands_for_policy_settings() {
        let config = read(
            &good(),
            &[
                ("SSH_HOST", "other.example"),
                ("PAYMENT_RATE_SATS_PER_HOUR", "120"),
                ("SSH_BASE_IMAGE", "a/b:1"),
            ],
        );
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!((config.ssh_host.as_str(), config.relays.len()), ("other.example", 2));
        assert_eq!(config.policy_settings["pricing"]["sats_per_hour"], 120);
        assert_eq!(config.policy_settings["images"]["default"], "a/b:1");
        let twice = format!(
            "{}payment_rate_sats_per_hour = 1\n[policy.pricing]\nsats_per_hour = 2\n",
            good()
        );
        assert!(read(&twice, &[]).err().unwrap().to_string().contains("the same setting"));
    }
}
