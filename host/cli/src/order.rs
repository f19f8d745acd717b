//! `paygress order`: a customer's client.

mod keep;
mod pod_message;
mod print;
mod receipts;
mod record;
mod request;
mod ssh;

use crate::output::print_line;
use crate::private_file::{directory_of, make_private};
use crate::ssh_command::KnownHosts;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use keep::{KeepArguments, RemoteService};
use paygress_cashu::token_amount;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::protocol::{OfferContent, OfferedWay, RequestBody, sorted, token_text};
use paygress_core::sanitize::plain;
use paygress_nostr::client::{Client, DiscoveredOffer};
use paygress_nostr::{Keys, PublicKey, RelayUrl, npub, nsec};
use print::{Format, print_answer, print_refusal, yes_or_no};
use receipts::Receipts;
use record::Record;
use request::of_pod;
use serde::Serialize;
use ssh::SshArguments;
use std::io::{ErrorKind, IsTerminal, Read, Write};
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
        /// What runs in the pod: the SSH server alone, or beside it what the image starts by itself.
        #[arg(long, value_parser = ["ssh", "image"])]
        run: Option<String>,
        /// The pod's port that browsers reach, if the service offers that: you alone, with the link
        /// that `status` prints.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        http_port: Option<u16>,
        /// Anybody reaches that port.
        #[arg(long, requires = "http_port")]
        http_public: bool,
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
        /// Have the service send messages before the pod's end, and at it.
        #[arg(long)]
        notices: bool,
    },
    /// Buy more time for a pod.
    TopUp {
        /// The pod's name.
        pod: String,
        /// The Cashu token, as for `spawn`.
        #[arg(long, env = "PAYGRESS_TOKEN", hide_env_values = true)]
        token: String,
        /// As for `spawn`.
        #[arg(long)]
        notices: bool,
    },
    /// Extend a pod in small steps, each in the last third of its time, until a budget is spent.
    /// Exits with 0 then, with 3 when there are no tokens left, with 4 when the pod has ended.
    Keep(KeepArguments),
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
    /// Log in to a pod of yours, by the gateway where there is one, or at its port.
    Ssh(SshArguments),
    /// Copy standard input and output to and from a pod's SSH port, by an endpoint of iroh.
    #[command(hide = true)]
    Proxy {
        /// The pod's name.
        pod: String,
        /// The gateway's ticket.
        ticket: String,
    },
    /// Show the offers.
    Offers,
}

impl Arguments {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }
}

/// Runs one order.
///
/// # Errors
/// When there is no service, no relay or no answer. An error, an answer that cannot be read, or why a
/// token is not sent, is printed, with exit code 1.
pub async fn order(arguments: Arguments) -> Result<ExitCode> {
    if let Action::Proxy { pod, ticket } = &arguments.action {
        return ssh::proxy(pod, ticket).await;
    }
    let relays = relays(&arguments.relays)?;
    let key_file = key_file(arguments.key_file.as_deref())?;
    let keys = keys(&key_file)?;
    let service = arguments.service.as_deref().map(parse_service).transpose()?;
    let prepared = match prepare(&arguments.action, &key_file) {
        Ok(prepared) => prepared,
        Err(error) => {
            return error.downcast::<Refusal>().map(|it| print_refusal(&it, arguments.format()));
        }
    };
    let progress = Progress::new();
    progress.show("connecting");
    let client = Client::connect(keys, relays).await?;
    let timeout = Duration::from_secs(arguments.timeout);
    let known_hosts = KnownHosts::beside(&key_file);
    match prepared {
        Prepared::Offers => {
            let offers = client.offers(service).await?;
            progress.done();
            print_offers(&offers, arguments.format())
        }
        Prepared::Keep(keep, mut record) => {
            let service = choose(&client, service, &progress).await?;
            progress.done();
            let receipts = Receipts::beside(&key_file, service, &client.keys().public_key());
            let service = RemoteService { client: &client, service, timeout, receipts };
            keep.run(&service, &mut record, &known_hosts, arguments.format()).await
        }
        Prepared::Ssh(ssh) => {
            let service = choose(&client, service, &progress).await?;
            let show = |step: &str| progress.show(step);
            let answer = client.ask(service, &of_pod("status", &ssh.pod), timeout, show).await?;
            progress.done();
            ssh.run(&answer, &known_hosts).await
        }
        Prepared::Request(request) => {
            let service = choose(&client, service, &progress).await?;
            let show = |step: &str| progress.show(step);
            let answer = client.ask(service, &request, timeout, show).await?;
            progress.done();
            let code = print_answer(&answer, arguments.format(), &known_hosts);
            Receipts::beside(&key_file, service, &client.keys().public_key()).store(&answer);
            Ok(code)
        }
    }
}

fn relays(named: &[String]) -> Result<Vec<RelayUrl>> {
    if named.is_empty() {
        bail!(
            "no relay: name the ones that the service uses with --relay wss://… or in NOSTR_RELAYS"
        );
    }
    let relay = |text: &String| {
        let reason = || format!("{text} is not a relay; write wss://host[:port]");
        RelayUrl::parse(text).with_context(reason)
    };
    named.iter().map(relay).collect()
}

/// The service's public key, as people write it.
pub(crate) fn parse_service(text: &str) -> Result<PublicKey> {
    let reason = || format!("{text} is not a public key; write npub1… or 64 hex digits");
    PublicKey::parse(text).with_context(reason)
}

/// That of an SSH login.
fn read_public_key(file: &Path) -> Result<String> {
    let failed = || format!("the public key {} cannot be read", file.display());
    std::fs::read_to_string(file).with_context(failed)
}

/// The service that was named, or else the only one.
async fn choose(
    client: &Client,
    named: Option<PublicKey>,
    progress: &Progress,
) -> Result<PublicKey> {
    match named {
        Some(service) => Ok(service),
        None => {
            progress.show("looking for offers");
            only_service(&client.offers(None).await?)
        }
    }
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

/// What an action reads before it connects to relays, so that a wrong file or token fails at once.
enum Prepared<'a> {
    Offers,
    Keep(&'a KeepArguments, Record),
    Ssh(&'a SshArguments),
    Request(Box<RequestBody>),
}

fn prepare<'a>(action: &'a Action, key_file: &Path) -> Result<Prepared<'a>> {
    let request = match action {
        Action::Offers => return Ok(Prepared::Offers),
        Action::Keep(keep) => return Ok(Prepared::Keep(keep, keep.open(key_file)?)),
        Action::Ssh(ssh) => return Ok(Prepared::Ssh(ssh)),
        Action::Proxy { .. } => bail!("a proxy orders nothing"),
        Action::Status { pod } => of_pod("status", pod),
        Action::Stop { pod } => of_pod("stop", pod),
        Action::TopUp { pod, token, notices } => RequestBody {
            cashu_token: Some(read_token(token)?),
            notices: notices.then_some(true),
            ..of_pod("top_up", pod)
        },
        Action::Spawn {
            token,
            image,
            run,
            http_port,
            http_public,
            tier,
            minutes,
            username,
            password,
            public_key,
            notices,
        } => {
            let key = public_key.as_deref().map(read_public_key).transpose()?;
            RequestBody {
                kind: Some("spawn".to_owned()),
                cashu_token: Some(read_token(token)?),
                pod_image: image.clone(),
                run: run.clone(),
                http_port: http_port.map(u64::from),
                http_public: http_public.then_some(true),
                tier: tier.clone(),
                duration_minutes: *minutes,
                ssh_username: username.clone(),
                ssh_password: password.clone(),
                ssh_public_key: key.map(|text| text.trim().to_owned()),
                notices: notices.then_some(true),
                ..RequestBody::default()
            }
        }
    };
    Ok(Prepared::Request(Box::new(request)))
}

/// A token that can be read. Whether it is worth what it says is for the service to find out.
fn read_token(argument: &str) -> Result<String> {
    let mut text = argument.to_owned();
    if argument == "-" {
        text.clear();
        let input = std::io::stdin().take(100_000).read_to_string(&mut text);
        input.context("no token on standard input")?;
        if text.trim().is_empty() {
            let why = "there is no token on standard input";
            return Err(Refusal::new(ErrorType::InvalidToken, why).into());
        }
    }
    let token = token_text(&text).expose().to_owned();
    match token_amount(&token) {
        // Of other units a later service may know more.
        Err(refusal) if refusal.code == ErrorType::InvalidToken => Err(refusal.into()),
        Ok(_) | Err(_) => Ok(token),
    }
}

fn key_file(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    // One that is empty or relative would put the key into the working directory.
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| {
            let home = std::env::home_dir().filter(|home| home.is_absolute());
            Some(home?.join(".config"))
        });
    let config = config.context("no home directory; name a file with --key-file")?;
    Ok(config.join("paygress/customer.key"))
}

/// The customer's key: pods belong to it.
fn keys(path: &Path) -> Result<Keys> {
    if path.exists() {
        return read_keys(path);
    }
    let keys = Keys::generate();
    let directory = directory_of(path);
    make_private(directory)?;
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
    Keys::parse(text.trim()).with_context(|| {
        format!("{} holds no secret key (nsec1…, or 64 hex digits)", path.display())
    })
}

/// An offer as `--json` prints it.
#[derive(Serialize)]
struct PrintedOffer<'a> {
    service: String,
    published_at: u64,
    offer: &'a OfferContent,
}

fn print_offers(offers: &[DiscoveredOffer], format: Format) -> Result<ExitCode> {
    if format == Format::Json {
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
        if offer.content.run_image == Some(true) {
            print_line("  the image's own program: --run image");
        }
        if offer.content.http_ports == Some(true) {
            print_line("  HTTP ports of pods: --http-port PORT");
        }
        print_ways(&offer.content.access);
        let images = &offer.content.images;
        if !images.is_empty() {
            let names: Vec<&str> = images.iter().map(|image| image.reference.as_str()).collect();
            print_line(format_args!("  images: {}", plain(&names.join(", "), usize::MAX)));
        }
        for spec in &offer.content.pod_specs {
            print_line(format_args!(
                "  {:<12} {:>6} mCPU {:>6} MiB  {} msat for {} s  {}",
                plain(&spec.id, usize::MAX),
                spec.cpu_millicores,
                spec.memory_mb,
                spec.price_msats,
                spec.price_seconds,
                plain(&spec.description, usize::MAX)
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_ways(ways: &[OfferedWay]) {
    for way in ways {
        match way {
            OfferedWay::HostPort => {}
            OfferedWay::JumpHost { host, port, host_key } => print_line(format_args!(
                "  jump host: {}:{port} {}",
                plain(host, usize::MAX),
                plain(host_key, usize::MAX)
            )),
            OfferedWay::Iroh { endpoint_id } => {
                print_line(format_args!("  iroh: {}", plain(endpoint_id, usize::MAX)));
            }
        }
    }
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
