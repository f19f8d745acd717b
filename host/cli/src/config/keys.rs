//! The table of all settings: names, defaults and descriptions. Reading, error messages and the
//! documentation use it, a test compares it with `docs/operating.md`, and `cargo xtask generate` writes
//! its names into the schema of the chart's values.

use std::collections::BTreeSet;

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in the environment; in the file, the same in lower case.
    pub name: &'static str,
    /// The value if it is not set. `None`: required, optional, or derived.
    pub default: Option<&'static str>,
    pub about: &'static str,
}

/// Read from the environment only, before the configuration is.
pub const ENVIRONMENT_ONLY: [&str; 3] = ["LOG_FORMAT", "PAYGRESS_CONFIG", "RUST_LOG"];

/// What a deployment has beside them among its settings: parameters of the admission policy alone, and
/// variables that libraries read.
pub const BESIDE: [&str; 12] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "POD_ANNOTATIONS",
    "POD_IMAGE_PULL_SECRETS",
    "POD_NODE_LABELS",
    "POD_PRIORITY_CLASSES",
    "RUST_BACKTRACE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
];

pub const KEYS: &[Key] = &[
    Key { name: "RUN_MODE", default: Some("nostr"), about: "the transports: nostr, http or both" },
    Key {
        name: "BIND_ADDR",
        default: Some("127.0.0.1:8080"),
        about: "the address and port that the HTTP server listens on; [::]:8080 is IPv4 too",
    },
    Key {
        name: "PUBLIC_URL",
        default: None,
        about: "the public URL of the HTTP server, https://host[:port]; payment requests and NIP-98 signatures name it",
    },
    Key {
        name: "OPERATOR_TOKEN",
        default: None,
        about: "the bearer token of the operator's page, listing and metrics; without it there are none",
    },
    Key {
        name: "TRUSTED_PROXIES",
        default: None,
        about: "networks whose X-Forwarded-For is trusted, separated by commas",
    },
    Key {
        name: "CORS_ORIGINS",
        default: None,
        about: "origins whose pages may call the API, separated by commas",
    },
    Key {
        name: "REQUESTS_PER_MINUTE",
        default: Some("240"),
        about: "requests of one address a minute",
    },
    Key {
        name: "APPS_DOMAIN",
        default: None,
        about: "a wildcard name of yours without its *.: the HTTP ports of pods are served below it, where orders ask for one; without it none are",
    },
    Key {
        name: "NOSTR_PRIVATE_KEY",
        default: None,
        about: "the service's secret key, nsec or hex; make one with `paygress keys generate`",
    },
    Key { name: "NOSTR_RELAYS", default: None, about: "its relays, separated by commas" },
    Key {
        name: "ALLOW_PRIVATE_RELAYS",
        default: Some("false"),
        about: "whether customers may name relays at private addresses: true in closed networks only",
    },
    Key {
        name: "SERVICE_NAME",
        default: Some("Paygress"),
        about: "its name in profile and offers",
    },
    Key {
        name: "SERVICE_ABOUT",
        default: Some("SSH pods for Cashu tokens, by the minute"),
        about: "its description in profile and offers",
    },
    Key {
        name: "WHITELISTED_MINTS",
        default: None,
        about: "the mints whose tokens are accepted, separated by commas",
    },
    Key {
        name: "CASHU_DB_PATH",
        default: Some("data/wallet.sqlite"),
        about: "the wallet's database",
    },
    Key {
        name: "WALLET_MNEMONIC",
        default: None,
        about: "the wallet's mnemonic, 12 to 24 words; without it one is generated, and kept beside the database",
    },
    Key {
        name: "LEDGER_PATH",
        default: Some("data/ledger.sqlite"),
        about: "the ledger's database",
    },
    Key {
        name: "DATABASE_URL",
        default: None,
        about: "a Postgres for ledger and wallet, instead of the two files: for several replicas",
    },
    Key {
        name: "BACKUP_FILE",
        default: None,
        about: "a file or directory that your backup writes last; `paygress doctor` compares its age",
    },
    Key {
        name: "MAX_SATS_PER_MINT",
        default: None,
        about: "the highest balance at one mint; tokens beyond it are refused",
    },
    Key {
        name: "REFUND_ON_STOP",
        default: Some("true"),
        about: "whether a stopped pod is refunded at all: true or false; the amount is up to the duration policy",
    },
    Key {
        name: "REFUND_FEES",
        default: Some("operator"),
        about: "who bears the mint's fees of what fails through a fault of the service: operator or customer",
    },
    Key {
        name: "REFUND_KEPT_DAYS",
        default: Some("30"),
        about: "how long a refund waits to be redeemed before it is reclaimed",
    },
    Key {
        name: "CAPTURE",
        default: Some("launch"),
        about: "when the payment for a new pod is taken: launch (before it is launched), or ready (once it takes logins, where the token cannot be forged)",
    },
    Key {
        name: "PAYOUT_ADDRESS",
        default: None,
        about: "a Lightning address that earnings are paid to",
    },
    Key {
        name: "PAYOUT_ABOVE_SATS",
        default: None,
        about: "the balance at a mint above which it is paid out",
    },
    Key {
        name: "POLICY_DIR",
        default: None,
        about: "the four components: images.wasm, pricing.wasm, duration.wasm, pod-template.wasm",
    },
    Key {
        name: "POLICY_CACHE_DIR",
        default: Some("data/compiled"),
        about: "the cache of compiled components; for this user only",
    },
    Key {
        name: "POLICY_STATE_DIR",
        default: Some("data/policies"),
        about: "the history of the active policies, for rollbacks; each replica has its own",
    },
    Key {
        name: "ADMIN_SOCKET",
        default: Some("data/admin.sock"),
        about: "the socket of `paygress policy`, `lease` and `sales`, for this user only; each replica has its own",
    },
    Key {
        name: "POLICY_KEYS",
        default: None,
        about: "public keys, as cosign.pub: files, separated by commas; a policy must be signed by one of them",
    },
    Key {
        name: "POLICY_SIGNATURES",
        default: None,
        about: "required, warn or off; without it: required if there are POLICY_KEYS, else off",
    },
    Key {
        name: "REGISTRY_AUTH_FILE",
        default: None,
        about: "credentials for registries of policies: a file like docker's config.json",
    },
    Key {
        name: "REGISTRY_CREDENTIAL_HELPERS",
        default: Some("false"),
        about: "whether the credential helpers that REGISTRY_AUTH_FILE names are run: true or false",
    },
    Key {
        name: "REGISTRY_PLAIN_HTTP",
        default: None,
        about: "registries of policies that are spoken to by plain HTTP, host:port separated by commas: in closed networks only",
    },
    Key {
        name: "POLICY_NAMESPACE",
        default: None,
        about: "the namespace of `Policy` resources; without it they are not watched",
    },
    Key {
        name: "PAYMENT_RATE_SATS_PER_HOUR",
        default: None,
        about: "the price, for the default pricing policy",
    },
    Key {
        name: "DEFAULT_POD_DURATION_MINUTES",
        default: None,
        about: "the duration that the default duration policy suggests",
    },
    Key {
        name: "END_NOTICES",
        default: Some("600,60"),
        about: "how many seconds before the end of a pod its customer gets notices, separated by commas; none: never",
    },
    Key {
        name: "SSH_BASE_IMAGE",
        default: None,
        about: "the default image of the default images policy",
    },
    Key {
        name: "KUBECONFIG",
        default: None,
        about: "the cluster; without it: ~/.kube/config, or the cluster that this runs in",
    },
    Key {
        name: "POD_NAMESPACE",
        default: Some("user-workloads"),
        about: "the namespace of the pods",
    },
    Key {
        name: "POD_CPU_OVERCOMMIT",
        default: Some("1"),
        about: "how many times more CPU is sold than is requested of the nodes: 1 to 100",
    },
    Key {
        name: "POD_MEMORY_OVERCOMMIT",
        default: Some("1"),
        about: "the same of memory; above 1, pods are evicted when they use what they bought",
    },
    Key {
        name: "POD_DEVICES",
        default: None,
        about: "extended resources that templates may request, such as nvidia.com/gpu, separated by commas",
    },
    Key {
        name: "POD_RUNTIME_CLASSES",
        default: None,
        about: "runtime classes that templates may use, separated by commas",
    },
    Key {
        name: "POD_TOLERATIONS",
        default: None,
        about: "keys of taints that templates may tolerate, separated by commas",
    },
    Key {
        name: "POD_EGRESS_EXCEPT",
        default: None,
        about: "networks that no egress rules of a template open, besides private ones: public addresses of nodes and of the API server, as 203.0.113.7/32, separated by commas",
    },
    Key {
        name: "POD_EXTRA_CAPACITY",
        default: None,
        about: "what an autoscaler adds beyond the nodes that are there: nodes=3,up-to=5,cpu=4,memory=16Gi; devices and pods (110) too",
    },
    Key {
        name: "POD_READY_SECONDS",
        default: Some("120"),
        about: "how long a pod may take to become ready",
    },
    Key {
        name: "POD_TTL_SECONDS",
        default: Some("60"),
        about: "how long the Job of an ended pod is kept",
    },
    Key {
        name: "ENABLE_CLEANUP_TASK",
        default: Some("true"),
        about: "whether pods that are not in the ledger are removed: true or false",
    },
    Key {
        name: "SSH_SERVER_IMAGE",
        default: None,
        about: "the image with the SSH server that is put into customers' images; without it, these bring their own",
    },
    Key {
        name: "SSH_SERVER_VOLUME",
        default: Some("auto"),
        about: "how that SSH server comes into pods: image (its image is mounted), copy (an init container copies it) or auto (the first where a probe pod starts so, or else the second)",
    },
    Key {
        name: "POD_ROOT",
        default: Some("auto"),
        about: "whether customers are root in their pods: auto (where nodes have user namespaces, with SSH_SERVER_IMAGE) or never",
    },
    Key {
        name: "POD_RUN_IMAGE",
        default: Some("false"),
        about: "whether orders may have their image's own program run beside the SSH server, with SSH_SERVER_IMAGE: true or false",
    },
    Key {
        name: "POD_PROBE",
        default: Some("true"),
        about: "whether nothing is sold before a probe pod has started: true or false",
    },
    Key {
        name: "REPLY_FROM_POD",
        default: Some("false"),
        about: "whether a pod that is ordered over Nostr also writes to its customer by itself, with a key of its own: true or false; needs SSH_SERVER_IMAGE",
    },
    Key {
        name: "RECEIPTS",
        default: Some("true"),
        about: "whether answers carry signed receipts, and offers the digests of the policies: true or false",
    },
    Key {
        name: "ACCESS",
        default: Some("host-port,node-port"),
        about: "how customers may reach pods: host-port, node-port, gateway, or several; of the two kinds of ports the pod template uses one",
    },
    Key {
        name: "MAX_LEASES",
        default: None,
        about: "how many pods there may be at the same time with ACCESS=gateway; without it: 100",
    },
    Key { name: "SSH_HOST", default: None, about: "the name or address that customers log in to" },
    Key {
        name: "SSH_HOST_FROM",
        default: Some("setting"),
        about: "where customers log in: setting (at SSH_HOST) or node (at the node of their pod: its annotation paygress.dev/ssh-host, its external address, or the one that the cluster has of it)",
    },
    Key {
        name: "SSH_PORT",
        default: Some("2222"),
        about: "the port that the SSH server inside a pod listens on",
    },
    Key { name: "SSH_PORT_RANGE_START", default: Some("20000"), about: "the first port for pods" },
    Key { name: "SSH_PORT_RANGE_END", default: Some("21000"), about: "the last one" },
    Key {
        name: "NODE_LOST_SECONDS",
        default: Some("300"),
        about: "how long a node may be not ready before the leases of its pods end, 10 to 86400",
    },
    Key {
        name: "GATEWAY_SSH_LISTEN",
        default: None,
        about: "the address and port of the gateway's SSH jump host, [::]:2222 for instance; without it there is none",
    },
    Key {
        name: "GATEWAY_SSH_HOST",
        default: None,
        about: "the name or address that customers reach the jump host at; without it: SSH_HOST",
    },
    Key {
        name: "GATEWAY_SSH_PORT",
        default: None,
        about: "the port that they reach it at; without it: that of GATEWAY_SSH_LISTEN",
    },
    Key {
        name: "GATEWAY_IROH",
        default: Some("false"),
        about: "whether the gateway has an endpoint of iroh: true or false",
    },
    Key {
        name: "GATEWAY_IROH_BIND",
        default: None,
        about: "the UDP addresses of the endpoint, one of each family, separated by commas; without it: a free port, another one after each start",
    },
    Key {
        name: "GATEWAY_IROH_EXTERNAL",
        default: None,
        about: "addresses and ports at which customers reach the endpoint, if they are others, separated by commas",
    },
    Key {
        name: "GATEWAY_IROH_RELAYS",
        default: None,
        about: "relays of the endpoint, https://host[:port] separated by commas; without them it is reached directly only",
    },
    Key {
        name: "GATEWAY_KEY_DIR",
        default: None,
        about: "the directory of the gateway's keys; without it: that of LEDGER_PATH",
    },
    Key {
        name: "GATEWAY_IN_SERVICE",
        default: Some("true"),
        about: "whether `paygress serve` runs the gateway itself: true, or false where `paygress gateway` does",
    },
    Key {
        name: "GATEWAY_HTTP_LISTEN",
        default: None,
        about: "the address and port of /healthz, /readyz and /metrics of `paygress gateway`, [::]:8080 for instance; without it there are none",
    },
    Key {
        name: "GATEWAY_POD_NETWORK",
        default: Some("auto"),
        about: "how the gateway reaches pods: pod-network (their addresses), port-forward (the API server) or auto (in the cluster the first where it answers, or else the second)",
    },
    Key { name: "RUST_LOG", default: None, about: "what is logged; environment only" },
    Key {
        name: "LOG_FORMAT",
        default: Some("text"),
        about: "how it is logged: text, or json, a line of which is an event; environment only",
    },
    Key {
        name: "OTLP_ENDPOINT",
        default: None,
        about: "a collector of OpenTelemetry traces, OTLP over HTTP: http://collector:4318",
    },
    Key { name: "PAYGRESS_CONFIG", default: None, about: "the config file; environment only" },
];

/// The setting of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Every name that the settings of a deployment may have.
#[must_use]
pub fn deployed() -> BTreeSet<&'static str> {
    KEYS.iter().map(|key| key.name).chain(BESIDE).collect()
}
