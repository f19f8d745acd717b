//! `paygress demo`: everything in one process. A relay, a mint, SSH servers instead of pods; the
//! same desk, the same policies, the same messages.
#![allow(clippy::print_stdout)]

use crate::app::default_policies;
use crate::sandbox::Sandbox;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use paygress_cashu::test_mint::TestWallet;
use paygress_core::backend::policy::Slot;
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_nostr::customer::Customer;
use paygress_nostr::{Keys, PublicKey, npub};
use paygress_policy::{Publisher, Source, Sources, Trigger};
use paygress_sshd::client::{Client, LoginError};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long any one step of the demo may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The price of the demo: a sat buys five seconds, so that a lease's end can be seen.
const SATS_PER_HOUR: &str = "720";
/// What is bought at first: 20 seconds.
const SPAWN_SAT: u64 = 4;
/// What is added: 10 seconds.
const TOP_UP_SAT: u64 = 2;

/// Arguments of `paygress demo`.
#[derive(Args)]
pub struct Arguments {
    /// End after the story instead of staying open.
    #[arg(long)]
    once: bool,
}

fn words(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

fn tell(line: &str) {
    println!("{line}");
}

fn text<'a>(answer: &'a Value, field: &str) -> Result<&'a str> {
    answer.get(field).and_then(Value::as_str).with_context(|| format!("the answer has no {field}"))
}

/// What a customer needs to get in.
struct OpenMode {
    pod: String,
    address: SocketAddr,
    username: String,
    password: String,
}

impl OpenMode {
    fn of(answer: &Value) -> Result<Self> {
        if let Some(code) = answer.get("error_type") {
            bail!("the service refused: {code}: {}", text(answer, "message")?);
        }
        let port = answer
            .get("ssh_port")
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
            .context("no ssh_port")?;
        Ok(Self {
            pod: text(answer, "pod_name")?.to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            username: text(answer, "ssh_username")?.to_owned(),
            password: text(answer, "ssh_password")?.to_owned(),
        })
    }

    async fn login(&self) -> Result<Client, LoginError> {
        Client::login(self.address, &self.username, &self.password).await
    }
}

/// Tells the story, with everything in it real but the Lightning payments and the pods' walls.
///
/// # Errors
/// When a step does not do what the story says.
pub async fn demo(arguments: Arguments) -> Result<()> {
    tell("Paygress demo: one process, no cluster, no network; everything is on 127.0.0.1.\n");
    let operator = Keys::generate().secret_key().to_secret_hex();
    let settings =
        [("PAYMENT_RATE_SATS_PER_HOUR", SATS_PER_HOUR), ("OPERATOR_TOKEN", operator.as_str())];
    let sandbox = Sandbox::new(&settings, "[policy.duration]\nminimum_seconds = 5\n").await?;
    let service = sandbox.config.keys.public_key();
    let app = sandbox.app().await?;
    let (policies, ledger) = (Arc::clone(&app.policies), Arc::clone(&app.ledger));
    tell(&format!("  relay    {}", sandbox.relay.url().await));
    tell(&format!("  mint     {} (fake Lightning, input fee 0.1 sat a proof)", sandbox.mint.url()));
    let page = app.http_address().map(|address| format!("http://{address}")).unwrap_or_default();
    tell(&format!("  service  {}", npub(&service)));
    tell(&format!("  page     {page}"));
    let serving = tokio::spawn(app.run());
    let story = async {
        let story = Scenario::begin(&sandbox, service).await?;
        story.tell(&policies, &*ledger).await?;
        Ok::<_, anyhow::Error>(story)
    };
    let story = tokio::select! {
        told = story => told?,
        ended = serving => bail!("the service ended: {ended:?}"),
    };
    if !arguments.once {
        story.stay(&sandbox, &page, &operator).await?;
    }
    Ok(())
}

struct Scenario {
    customer: Customer,
    wallet: TestWallet,
    service: PublicKey,
}

impl Scenario {
    async fn begin(sandbox: &Sandbox, service: PublicKey) -> Result<Self> {
        let customer = Customer::connect(Keys::generate(), sandbox.config.relays.clone()).await?;
        let wallet = TestWallet::new(sandbox.mint.url()).await.map_err(words)?;
        wallet.fill(1_000).await.map_err(words)?;
        Ok(Self { customer, wallet, service })
    }

    async fn ask(&self, request: &Value) -> Result<Value> {
        Ok(self.customer.ask(self.service, request, TIMEOUT, |_| ()).await?)
    }

    async fn token(&self, sat: u64) -> Result<String> {
        // One sat more: the mint keeps its fee when the token is swapped, and what is left is what
        // counts.
        self.wallet.token(sat.saturating_add(1)).await.map_err(words)
    }

    /// The default tier's price, once the offer says something else than `before`.
    async fn price(&self, before: Option<&str>) -> Result<String> {
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT {
            let offers = self.customer.offers(Some(self.service)).await?;
            let first = offers.first().and_then(|offer| offer.content.pointer("/pod_specs/0"));
            if let Some(spec) = first {
                let number =
                    |field: &str| spec.get(field).and_then(Value::as_u64).unwrap_or_default();
                let price =
                    format!("{} msat for {} s", number("price_msats"), number("price_seconds"));
                if before != Some(price.as_str()) {
                    return Ok(price);
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("no new offer was published")
    }

    async fn tell(&self, policies: &Publisher, ledger: &dyn paygress_core::Ledger) -> Result<()> {
        let price = self.price(None).await?;
        tell(&format!(
            "\n1. The customer finds the offer: {price}. (The default is a sat a minute; the demo is in a hurry.)"
        ));

        tell("\n2. One encrypted message with a Cashu token buys a pod.");
        let begun = Instant::now();
        let answer = self
            .ask(&json!({"cashu_token": self.token(SPAWN_SAT).await?, "ssh_username": "alice"}))
            .await?;
        let access = OpenMode::of(&answer)?;
        let first_end = UnixTime::now().after(Seconds(5 * SPAWN_SAT)).0;
        tell(&format!(
            "   {} is ready after {:.1} s, until {}",
            access.pod,
            begun.elapsed().as_secs_f64(),
            text(&answer, "expires_at")?
        ));
        let session = access.login().await?;
        let (said, status) = session.run("echo hello from $USER; exit 7").await?;
        ensure!(said == "hello from alice\n" && status == 7, "the pod said {said:?} ({status})");
        tell(&format!(
            "   ssh -p {} alice@127.0.0.1 'echo hello from $USER'  →  {}",
            access.address.port(),
            said.trim()
        ));

        tell("\n3. A second token to the same pod extends it. The SSH session stays open.");
        let answer = self
            .ask(&json!({"pod_name": access.pod, "cashu_token": self.token(TOP_UP_SAT).await?}))
            .await?;
        ensure!(answer.get("success") == Some(&Value::Bool(true)), "not extended: {answer}");
        tell(&format!(
            "   {}, until {}",
            text(&answer, "message")?,
            text(&answer, "new_expires_at")?
        ));
        let (said, _) = session.run("echo still here").await?;
        ensure!(said == "still here\n", "the session said {said:?}");
        tell(&format!("   the session that was open says: {}", said.trim()));

        tell("\n4. The operator swaps the pricing policy while everything runs.");
        let flat = default_policies().join("../plugins-examples/flat-price.wasm");
        let flat = Source::plain(paygress_policy::read(&flat).map_err(words)?);
        let publication =
            policies.publish(&Sources::from([(Slot::Pricing, flat)]), Trigger::Operator)?;
        let digest = publication
            .set
            .get(&Slot::Pricing)
            .map(|filling| filling.digest.clone())
            .unwrap_or_default();
        let new_price = self.price(Some(&price)).await?;
        tell(&format!("   pricing is now {digest:.12}…, and the offer says {new_price}"));
        let token = self.token(1).await?;
        let answer = self.ask(&json!({"cashu_token": token, "tier": "premium"})).await?;
        ensure!(
            text(&answer, "error_type")? == "invalid_spec",
            "the old policy still decides: {answer}"
        );
        tell(&format!(
            "   an order of the old tier \"premium\" is refused: {}",
            text(&answer, "message")?
        ));
        let back = self.wallet.redeem(&token).await.map_err(words)?;
        tell(&format!(
            "   its token was not touched: the customer's wallet takes it back, {back} sat after the mint's fee"
        ));

        tell("\n5. The time is over.");
        tokio::time::timeout(TIMEOUT, session.ended()).await.context("the session did not end")?;
        ensure!(UnixTime::now().0 > first_end, "it ended before the first deadline");
        let begun = Instant::now();
        loop {
            match access.login().await {
                Err(LoginError::Unreachable(_)) => break,
                _ if begun.elapsed() > TIMEOUT => bail!("the pod still takes logins"),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        tell(
            "   the session lived past its first deadline and was ended at the second; a new login is refused",
        );
        while ledger.ports_in_use().await? != 0 {
            ensure!(begun.elapsed() < TIMEOUT, "the port was not freed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let status = self.ask(&json!({"type": "status", "pod_name": access.pod})).await?;
        ensure!(text(&status, "status")? == "ended", "the status is {status}");
        tell(&format!("   status of {}: ended, its port is free", access.pod));
        let balance = self.wallet.balance().await.map_err(words)?;
        tell(&format!(
            "\nDone. The customer's wallet holds {balance} of 1000 sat; 6 were sold, the rest were the mint's fees."
        ));
        Ok(())
    }

    /// Keeps everything running for the visitor.
    async fn stay(&self, sandbox: &Sandbox, page: &str, operator: &str) -> Result<()> {
        let program = std::env::current_exe()?;
        tell("\nEverything stays open; end it with Ctrl-C. Try, in another terminal:\n");
        tell(&format!("  export NOSTR_RELAYS={}", sandbox.relay.url().await));
        tell(&format!("  {} order offers", program.display()));
        tell(&format!("  {} order spawn --token {}", program.display(), self.token(10).await?));
        tell(&format!(
            "  {} order top-up POD --token {}",
            program.display(),
            self.token(10).await?
        ));
        tell(&format!(
            "  curl {page}/spawn-pod -d '{{\"cashu_token\": \"{}\"}}'",
            self.token(10).await?
        ));
        tell("  (these three tokens are of the demo's own mint: 10 sat buy five minutes now)\n");
        tell(&format!(
            "Or in a browser: {page} with this token for a pod, and {page}/operator with that for the operator's view:\n"
        ));
        tell(&format!("  {}\n  {operator}", self.token(20).await?));
        tokio::signal::ctrl_c().await?;
        Ok(())
    }
}
