//! `paygress demo`: everything in one process. A relay, a mint, SSH servers instead of pods; the
//! same order service, policies and messages as in production.
#![allow(clippy::print_stdout)]

use crate::app::App;
use crate::config::default_policies;
use crate::sandbox::Sandbox;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use paygress_core::ErrorType;
use paygress_core::backend::policy::Slot;
use paygress_core::backend::store::PortAllocator;
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_core::protocol::RequestBody;
use paygress_core::protocol::{AccessDetails, PodStatus, Response};
use paygress_nostr::client::Client;
use paygress_nostr::{Keys, PublicKey, npub};
use paygress_policy::{Publisher, Source, Sources, Trigger, read_component};
use paygress_sandbox::{Isolation, IsolationError, LocalCluster, Means, TestWallet};
use paygress_sshd::client::{Client as SshClient, HostKeyCheck, LoginError};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long any one step of the demo may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often the demo looks whether something has happened.
const INTERVAL: Duration = Duration::from_millis(100);
/// The price of the demo: a sat buys five seconds, so that a lease's end can be seen.
const SATS_PER_HOUR: &str = "720";
const SECONDS_PER_SAT: u64 = 5;
/// What is bought at first: 20 seconds.
const SPAWN_SAT: u64 = 4;
/// What is added: 10 seconds.
const TOP_UP_SAT: u64 = 2;

/// Arguments of `paygress demo`.
#[derive(Args)]
pub struct Arguments {
    /// End after the last step instead of staying open.
    #[arg(long)]
    once: bool,
    /// Let pods run as you, with all that you may read and do, if nothing better can be had.
    #[arg(long)]
    without_isolation: bool,
}

/// Ctrl-C and SIGTERM. They are waited for, since a demo that is killed leaves its directory with
/// a wallet behind.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs every step, all of it real but the Lightning payments and the cluster.
///
/// # Errors
/// When a step has another result than it should have.
pub async fn demo(arguments: Arguments) -> Result<()> {
    let mut signals = Signals::new()?;
    let isolation = isolation(&arguments)?;
    println!("Paygress demo: one process, no cluster, no network; everything is on 127.0.0.1.\n");
    let operator = Keys::generate().secret_key().to_secret_hex();
    let settings =
        [("PAYMENT_RATE_SATS_PER_HOUR", SATS_PER_HOUR), ("OPERATOR_TOKEN", operator.as_str())];
    let sandbox = Sandbox::new(&settings, "[policy.duration]\nminimum_seconds = 5\n").await?;
    let service = sandbox.config.keys.public_key();
    let pods = describe(isolation.means(), isolation.refused());
    let cluster = Arc::new(LocalCluster::isolated(isolation));
    let app = App::build(&sandbox.config, cluster, |backends| backends).await?;
    let (policies, ports) = (Arc::clone(&app.policies), Arc::clone(&app.ledger));
    println!("  relay    {}", sandbox.relay.url().await);
    println!("  mint     {} (fake Lightning, input fee 0.1 sat a proof)", sandbox.mint.url());
    let page = app.http_address().map(|address| format!("http://{address}")).unwrap_or_default();
    println!("  service  {}", npub(&service));
    println!("  page     {page}");
    println!("  pods     {pods}");
    let serving = tokio::spawn(app.run());
    let steps = async {
        let customer = Customer::new(&sandbox, service).await?;
        customer.run(&policies, &*ports).await?;
        Ok::<_, anyhow::Error>(customer)
    };
    let customer = tokio::select! {
        done = steps => done?,
        ended = serving => bail!("the service ended: {ended:?}"),
        () = signals.received() => bail!("the demo was stopped before its last step"),
    };
    if !arguments.once {
        customer.print_hints(&sandbox, &page, &operator).await?;
        signals.received().await;
    }
    Ok(())
}

/// Anybody who finds the demo's service can buy pods with coins that cost nothing: the pods must be
/// kept apart from the machine.
fn isolation(arguments: &Arguments) -> Result<Isolation> {
    let error = match Isolation::best() {
        Ok(isolation) => return Ok(isolation),
        Err(error) => error,
    };
    let IsolationError::NotPossible(reasons) = &error else { return Err(error.into()) };
    if arguments.without_isolation {
        eprintln!("{}\n", reasons.join("\n"));
        return Ok(Isolation::by(Means::Nothing)?);
    }
    Err(error).context(
        "install bubblewrap, allow user namespaces, start the demo as root, or let pods run as you (--without-isolation)",
    )
}

/// What keeps the pods apart, as a text for the visitor.
fn describe(means: Means, refused: &[String]) -> String {
    let warning = match means {
        Means::Bubblewrap | Means::Unshare => {
            return format!(
                "{means}: no file, process or network of this machine but a read-only /usr"
            );
        }
        Means::OwnUser => {
            "each pod is an unprivileged user of this machine: it sees processes, the network and every file that anybody may read"
        }
        Means::Nothing => "pods run AS YOU: whoever buys one can read and change all that you can",
    };
    let reasons: String = refused.iter().map(|reason| format!("\n           {reason}")).collect();
    format!("WARNING: NO NAMESPACES. {warning}.{reasons}")
}

/// A pod, and an SSH session in it that stays open.
struct Bought {
    pod: String,
    login: Login,
    session: SshClient,
    /// When it would end without a top-up.
    first_end: u64,
}

struct Login {
    address: SocketAddr,
    username: String,
    password: String,
    host_key: HostKeyCheck,
}

impl Login {
    fn new(access: &AccessDetails) -> Result<Self> {
        let password = access.ssh_password.as_ref().context("the response has no password")?;
        let keys = &access.identity.ssh_host_keys;
        ensure!(!keys.is_empty(), "the response has no host key");
        Ok(Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, access.ssh_port)),
            username: access.ssh_username.clone(),
            password: password.expose().to_owned(),
            host_key: HostKeyCheck::one_of(keys.iter().map(String::as_str))?,
        })
    }

    async fn connect(&self) -> Result<SshClient, LoginError> {
        let check = self.host_key.clone();
        SshClient::login(self.address, &self.username, &self.password, check).await
    }
}

struct Customer {
    client: Client,
    wallet: TestWallet,
    service: PublicKey,
}

impl Customer {
    async fn new(sandbox: &Sandbox, service: PublicKey) -> Result<Self> {
        let client = Client::connect(Keys::generate(), sandbox.config.relays.clone()).await?;
        let wallet = TestWallet::new(sandbox.mint.url()).await?;
        wallet.fill(1_000).await?;
        Ok(Self { client, wallet, service })
    }

    async fn run(&self, policies: &Publisher, ports: &dyn PortAllocator) -> Result<()> {
        let price = self.price(None).await?;
        println!(
            "\n1. The customer finds the offer: {price}. (The default is a sat a minute; the demo is in a hurry.)"
        );
        let bought = self.buy().await?;
        self.top_up(&bought).await?;
        self.swap_pricing(policies, &price).await?;
        self.wait_for_end(bought, ports).await?;
        let balance = self.wallet.balance().await?;
        println!(
            "\nDone. The customer's wallet holds {balance} of 1000 sat; 6 were sold, the rest were the mint's fees."
        );
        Ok(())
    }

    async fn buy(&self) -> Result<Bought> {
        println!("\n2. One encrypted message with a Cashu token buys a pod.");
        let begun = Instant::now();
        let response = self
            .request(RequestBody {
                cashu_token: Some(self.token(SPAWN_SAT).await?),
                ssh_username: Some("alice".to_owned()),
                ..RequestBody::default()
            })
            .await?;
        let Response::Access(access) = response else { bail!("no pod: {response:?}") };
        let login = Login::new(&access)?;
        let paid = Seconds(SECONDS_PER_SAT.saturating_mul(SPAWN_SAT));
        let first_end = UnixTime::now().after(paid).0;
        println!(
            "   {} is ready after {:.1} s, until {}",
            access.pod_name,
            begun.elapsed().as_secs_f64(),
            access.expires_at
        );
        let session = login.connect().await?;
        let done = session.run("echo hello from $USER; exit 7").await?;
        ensure!(
            done.stdout == "hello from alice\n" && done.exit_status == 7,
            "unexpected: {done:?}"
        );
        println!(
            "   ssh -p {} alice@127.0.0.1 'echo hello from $USER'  →  {}",
            login.address.port(),
            done.stdout.trim()
        );
        Ok(Bought { pod: access.pod_name, login, session, first_end })
    }

    async fn top_up(&self, bought: &Bought) -> Result<()> {
        println!("\n3. A second token to the same pod extends it. The SSH session stays open.");
        let response = self
            .request(RequestBody {
                pod_name: Some(bought.pod.clone()),
                cashu_token: Some(self.token(TOP_UP_SAT).await?),
                ..RequestBody::default()
            })
            .await?;
        let Response::ToppedUp(extended) = response else { bail!("not extended: {response:?}") };
        println!("   {}, until {}", extended.message, extended.new_expires_at);
        let done = bought.session.run("echo still here").await?;
        ensure!(done.stdout == "still here\n", "unexpected: {done:?}");
        println!("   the session that was open prints: {}", done.stdout.trim());
        Ok(())
    }

    async fn swap_pricing(&self, policies: &Publisher, price: &str) -> Result<()> {
        println!("\n4. The operator swaps the pricing policy while everything runs.");
        let flat = default_policies().join("../plugins-examples/flat-price.wasm");
        let flat = Source::plain(read_component(&flat)?);
        let revision =
            policies.publish(&Sources::from([(Slot::Pricing, flat)]), Trigger::Operator)?;
        let digest = revision.set.get(&Slot::Pricing).map(|component| component.digest.clone());
        let digest = digest.context("the revision has no pricing policy")?;
        let new_price = self.price(Some(price)).await?;
        println!("   pricing is now {digest:.12}…, and the offer is {new_price}");
        let token = self.token(1).await?;
        let response = self
            .request(RequestBody {
                cashu_token: Some(token.clone()),
                tier: Some("premium".to_owned()),
                ..RequestBody::default()
            })
            .await?;
        let error = response.error().filter(|error| error.error_type == ErrorType::InvalidSpec);
        let Some(error) = error else { bail!("the old policy still decides: {response:?}") };
        println!("   an order of the old tier \"premium\" is refused: {}", error.message);
        let back = self.wallet.receive(&token).await?;
        println!(
            "   its token was not touched: the customer's wallet takes it back, {back} sat after the mint's fee"
        );
        Ok(())
    }

    async fn wait_for_end(&self, bought: Bought, ports: &dyn PortAllocator) -> Result<()> {
        println!("\n5. The time is over.");
        let Bought { pod, login, session, first_end } = bought;
        tokio::time::timeout(TIMEOUT, session.closed()).await.context("the session did not end")?;
        ensure!(UnixTime::now().0 > first_end, "it ended before the first deadline");
        let begun = Instant::now();
        loop {
            match login.connect().await {
                Err(LoginError::Unreachable(_)) => break,
                _ if begun.elapsed() > TIMEOUT => bail!("the pod still accepts logins"),
                _ => tokio::time::sleep(INTERVAL).await,
            }
        }
        println!(
            "   the session lived past its first deadline and was ended at the second; a new login is refused"
        );
        while ports.ports_in_use().await? != 0 {
            ensure!(begun.elapsed() < TIMEOUT, "the port was not freed");
            tokio::time::sleep(INTERVAL).await;
        }
        let response = self
            .request(RequestBody {
                kind: Some("status".to_owned()),
                pod_name: Some(pod.clone()),
                ..RequestBody::default()
            })
            .await?;
        let Response::Status(status) = response else { bail!("no status: {response:?}") };
        ensure!(status.status == PodStatus::Ended, "the status is {status:?}");
        println!("   status of {pod}: ended, its port is free");
        Ok(())
    }

    async fn request(&self, request: RequestBody) -> Result<Response> {
        let answer = self.client.ask(self.service, &request, TIMEOUT, |_| ()).await?;
        answer.response.context("the service's answer cannot be read")
    }

    async fn token(&self, sat: u64) -> Result<String> {
        // One sat more: the mint keeps its fee when the token is swapped, and the price is compared
        // with the rest.
        Ok(self.wallet.token(sat.saturating_add(1)).await?)
    }

    /// The default tier's price, once the offer has another one than `before`.
    async fn price(&self, before: Option<&str>) -> Result<String> {
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT {
            let offers = self.client.offers(Some(self.service)).await?;
            if let Some(tier) = offers.first().and_then(|offer| offer.content.pod_specs.first()) {
                let price = format!("{} msat for {} s", tier.price_msats, tier.price_seconds);
                if before != Some(price.as_str()) {
                    return Ok(price);
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
        bail!("no new offer was published")
    }

    /// What the visitor can try while everything stays open.
    async fn print_hints(&self, sandbox: &Sandbox, page: &str, operator: &str) -> Result<()> {
        let program = std::env::current_exe()?;
        let program = program.display();
        println!("\nEverything stays open; end it with Ctrl-C. Try, in another terminal:\n");
        println!("  export NOSTR_RELAYS={}", sandbox.relay.url().await);
        println!("  {program} order offers");
        println!("  {program} order spawn --token {}", self.token(10).await?);
        println!("  {program} order top-up POD --token {}", self.token(10).await?);
        println!("  curl {page}/spawn-pod -d '{{\"cashu_token\": \"{}\"}}'", self.token(10).await?);
        println!(
            "  (these three tokens are of the demo's own mint: 10 sat buy five minutes now)\n"
        );
        println!(
            "Or in a browser: {page} with this token for a pod, and {page}/operator with that for the operator's view:\n"
        );
        println!("  {}\n  {operator}\n", self.token(20).await?);
        println!("Or as the operator, with a policy of yours beside the active one:\n");
        println!("  export ADMIN_SOCKET={}", sandbox.config.admin_socket.display());
        println!("  {program} policy history");
        println!("  {program} policy shadow start pricing policy.wasm");
        println!("  {program} policy shadow report");
        println!("  {program} policy promote\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_without_namespaces_are_announced_with_the_reasons() {
        let refused = ["bubblewrap is missing".to_owned()];
        for (means, warns, part) in [
            (Means::Bubblewrap, false, "namespaces by bubblewrap"),
            (Means::Unshare, false, "namespaces by unshare"),
            (Means::OwnUser, true, "an unprivileged user of this machine"),
            (Means::Nothing, true, "AS YOU"),
        ] {
            let text = describe(means, &refused);
            assert!(text.contains(part), "{text}");
            assert_eq!(text.starts_with("WARNING: NO NAMESPACES."), warns, "{text}");
            assert_eq!(text.contains(&refused[0]), warns, "{text}");
        }
    }
}
