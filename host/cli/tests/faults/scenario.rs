//! One run: what customers do, what goes wrong meanwhile, and the account afterwards.

use crate::backends::{AtWrite, BadLedger, ClusterFault, FakeResponder, ScriptedCluster};
use crate::{SeededRng, World};
use paygress::commands::{all_orders, audited};
use paygress_cashu::fault_proxy::{FaultProxy, NetworkFault};
use paygress_cashu::test_mint::{TestWallet, partial, relabelled};
use paygress_cashu::{CashuWallet, Seed, Settings as TillSettings, WalletStore};
use paygress_core::backend::policy::RefundTerms;
use paygress_core::backend::responder::{ReplyTo, Transport};
use paygress_core::backend::store::{LeaseStore, OrderStore};
use paygress_core::model::order::{Order, Purchase};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Customer, PodName, Seconds, set_clock_wrong};
use paygress_core::orders::{Backends, NewOrder, OrderService, Settings, Submission};
use paygress_store::SqlStore;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// How long a life with faults may take before it is ended.
const LIFE: Duration = Duration::from_secs(4);
/// How long everything may take to come right once nothing is wrong any more.
const TIMEOUT: Duration = Duration::from_secs(90);
pub const DAY: i64 = 86_400;

/// What goes wrong in one life of the process.
#[derive(Clone, Debug)]
pub struct ProcessRun {
    pub write: Option<(usize, AtWrite)>,
    pub mint: Option<(&'static str, NetworkFault, usize, usize)>,
    pub cluster: ClusterFault,
    pub responder: usize,
    pub clock: i64,
    /// Whether it goes on when the deeds are done.
    pub lasts: bool,
}

/// What a customer does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Buys a pod for so many sat.
    Spawn(u64),
    /// Sends the same token as the deed before, from another key, at the same time.
    SameToken,
    /// Sends a part of the proofs of the deed before.
    SomeProofs,
    /// Extends the first pod.
    TopUp(u64),
    /// Stops the first pod.
    Stop,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub deeds: Vec<Action>,
    pub lives: Vec<ProcessRun>,
}

/// How it ended.
pub struct Told {
    pub outstanding: u64,
    pub met: Vec<String>,
    /// What was brought by the way back.
    pub letters: Vec<Value>,
    pub orders: Vec<Order>,
}

impl Scenario {
    pub fn of(seed: u64) -> Self {
        let mut dice = SeededRng::new(seed);
        let mut deeds = vec![Action::Spawn(3 + dice.roll(60))];
        for _ in 0..dice.roll(4) {
            let amount = 3 + dice.roll(30);
            deeds.push(dice.one_of(&[
                Action::Spawn(amount),
                Action::SameToken,
                Action::SomeProofs,
                Action::TopUp(amount),
                Action::Stop,
            ]));
        }
        let lives = (0..1 + dice.roll(2)).map(|_| ProcessRun::of(&mut dice)).collect();
        Self { deeds, lives }
    }
}

impl ProcessRun {
    /// A life in which nothing goes wrong.
    pub fn good() -> Self {
        Self {
            write: None,
            mint: None,
            cluster: ClusterFault::None,
            responder: 0,
            clock: 0,
            lasts: false,
        }
    }

    fn of(dice: &mut SeededRng) -> Self {
        let at = 1 + dice.small(24);
        let write = match dice.roll(10) {
            0..=2 => Some((at, AtWrite::KilledBefore)),
            3..=5 => Some((at, AtWrite::KilledAfter)),
            6 => Some((at, AtWrite::DiskFull(1 + dice.small(4)))),
            _ => None,
        };
        let path = dice.one_of(&[
            "v1/swap",
            "v1/swap",
            "v1/swap",
            "v1/restore",
            "v1/checkstate",
            "v1/key",
            "v1/",
        ]);
        let mut mishaps = NetworkFault::ALL.to_vec();
        mishaps.extend([
            NetworkFault::Hang(false),
            NetworkFault::Hang(true),
            NetworkFault::Hang(true),
            NetworkFault::Late(Duration::from_millis(200)),
        ]);
        let mishap = dice.one_of(&mishaps);
        let mint = dice.often(80).then(|| {
            (
                path,
                mishap,
                if dice.often(70) { 0 } else { dice.small(4) },
                if dice.often(20) { 10_000 } else { 1 + dice.small(4) },
            )
        });
        let (after, times) = (dice.small(8), 1 + dice.small(2));
        let faults = [
            ClusterFault::Away(after, times),
            ClusterFault::NeverReady,
            ClusterFault::PortTaken(1 + times),
            ClusterFault::Quota,
            ClusterFault::NodeLost,
        ];
        let cluster = if dice.often(40) { dice.one_of(&faults) } else { ClusterFault::None };
        let responder = if dice.often(20) { 1 + dice.small(3) } else { 0 };
        let clock = if dice.often(10) {
            dice.one_of(&[-3_600, -60, 60, 600, 3_600, DAY, 40 * DAY])
        } else {
            0
        };
        let lasts = dice.often(20);
        Self { write, mint, cluster, responder, clock, lasts }
    }
}

/// A message of a customer.
#[derive(Clone)]
struct Message {
    id: String,
    customer: Customer,
    token: Option<Secret>,
    purchase: Option<Purchase>,
}

struct TestEnv {
    way: FaultProxy,
    wallet: TestWallet,
    directory: tempfile::TempDir,
    puppet: Arc<ScriptedCluster>,
    mailbox: Arc<FakeResponder>,
}

struct App {
    orders: Arc<OrderService>,
    book: SqlStore,
    wallet: Arc<CashuWallet>,
}

impl TestEnv {
    /// Opens the service on what is on its disk, as soon as the last one is gone.
    async fn app(&self, world: &World, life: Option<&ProcessRun>, killed: Arc<Notify>) -> App {
        let at = |name: &str| self.directory.path().join(name);
        let book = opened(&at("ledger.sqlite")).await;
        let seed = Seed::at(&at("mnemonic")).unwrap();
        let settings =
            TillSettings { mints: vec![self.way.url().to_owned()], max_balance: None, lock: None };
        let wallet = Arc::new(
            CashuWallet::open(WalletStore::sqlite(&at("purse.sqlite")).await.unwrap(), seed, &settings)
                .await
                .unwrap(),
        );
        let fault = life.and_then(|life| life.write);
        let ledger = Arc::new(BadLedger {
            book: book.clone(),
            fault,
            writes: std::sync::Mutex::default(),
            killed,
        });
        let backends = Backends {
            wallet: wallet.clone(),
            policy: world.policy.clone(),
            cluster: self.puppet.clone(),
            ledger,
            responder: self.mailbox.clone(),
        };
        let settings = Settings {
            suggested: Seconds(3_600),
            ssh_host: "127.0.0.1".to_owned(),
            container_port: 2_222,
            ports: 40_000..=40_009,
            sweep: true,
            refund_on_stop: Some(RefundTerms { step: Seconds(60), percent: 100 }),
            refund_kept: Seconds(30 * 86_400),
        };
        App { orders: OrderService::new(settings, backends), book, wallet }
    }
}

async fn opened(path: &Path) -> SqlStore {
    let begun = Instant::now();
    loop {
        match SqlStore::sqlite(path).await {
            Ok(book) => return book,
            Err(error) => assert!(begun.elapsed() < TIMEOUT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Hands a message in, as a door does, and waits for what comes of it.
async fn hand_in(orders: &Arc<OrderService>, message: &Message) -> Option<Value> {
    let refused = |refusal| Some(paygress_core::protocol::error(&refusal));
    match (&message.token, &message.purchase) {
        (Some(token), Some(purchase)) => {
            let reply_to = ReplyTo {
                door: Transport::Nostr,
                customer: message.customer.clone(),
                relay: None,
                request: Some(message.id.clone()),
            };
            let password =
                matches!(purchase, Purchase::Spawn { .. }).then(|| Secret::new("a password"));
            let incoming = NewOrder {
                message: message.id.clone(),
                reply_to,
                token: token.clone(),
                purchase: purchase.clone(),
                password,
            };
            match orders.submit(incoming).await {
                Ok(ticket @ (Submission::InProgress(..) | Submission::Joined(..))) => {
                    ticket.answer().await
                }
                Ok(Submission::Completed(_, answer)) => Some(answer),
                Ok(Submission::OnOtherReplica(_)) => None,
                Err(refusal) => refused(refusal),
            }
        }
        (None, Some(Purchase::TopUp { pod })) => {
            Some(orders.stop(pod, &message.customer).await.unwrap_or_else(|r| refused(r).unwrap()))
        }
        _ => None,
    }
}

fn customer(n: usize) -> Customer {
    Customer(format!("{n:064x}"))
}

fn spawn() -> Purchase {
    Purchase::Spawn {
        image: None,
        tier: None,
        username: "user".to_owned(),
        public_key: None,
        wanted: None,
    }
}

/// Does the deeds one after the other, those of the same token at once; gives the messages with
/// what was answered.
async fn act(
    street: &TestEnv,
    orders: &Arc<OrderService>,
    deeds: &[Action],
    sent: &mut Vec<(Message, Option<Value>)>,
) {
    let pod = |sent: &[(Message, Option<Value>)]| {
        sent.iter().find_map(|(_, answer)| {
            answer
                .as_ref()?
                .get("ssh_port")
                .and(answer.as_ref()?["pod_name"].as_str().map(str::to_owned))
        })
    };
    for (n, deed) in deeds.iter().enumerate().skip(sent.len()) {
        let id = format!("message {n}");
        let fresh = async |sat| {
            Secret::new(
                relabelled(&street.wallet.token(sat).await.unwrap(), street.way.url(), "sat")
                    .unwrap(),
            )
        };
        let last = sent.iter().rev().find_map(|(message, _)| message.token.clone());
        let message = match deed {
            Action::Spawn(sat) => Message {
                id,
                customer: customer(1),
                token: Some(fresh(*sat).await),
                purchase: Some(spawn()),
            },
            Action::SameToken => {
                Message { id, customer: customer(2), token: last, purchase: Some(spawn()) }
            }
            Action::SomeProofs => {
                let token = last.and_then(|token| partial(token.expose()).ok()).map(Secret::new);
                Message { id, customer: customer(1), token, purchase: Some(spawn()) }
            }
            Action::TopUp(sat) => {
                let pod = PodName(pod(sent).unwrap_or_else(|| "ssh-pod-none".to_owned()));
                Message {
                    id,
                    customer: customer(1),
                    token: Some(fresh(*sat).await),
                    purchase: Some(Purchase::TopUp { pod }),
                }
            }
            Action::Stop => {
                let purchase = pod(sent).map(|pod| Purchase::TopUp { pod: PodName(pod) });
                Message { id, customer: customer(1), token: None, purchase }
            }
        };
        let at = sent.len();
        sent.push((message.clone(), None));
        // The next one may want to be there at the same time.
        let together = matches!(deeds.get(n + 1), Some(Action::SameToken | Action::SomeProofs));
        if together {
            let orders = Arc::clone(orders);
            tokio::spawn(async move { hand_in(&orders, &message).await });
        } else {
            let answer = hand_in(orders, &message).await;
            sent[at].1 = answer;
        }
    }
}

/// One life with faults: until the process is killed, the deeds are done, or it has taken long
/// enough.
fn live(
    world: &World,
    street: &TestEnv,
    story: &Scenario,
    life: &ProcessRun,
    sent: &mut Vec<(Message, Option<Value>)>,
    met: &mut Vec<String>,
) {
    let runtime = runtime();
    runtime.block_on(async {
        let killed = Arc::new(Notify::new());
        *street.puppet.fault.lock().unwrap() = life.cluster;
        *street.mailbox.failing.lock().unwrap() = life.responder;
        set_clock_wrong(life.clock);
        let app = street.app(world, Some(life), Arc::clone(&killed)).await;
        if let Some((path, mishap, after, times)) = life.mint {
            street.way.plan(path, mishap, after, times);
        }
        let watch = tokio::spawn(Arc::clone(&app.orders).watch());
        let work = async {
            let _ = app.orders.resume().await;
            act(street, &app.orders, &story.deeds, sent).await;
            if life.lasts {
                std::future::pending::<()>().await;
            }
        };
        let hung = async {
            match life.mint {
                Some((_, NetworkFault::Hang(_), ..)) => street.way.hung().await,
                _ => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            () = work => None,
            () = killed.notified() => Some(format!("killed {} a write", if life.write.unwrap().1 == AtWrite::KilledBefore { "before" } else { "after" })),
            () = hung => Some(format!("killed in a request to the mint ({:?})", life.mint.unwrap().1)),
            () = tokio::time::sleep(LIFE) => Some("killed while waiting".to_owned()),
        };
        met.extend(end);
        watch.abort();
    });
    if let Some((_, mishap, ..)) = life.mint.filter(|_| street.way.met() > 0) {
        met.push(format!("mint: {mishap:?}"));
    }
    if life.cluster != ClusterFault::None {
        let name = format!("{:?}", life.cluster);
        met.push(format!("cluster: {}", name.split('(').next().unwrap()));
    }
    if life.clock != 0 {
        met.push("clock: jumped".to_owned());
    }
    if life.responder != 0 {
        met.push("courier: nobody took the answer".to_owned());
    }
    if let Some((_, AtWrite::DiskFull(_))) = life.write {
        met.push("disk: full".to_owned());
    }
    // As sudden as a kill: what runs is dropped where it is.
    runtime.shutdown_background();
    street.way.clear();
}

/// Tells the story; `kept` is what was outstanding at the mint before it.
pub fn tell(world: &World, outside: &Runtime, story: Scenario, kept: u64) -> Result<Told, String> {
    set_clock_wrong(0);
    let street = outside.block_on(async {
        let way = FaultProxy::to(world.mint.url()).await.unwrap();
        // The customers' own way to the mint is good.
        let wallet = TestWallet::new(world.mint.url()).await.unwrap();
        wallet.fill(400).await.unwrap();
        let directory = tempfile::Builder::new().prefix("faults").tempdir_in(fast()).unwrap();
        TestEnv {
            way,
            wallet,
            directory,
            puppet: Arc::new(ScriptedCluster::new()),
            mailbox: Arc::default(),
        }
    });
    let (mut sent, mut met) = (Vec::new(), Vec::new());
    for life in &story.lives {
        live(world, &street, &story, life, &mut sent, &mut met);
    }
    *street.puppet.fault.lock().unwrap() = ClusterFault::None;
    *street.mailbox.failing.lock().unwrap() = 0;
    // The clock stays where the last life had it: time that has passed does not come back.
    let runtime = runtime();
    let told = runtime.block_on(async {
        let account = tokio::time::timeout(
            TIMEOUT.saturating_mul(2),
            account(world, &street, &story, sent, kept),
        );
        account.await.unwrap_or_else(|_| Err("a customer waits for ever".to_owned()))
    });
    runtime.shutdown_background();
    set_clock_wrong(0);
    told.map(|told| Told { met, ..told })
}

/// Where nothing waits for a disk: what is tested is the order of writes, not the disk.
fn fast() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Nothing is wrong any more: everything comes to an end, and every sat is somewhere.
async fn account(
    world: &World,
    street: &TestEnv,
    story: &Scenario,
    mut sent: Vec<(Message, Option<Value>)>,
    kept: u64,
) -> Result<Told, String> {
    let app = street.app(world, None, Arc::default()).await;
    let watch = tokio::spawn(Arc::clone(&app.orders).watch());
    app.orders.resume().await.map_err(|error| error.to_string())?;
    act(street, &app.orders, &story.deeds, &mut sent).await;
    // A customer who got no answer sends the same message again.
    for (message, answer) in &mut sent {
        if answer.is_none() {
            *answer = hand_in(&app.orders, message).await;
        }
    }
    // Until the orders have come to an end, and the leases are the pods.
    let begun = Instant::now();
    loop {
        let failed = |error: paygress_core::backend::store::LedgerError| error.to_string();
        let (leases, pods) =
            (app.book.live_leases(None).await.map_err(failed)?.len(), street.puppet.running());
        let left = app.book.unfinished().await.map_err(failed)?;
        if left.is_empty() && leases == pods {
            break;
        }
        if begun.elapsed() > TIMEOUT {
            return Err(format!(
                "it does not come to an end: {leases} leases, {pods} pods, {left:#?}"
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    watch.abort();
    let report = audited(&app.book, &app.wallet).await.map_err(|error| error.to_string())?;
    if !report.problems.is_empty() {
        return Err(format!("the audit fails: {report}"));
    }
    if report.total.in_question.0 + report.total.in_work.0 + report.total.owed.0 != 0 {
        return Err(format!("something is still open: {report}"));
    }
    // The customers take back what is theirs: tokens that were refused, refunds that were answered
    // or are told on asking.
    let paid: Vec<String> = sent
        .iter()
        .filter_map(|(message, _)| Some(message.token.as_ref()?.expose().to_owned()))
        .collect();
    let mut refunds: Vec<String> = Vec::new();
    let letters: Vec<Value> =
        street.mailbox.letters.lock().unwrap().iter().map(|(_, letter)| letter.clone()).collect();
    for answer in sent.iter().filter_map(|(_, answer)| answer.as_ref()).chain(&letters) {
        refunds.extend(answer["refund_token"].as_str().map(str::to_owned));
        for token in answer["refund_tokens"].as_array().into_iter().flatten() {
            refunds.extend(token.as_str().map(str::to_owned));
        }
        if let Some(pod) = answer["pod_name"].as_str() {
            let status =
                app.orders.status(&PodName(pod.to_owned()), &customer(1)).await.unwrap_or_default();
            for token in status["refund_tokens"].as_array().into_iter().flatten() {
                refunds.extend(token.as_str().map(str::to_owned));
            }
        }
    }
    refunds.sort();
    refunds.dedup();
    // (One of a sat is worth as much as redeeming it costs.)
    for refund in &refunds {
        let _ = street.wallet.redeem(&relabelled(refund, world.mint.url(), "sat")?).await;
    }
    let all: Vec<String> = paid.into_iter().chain(refunds).collect();
    let in_hand = street.wallet.unspent(&all).await?;
    let in_purse: u64 =
        app.wallet.balances().await.unwrap().iter().map(|(_, free, held)| free.0 + held.0).sum();
    let in_wallet = street.wallet.balance().await.map_err(|error| error.to_string())?;
    let outstanding = world.mint.outstanding().await;
    let found = kept + in_purse + in_wallet + in_hand;
    if outstanding != found {
        return Err(format!(
            "the mint has {outstanding} sat outstanding; before were {kept}, the purse holds {in_purse}, the customers' wallet {in_wallet} \
             and their hands {in_hand}: {} are lost\n{report}\n{:#?}",
            i128::from(outstanding) - i128::from(found),
            app.wallet.entries().await.unwrap()
        ));
    }
    let orders = all_orders(&app.book).await.map_err(|error| error.to_string())?;
    Ok(Told { outstanding, met: Vec::new(), letters, orders })
}
