//! `paygress order`: a customer's client.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use paygress_nostr::customer::{Customer, DiscoveredOffer};
use paygress_nostr::{Keys, PublicKey, RelayUrl, npub, nsec};
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `paygress order`.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Relays to use, several times or separated by commas.
    #[arg(long = "relay", env = "NOSTR_RELAYS", value_delimiter = ',', global = true)]
    relays: Vec<String>,
    /// The service, npub or hex. Left out: the one that has an offer on these relays.
    #[arg(long, env = "PAYGRESS_SERVICE", global = true)]
    service: Option<String>,
    /// Your key; made if it is not there. Only it can extend your pods or ask for their status.
    #[arg(long, env = "PAYGRESS_CUSTOMER_KEY_FILE", global = true)]
    key_file: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// How long to wait for the answer, in seconds.
    #[arg(long, default_value_t = 180, global = true)]
    timeout: u64,
}

#[derive(Subcommand)]
enum Action {
    /// Buy a new pod.
    Spawn {
        /// The Cashu token; `-` reads it from standard input, where no other user can see it.
        #[arg(long, env = "PAYGRESS_TOKEN", hide_env_values = true)]
        token: String,
        /// The image.
        #[arg(long)]
        image: Option<String>,
        /// The tier; see `offers`.
        #[arg(long)]
        tier: Option<String>,
        /// The time that the token must at least pay for, in minutes.
        #[arg(long)]
        minutes: Option<u64>,
        /// The SSH user.
        #[arg(long)]
        username: Option<String>,
        /// The SSH password. Left out: a good one is made for you.
        #[arg(long, env = "PAYGRESS_PASSWORD", hide_env_values = true)]
        password: Option<String>,
        /// A public key file that may log in too.
        #[arg(long)]
        public_key: Option<PathBuf>,
    },
    /// Buy more time for a pod.
    TopUp {
        /// The pod's name.
        pod: String,
        /// The Cashu token, as for `spawn`.
        #[arg(long, env = "PAYGRESS_TOKEN", hide_env_values = true)]
        token: String,
    },
    /// Ask how a pod of yours is.
    Status {
        /// The pod's name.
        pod: String,
    },
    /// End a pod before its time; what was not used comes back, if the operator grants it.
    Stop {
        /// The pod's name.
        pod: String,
    },
    /// Show what is for sale.
    Offers,
}

/// Runs one order.
///
/// # Errors
/// When there is no service, no relay or no answer. An answer that says no is printed, with exit
/// code 1.
pub async fn order(arguments: Arguments) -> Result<ExitCode> {
    if arguments.relays.is_empty() {
        bail!(
            "no relay: name the ones that the service uses with --relay wss://… or in NOSTR_RELAYS"
        );
    }
    let relays: Result<Vec<RelayUrl>> = arguments
        .relays
        .iter()
        .map(|text| RelayUrl::parse(text).with_context(|| format!("{text} is not a relay")))
        .collect();
    let keys = keys(arguments.key_file.as_deref())?;
    let service = arguments
        .service
        .as_deref()
        .map(|text| PublicKey::parse(text).with_context(|| format!("{text} is not a public key")))
        .transpose()?;
    let request = request(&arguments.action)?;
    let progress = Progress::new();
    progress.say("connecting");
    let customer = Customer::connect(keys, relays?).await?;
    let Some(request) = request else {
        let offers = customer.offers(service).await?;
        progress.done();
        return print_offers(&offers, arguments.json);
    };
    let service = match service {
        Some(service) => service,
        None => {
            progress.say("looking for offers");
            the_only_one(&customer.offers(None).await?)?
        }
    };
    let answer = customer
        .ask(service, &request, Duration::from_secs(arguments.timeout), |what| progress.say(what))
        .await?;
    progress.done();
    print_answer(&answer, arguments.json)
}

fn the_only_one(offers: &[DiscoveredOffer]) -> Result<PublicKey> {
    match offers {
        [] => bail!("no service has an offer on these relays; name one with --service"),
        [one] => Ok(one.service),
        several => {
            let names: Vec<String> = several.iter().map(|offer| npub(&offer.service)).collect();
            bail!(
                "several services have offers; choose one with --service:\n  {}",
                names.join("\n  ")
            )
        }
    }
}

fn request(action: &Action) -> Result<Option<Value>> {
    Ok(match action {
        Action::Offers => None,
        Action::Status { pod } => Some(json!({"type": "status", "pod_name": pod})),
        Action::Stop { pod } => Some(json!({"type": "stop", "pod_name": pod})),
        Action::TopUp { pod, token } => {
            Some(json!({"type": "top_up", "pod_name": pod, "cashu_token": read_token(token)?}))
        }
        Action::Spawn { token, image, tier, minutes, username, password, public_key } => {
            let key = public_key
                .as_deref()
                .map(std::fs::read_to_string)
                .transpose()
                .context("the public key cannot be read")?;
            let fields = [
                ("type", Some(json!("spawn"))),
                ("cashu_token", Some(json!(read_token(token)?))),
                ("pod_image", image.as_ref().map(|text| json!(text))),
                ("tier", tier.as_ref().map(|text| json!(text))),
                ("duration_minutes", minutes.map(|minutes| json!(minutes))),
                ("ssh_username", username.as_ref().map(|text| json!(text))),
                ("ssh_password", password.as_ref().map(|text| json!(text))),
                ("ssh_public_key", key.map(|text| json!(text.trim()))),
            ];
            Some(
                fields
                    .into_iter()
                    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                    .collect::<serde_json::Map<_, _>>()
                    .into(),
            )
        }
    })
}

fn read_token(argument: &str) -> Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(100_000)
        .read_to_string(&mut text)
        .context("no token on standard input")?;
    Ok(text.trim().to_owned())
}

/// The customer's key: pods belong to it.
fn keys(file: Option<&Path>) -> Result<Keys> {
    let path = match file {
        Some(path) => path.to_owned(),
        None => {
            let config = std::env::var_os("XDG_CONFIG_HOME")
                .map(PathBuf::from)
                .or_else(|| std::env::home_dir().map(|home| home.join(".config")));
            config
                .context("no home directory; name a file with --key-file")?
                .join("paygress/customer.key")
        }
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            return Keys::parse(text.trim())
                .with_context(|| format!("{} holds no secret key", path.display()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", path.display()));
        }
    }
    let keys = Keys::generate();
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    writeln!(made, "{}", nsec(&keys))?;
    Ok(keys)
}

fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn print_answer(answer: &Value, json: bool) -> Result<ExitCode> {
    let failed = answer.get("error_type").is_some();
    if json {
        println!("{}", serde_json::to_string_pretty(answer)?);
    } else if failed {
        eprintln!("{}: {}", field(answer, "error_type"), field(answer, "message"));
        if let Some(details) = answer.get("details").and_then(Value::as_str) {
            eprintln!("{details}");
        }
        if let Some(token) = answer.get("refund_token").and_then(Value::as_str) {
            eprintln!("Your money back, redeem it soon:");
            println!("{token}");
        }
    } else if answer.get("extended_duration_seconds").is_some() {
        println!(
            "{}: {}; it lives until {}",
            field(answer, "pod_name"),
            field(answer, "message"),
            field(answer, "new_expires_at")
        );
    } else if answer.get("type").and_then(Value::as_str) == Some("stop_response") {
        eprintln!("{}: {}", field(answer, "pod_name"), field(answer, "message"));
        for token in answer
            .get("refund_tokens")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            println!("{token}");
        }
    } else if answer.get("status").is_some() {
        println!(
            "{}: {}, {} s left, until {}",
            field(answer, "pod_name"),
            field(answer, "status"),
            number(answer, "time_remaining_seconds"),
            field(answer, "expires_at")
        );
    } else {
        println!(
            "ssh -p {} {}@{}",
            number(answer, "ssh_port"),
            field(answer, "ssh_username"),
            field(answer, "ssh_host")
        );
        println!("password: {}", field(answer, "ssh_password"));
        println!(
            "{} ({}) lives until {}",
            field(answer, "pod_name"),
            field(answer, "pod_spec_name"),
            field(answer, "expires_at")
        );
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_offers(offers: &[DiscoveredOffer], json: bool) -> Result<ExitCode> {
    if json {
        let all: Vec<Value> = offers
            .iter()
            .map(|offer| json!({"service": npub(&offer.service), "published_at": offer.published_at, "offer": offer.content}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(ExitCode::SUCCESS);
    }
    if offers.is_empty() {
        println!("no offers on these relays");
    }
    for offer in offers {
        println!("{}", npub(&offer.service));
        let mints: Vec<&str> = offer
            .content
            .get("whitelisted_mints")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        println!("  mints: {}", mints.join(", "));
        for spec in offer.content.get("pod_specs").and_then(Value::as_array).into_iter().flatten() {
            let (msat, seconds) = (number(spec, "price_msats"), number(spec, "price_seconds"));
            println!(
                "  {:<12} {:>6} mCPU {:>6} MiB  {msat} msat for {seconds} s",
                field(spec, "id"),
                number(spec, "cpu_millicores"),
                number(spec, "memory_mb")
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is being done, on a terminal only.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }

    fn say(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what.to_owned());
        }
    }

    fn done(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
