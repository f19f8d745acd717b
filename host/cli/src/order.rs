//! `paygress order`: a customer's client.

use crate::output::{print_line, print_note};
use crate::ssh_command::{KnownHosts, PodLogin};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use paygress_core::model::secret::Secret;
use paygress_core::protocol::{
    AccessDetails, ErrorResponse, OfferContent, PodStatus, RequestBody, Response, StatusResponse,
    sorted, token_text,
};
use paygress_core::sanitize::plain;
use paygress_nostr::client::{Answer, Client, DiscoveredOffer};
use paygress_nostr::{Keys, PublicKey, RelayUrl, npub, nsec};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::unix::fs::DirBuilderExt;
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
    /// The service, npub or hex. Left out: the only one that has an offer on these relays.
    #[arg(long, env = "PAYGRESS_SERVICE", global = true)]
    service: Option<String>,
    /// File of your key; created if it does not exist. Pods belong to this key.
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
        /// The SSH password. Left out: the service generates one, unless there is a public key.
        #[arg(long, env = "PAYGRESS_PASSWORD", hide_env_values = true)]
        password: Option<String>,
        /// A public key file to log in with; no password then, unless you name one.
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
    /// Show the status of a pod of yours.
    Status {
        /// The pod's name.
        pod: String,
    },
    /// Stop a pod before its end; unused time is refunded if the operator grants it.
    Stop {
        /// The pod's name.
        pod: String,
    },
    /// Show the offers.
    Offers,
}

/// Runs one order.
///
/// # Errors
/// When there is no service, no relay or no answer. An error, or an answer that cannot be read, is
/// printed, with exit code 1.
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
    let key_file = key_file(arguments.key_file)?;
    let keys = keys(&key_file)?;
    let service = arguments
        .service
        .as_deref()
        .map(|text| PublicKey::parse(text).with_context(|| format!("{text} is not a public key")))
        .transpose()?;
    let request = request(&arguments.action)?;
    let progress = Progress::new();
    progress.show("connecting");
    let client = Client::connect(keys, relays?).await?;
    let Some(request) = request else {
        let offers = client.offers(service).await?;
        progress.done();
        return print_offers(&offers, arguments.json);
    };
    let service = match service {
        Some(service) => service,
        None => {
            progress.show("looking for offers");
            only_service(&client.offers(None).await?)?
        }
    };
    let answer = client
        .ask(service, &request, Duration::from_secs(arguments.timeout), |step| progress.show(step))
        .await?;
    progress.done();
    Ok(print_answer(&answer, arguments.json, &KnownHosts::beside(&key_file)))
}

fn only_service(offers: &[DiscoveredOffer]) -> Result<PublicKey> {
    match offers {
        [] => bail!("no service has an offer on these relays; name one with --service"),
        [offer] => Ok(offer.service),
        several => {
            let names: Vec<String> = several.iter().map(|offer| npub(&offer.service)).collect();
            bail!(
                "several services have offers; choose one with --service:\n  {}",
                names.join("\n  ")
            )
        }
    }
}

/// `None`: the offers need no request.
fn request(action: &Action) -> Result<Option<RequestBody>> {
    let of_pod = |kind: &str, pod: &str| RequestBody {
        kind: Some(kind.to_owned()),
        pod_name: Some(pod.to_owned()),
        ..RequestBody::default()
    };
    Ok(match action {
        Action::Offers => None,
        Action::Status { pod } => Some(of_pod("status", pod)),
        Action::Stop { pod } => Some(of_pod("stop", pod)),
        Action::TopUp { pod, token } => {
            Some(RequestBody { cashu_token: Some(read_token(token)?), ..of_pod("top_up", pod) })
        }
        Action::Spawn { token, image, tier, minutes, username, password, public_key } => {
            let key = public_key
                .as_deref()
                .map(std::fs::read_to_string)
                .transpose()
                .context("the public key cannot be read")?;
            Some(RequestBody {
                kind: Some("spawn".to_owned()),
                cashu_token: Some(read_token(token)?),
                pod_image: image.clone(),
                tier: tier.clone(),
                duration_minutes: *minutes,
                ssh_username: username.clone(),
                ssh_password: password.clone(),
                ssh_public_key: key.map(|text| text.trim().to_owned()),
                ..RequestBody::default()
            })
        }
    })
}

fn read_token(argument: &str) -> Result<String> {
    if argument != "-" {
        return Ok(token_text(argument).expose().to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(100_000)
        .read_to_string(&mut text)
        .context("no token on standard input")?;
    Ok(token_text(&text).expose().to_owned())
}

fn key_file(named: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path);
    }
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    let config = config.context("no home directory; name a file with --key-file")?;
    Ok(config.join("paygress/customer.key"))
}

/// The customer's key: pods belong to it.
fn keys(path: &Path) -> Result<Keys> {
    if path.exists() {
        return read_keys(path);
    }
    let keys = Keys::generate();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Whole, or not there: another command may make one at the same time.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    writeln!(file, "{}", nsec(&keys))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(keys),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => read_keys(path),
        Err(error) => Err(error.error).with_context(|| path.display().to_string()),
    }
}

fn read_keys(path: &Path) -> Result<Keys> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    Keys::parse(text.trim()).with_context(|| format!("{} holds no secret key", path.display()))
}

fn print_answer(answer: &Answer, json: bool, known_hosts: &KnownHosts) -> ExitCode {
    match &answer.response {
        _ if json => print_line(answer.text.expose()),
        Some(response) => print_response(response, known_hosts),
        None => {
            print_note("This answer cannot be read; a newer paygress may read it. It is:");
            print_line(answer.text.expose());
        }
    }
    match &answer.response {
        Some(response) if response.error().is_none() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn print_response(response: &Response, known_hosts: &KnownHosts) {
    match response {
        Response::Error(error) => print_error(error),
        Response::ToppedUp(top_up) => print_line(format_args!(
            "{}: {}; it lives until {}",
            top_up.pod_name, top_up.message, top_up.new_expires_at
        )),
        Response::Stopped(stopped) => {
            known_hosts.forget(&stopped.pod_name);
            print_note(format_args!("{}: {}", stopped.pod_name, stopped.message));
            print_refunds(&stopped.refunds.refund_tokens);
        }
        Response::Status(status) => print_status(status, known_hosts),
        Response::Access(access) => print_access(access, known_hosts),
    }
}

fn print_access(access: &AccessDetails, known_hosts: &KnownHosts) {
    let login = PodLogin {
        pod: &access.pod_name,
        username: &access.ssh_username,
        host: &access.ssh_host,
        port: access.ssh_port,
        host_keys: &access.identity.ssh_host_keys,
    };
    print_ssh_command(&login, known_hosts);
    if let Some(password) = &access.ssh_password {
        print_line(format_args!("password: {}", password.expose()));
    }
    for key in login.host_keys() {
        print_line(format_args!("host key: {} ({})", key.fingerprint(), key.kind()));
    }
    if let Some(root) = access.identity.root {
        print_line(format_args!("root: {}", yes_or_no(root)));
    }
    print_line(format_args!(
        "{} ({}) lives until {}",
        access.pod_name, access.pod_spec_name, access.expires_at
    ));
}

fn yes_or_no(answer: bool) -> &'static str {
    if answer { "yes" } else { "no" }
}

fn print_ssh_command(login: &PodLogin<'_>, known_hosts: &KnownHosts) {
    match known_hosts.ssh_command(login) {
        Ok(command) => print_line(command),
        Err(error) => print_note(format_args!("{error:#}")),
    }
}

fn print_error(error: &ErrorResponse) {
    print_note(format_args!("{}: {}", error.error_type.as_str(), error.message));
    if let Some(details) = &error.details {
        print_note(details);
    }
    print_refunds(error.refund.as_ref().and_then(|refund| refund.refund_token.as_ref()));
}

fn print_status(status: &StatusResponse, known_hosts: &KnownHosts) {
    print_line(format_args!(
        "{}: {}, {} s left, until {}",
        status.pod_name,
        status_name(status.status),
        status.time_remaining_seconds,
        status.expires_at.as_deref().unwrap_or_default()
    ));
    let login = PodLogin {
        pod: &status.pod_name,
        username: &status.ssh_username,
        host: &status.ssh_host,
        port: status.ssh_port,
        host_keys: &status.identity.ssh_host_keys,
    };
    match status.status {
        PodStatus::Provisioning => {}
        PodStatus::Running => print_ssh_command(&login, known_hosts),
        PodStatus::Ended => known_hosts.forget(&status.pod_name),
    }
    print_refunds(status.refund_tokens.iter().flatten());
}

/// Only the tokens are on standard output.
fn print_refunds<'a>(tokens: impl IntoIterator<Item = &'a Secret>) {
    let mut tokens = tokens.into_iter().peekable();
    if tokens.peek().is_some() {
        print_note("Your refund, receive it soon:");
    }
    for token in tokens {
        print_line(token.expose());
    }
}

fn status_name(status: PodStatus) -> &'static str {
    match status {
        PodStatus::Provisioning => "provisioning",
        PodStatus::Running => "running",
        PodStatus::Ended => "ended",
    }
}

/// An offer as `--json` prints it.
#[derive(Serialize)]
struct PrintedOffer<'a> {
    service: String,
    published_at: u64,
    offer: &'a OfferContent,
}

fn print_offers(offers: &[DiscoveredOffer], json: bool) -> Result<ExitCode> {
    if json {
        let printed = |offer: &DiscoveredOffer| {
            sorted(&PrintedOffer {
                service: npub(&offer.service),
                published_at: offer.published_at,
                offer: &offer.content,
            })
        };
        let all: Vec<_> = offers.iter().map(printed).collect();
        print_line(serde_json::to_string_pretty(&all)?);
        return Ok(ExitCode::SUCCESS);
    }
    if offers.is_empty() {
        print_line("no offers on these relays");
    }
    for offer in offers {
        print_line(npub(&offer.service));
        let mints = offer.content.whitelisted_mints.join(", ");
        print_line(format_args!("  mints: {}", plain(&mints, usize::MAX)));
        if let Some(root) = offer.content.root {
            print_line(format_args!("  root: {}", yes_or_no(root)));
        }
        for spec in &offer.content.pod_specs {
            print_line(format_args!(
                "  {:<12} {:>6} mCPU {:>6} MiB  {} msat for {} s",
                plain(&spec.id, usize::MAX),
                spec.cpu_millicores,
                spec.memory_mb,
                spec.price_msats,
                spec.price_seconds
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The current step, on a terminal only.
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

    fn show(&self, step: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(step.to_owned());
        }
    }

    fn done(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
