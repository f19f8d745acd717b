//! One run: what customers do, what goes wrong meanwhile, and the account afterwards.

use crate::backends::{AtWrite, BadLedger, ClusterFault, FakeResponder, ScriptedCluster};
use crate::{SeededRng, World};
use paygress::commands::ledger::{all_orders, audited};
use paygress_cashu::{CashuWallet, Seed, Settings as WalletSettings, WalletStore};
use paygress_core::backend::policy::RefundTerms;
use paygress_core::backend::responder::ReplyTo;
use paygress_core::backend::store::Repetition;
use paygress_core::backend::store::{LeaseStore, OrderStore};
use paygress_core::model::ids::{Customer, PodName};
use paygress_core::model::order::{Order, Purchase};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Seconds, set_clock_wrong};
use paygress_core::orders::{Backends, NewOrder, OrderService, Settings, Submission};
use paygress_core::protocol::Response;
use paygress_sandbox::token::{partial, relabelled};
use paygress_sandbox::{FaultProxy, NetworkFault, TestWallet};
use paygress_store::SqlStore;
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
    /// Whether it goes on when the actions are done.
    pub lasts: bool,
}

/// What a customer does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Buys a pod for so many sat.
    Spawn(u64),
    /// Sends the same token as the action before, from another key, at the same time.
    SameToken,
    /// Sends a part of the proofs of the action before.
    SomeProofs,
    /// Extends the first pod.
    TopUp(u64),
    /// Stops the first pod.
    Stop,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub actions: Vec<Action>,
    pub runs: Vec<ProcessRun>,
}

/// How it ended.
pub struct Outcome {
    pub outstanding: u64,
    pub met: Vec<String>,
    /// What was brought by the way back.
    pub responses: Vec<Response>,
    pub orders: Vec<Order>,
}

impl Scenario {
    pub fn of(seed: u64) -> Self {
        let mut rng = SeededRng::new(seed);
        let mut actions = vec![Action::Spawn(3 + rng.roll(60))];
        for _ in 0..rng.roll(4) {
            let amount = 3 + rng.roll(30);
            actions.push(rng.one_of(&[
                Action::Spawn(amount),
                Action::SameToken,
                Action::SomeProofs,
                Action::TopUp(amount),
                Action::Stop,
            ]));
        }
        let runs = (0..1 + rng.roll(2)).map(|_| ProcessRun::of(&mut rng)).collect();
        Self { actions, runs }
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

    fn of(rng: &mut SeededRng) -> Self {
        // long: one line for each kind of fault.
        let at = 1 + rng.small(24);
        let write = match rng.roll(10) {
            0..=2 => Some((at, AtWrite::KilledBefore)),
            3..=5 => Some((at, AtWrite::KilledAfter)),
            6 => Some((at, AtWrite::DiskFull(1 + rng.small(4)))),
            _ => None,
        };
        let path = rng.one_of(&[
            "v1/swap",
            "v1/swap",
            "v1/swap",
            "v1/restore",
            "v1/checkstate",
            "v1/key",
            "v1/",
        ]);
        let mut faults = NetworkFault::ALL.to_vec();
        faults.extend([
            NetworkFault::Hang(false),
            NetworkFault::Hang(true),
            NetworkFault::Hang(true),
            NetworkFault::Late(Duration::from_millis(200)),
        ]);
        let fault = rng.one_of(&faults);
        let mint = rng.often(80).then(|| {
            (
                path,
                fault,
                if rng.often(70) { 0 } else { rng.small(4) },
                if rng.often(20) { 10_000 } else { 1 + rng.small(4) },
            )
        });
        let (after, times) = (rng.small(8), 1 + rng.small(2));
        let faults = [
            ClusterFault::Unavailable(after, times),
            ClusterFault::NeverReady,
            ClusterFault::PortTaken(1 + times),
            ClusterFault::Quota,
            ClusterFault::NodeLost,
        ];
        let cluster = if rng.often(40) { rng.one_of(&faults) } else { ClusterFault::None };
        let responder = if rng.often(20) { 1 + rng.small(3) } else { 0 };
        let clock = if rng.often(10) {
            rng.one_of(&[-3_600, -60, 60, 600, 3_600, DAY, 40 * DAY])
        } else {
            0
        };
        let lasts = rng.often(20);
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
    cluster: Arc<ScriptedCluster>,
    responder: Arc<FakeResponder>,
}

struct App {
    orders: Arc<OrderService>,
    ledger: SqlStore,
    wallet: Arc<CashuWallet>,
}

impl TestEnv {
    /// Opens the service on what is on its disk, as soon as the last one is gone.
    async fn app(&self, world: &World, run: Option<&ProcessRun>, killed: Arc<Notify>) -> App {
        let at = |name: &str| self.directory.path().join(name);
        let ledger = opened(&at("ledger.sqlite")).await;
        let seed = Seed::load_or_create(&at("mnemonic")).await.unwrap();
        let settings = WalletSettings {
            mints: vec![self.way.url().to_owned()],
            max_balance: None,
            p2pk_secret_key: None,
        };
        let wallet = Arc::new(
            CashuWallet::open(
                WalletStore::sqlite(&at("wallet.sqlite")).await.unwrap(),
                seed,
                &settings,
            )
            .await
            .unwrap(),
        );
        let fault = run.and_then(|run| run.write);
        let faulty_ledger = Arc::new(BadLedger {
            ledger: ledger.clone(),
            fault,
            writes: std::sync::Mutex::default(),
            killed,
        });
        let backends = Backends {
            wallet: wallet.clone(),
            policy: world.policy.clone(),
            cluster: self.cluster.clone(),
            ledger: faulty_ledger,
            responder: self.responder.clone(),
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
        App { orders: OrderService::new(settings, backends), ledger, wallet }
    }
}

async fn opened(path: &Path) -> SqlStore {
    let begun = Instant::now();
    loop {
        match SqlStore::sqlite(path).await {
            Ok(ledger) => return ledger,
            Err(error) => assert!(begun.elapsed() < TIMEOUT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Submits a message, as a transport does, and waits for the response.
async fn hand_in(orders: &Arc<OrderService>, message: &Message) -> Option<Response> {
    let refused = |refusal| Some(Response::from(&refusal));
    match (&message.token, &message.purchase) {
        (Some(token), Some(purchase)) => {
            let reply_to = ReplyTo {
                transport: paygress_nostr::TRANSPORT.to_owned(),
                customer: Some(message.customer.clone()),
                address: [("request".to_owned(), Some(message.id.clone()))].into(),
            };
            let password =
                matches!(purchase, Purchase::Spawn { .. }).then(|| Secret::new("a password"));
            let incoming = NewOrder {
                repetition: Repetition::ByContent,
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
                Ok(Submission::Completed(_, answer)) => Some(*answer),
                Ok(Submission::OnOtherReplica(_)) => None,
                Err(refusal) => refused(refusal),
            }
        }
        (None, Some(Purchase::TopUp { pod })) => match orders.stop(pod, &message.customer).await {
            Ok(stopped) => Some(stopped.into()),
            Err(refusal) => refused(refusal),
        },
        _ => None,
    }
}

fn customer(n: usize) -> Customer {
    Customer::parse(&format!("{n:064x}")).unwrap()
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

/// Does the actions one after the other, those of the same token at once; gives the messages with
/// what was answered.
// long: one arm for each action.
async fn act(
    env: &TestEnv,
    orders: &Arc<OrderService>,
    actions: &[Action],
    sent: &mut Vec<(Message, Option<Response>)>,
) {
    let pod = |sent: &[(Message, Option<Response>)]| {
        sent.iter().find_map(|(_, response)| match response {
            Some(Response::Access(access)) => Some(access.pod_name.clone()),
            _ => None,
        })
    };
    for (n, action) in actions.iter().enumerate().skip(sent.len()) {
        let id = format!("message {n}");
        let fresh = async |sat| {
            Secret::new(
                relabelled(&env.wallet.token(sat).await.unwrap(), env.way.url(), "sat").unwrap(),
            )
        };
        let last = sent.iter().rev().find_map(|(message, _)| message.token.clone());
        let message = match action {
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
                let pod = pod(sent).unwrap_or_else(|| "ssh-pod-none".to_owned());
                let pod = PodName::parse(pod).unwrap();
                Message {
                    id,
                    customer: customer(1),
                    token: Some(fresh(*sat).await),
                    purchase: Some(Purchase::TopUp { pod }),
                }
            }
            Action::Stop => {
                let purchase =
                    pod(sent).map(|pod| Purchase::TopUp { pod: PodName::parse(pod).unwrap() });
                Message { id, customer: customer(1), token: None, purchase }
            }
        };
        let at = sent.len();
        sent.push((message.clone(), None));
        // The next one may want to be there at the same time.
        let together = matches!(actions.get(n + 1), Some(Action::SameToken | Action::SomeProofs));
        if together {
            let orders = Arc::clone(orders);
            tokio::spawn(async move { hand_in(&orders, &message).await });
        } else {
            let answer = hand_in(orders, &message).await;
            sent[at].1 = answer;
        }
    }
}

/// One run with faults: until the process is killed, the actions are done, or it has taken long
/// enough.
// long: one run, from its start to its end.
fn live(
    world: &World,
    env: &TestEnv,
    scenario: &Scenario,
    run: &ProcessRun,
    sent: &mut Vec<(Message, Option<Response>)>,
    met: &mut Vec<String>,
) {
    let runtime = runtime();
    runtime.block_on(async {
        let killed = Arc::new(Notify::new());
        *env.cluster.fault.lock().unwrap() = run.cluster;
        *env.responder.failing.lock().unwrap() = run.responder;
        set_clock_wrong(run.clock);
        let app = env.app(world, Some(run), Arc::clone(&killed)).await;
        if let Some((path, fault, after, times)) = run.mint {
            env.way.plan(path, fault, after, times);
        }
        let watch = tokio::spawn(Arc::clone(&app.orders).watch());
        let work = async {
            let _ = app.orders.resume().await;
            act(env, &app.orders, &scenario.actions, sent).await;
            if run.lasts {
                std::future::pending::<()>().await;
            }
        };
        let hung = async {
            match run.mint {
                Some((_, NetworkFault::Hang(_), ..)) => env.way.hung().await,
                _ => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            () = work => None,
            () = killed.notified() => Some(format!("killed {} a write", if run.write.unwrap().1 == AtWrite::KilledBefore { "before" } else { "after" })),
            () = hung => Some(format!("killed in a request to the mint ({:?})", run.mint.unwrap().1)),
            () = tokio::time::sleep(LIFE) => Some("killed while waiting".to_owned()),
        };
        met.extend(end);
        watch.abort();
    });
    if let Some((_, fault, ..)) = run.mint.filter(|_| env.way.met() > 0) {
        met.push(format!("mint: {fault:?}"));
    }
    if run.cluster != ClusterFault::None {
        let name = format!("{:?}", run.cluster);
        met.push(format!("cluster: {}", name.split('(').next().unwrap()));
    }
    if run.clock != 0 {
        met.push("clock: jumped".to_owned());
    }
    if run.responder != 0 {
        met.push("responder: answer not accepted".to_owned());
    }
    if let Some((_, AtWrite::DiskFull(_))) = run.write {
        met.push("disk: full".to_owned());
    }
    // As sudden as a kill: what runs is dropped where it is.
    runtime.shutdown_background();
    env.way.clear();
}

/// Tells the story; `kept` is what was outstanding at the mint before it.
pub fn run_scenario(
    world: &World,
    outside: &Runtime,
    scenario: Scenario,
    kept: u64,
) -> Result<Outcome, String> {
    set_clock_wrong(0);
    let env = outside.block_on(async {
        let way = FaultProxy::to(world.mint.url()).await.unwrap();
        // The customers' own way to the mint is good.
        let wallet = TestWallet::new(world.mint.url()).await.unwrap();
        wallet.fill(400).await.unwrap();
        let directory = tempfile::Builder::new().prefix("faults").tempdir_in(fast()).unwrap();
        TestEnv {
            way,
            wallet,
            directory,
            cluster: Arc::new(ScriptedCluster::new()),
            responder: Arc::default(),
        }
    });
    let (mut sent, mut met) = (Vec::new(), Vec::new());
    for run in &scenario.runs {
        live(world, &env, &scenario, run, &mut sent, &mut met);
    }
    *env.cluster.fault.lock().unwrap() = ClusterFault::None;
    *env.responder.failing.lock().unwrap() = 0;
    // The clock stays where the last life had it: time that has passed does not come back.
    let runtime = runtime();
    let outcome = runtime.block_on(async {
        let account = tokio::time::timeout(
            TIMEOUT.saturating_mul(2),
            account(world, &env, &scenario, sent, kept),
        );
        account.await.unwrap_or_else(|_| Err("a customer waits for ever".to_owned()))
    });
    runtime.shutdown_background();
    set_clock_wrong(0);
    outcome.map(|outcome| Outcome { met, ..outcome })
}

/// Where nothing waits for a disk: what is tested is the order of writes, not the disk.
fn fast() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Nothing is wrong any more: everything comes to an end, and every sat is somewhere.
// long: every place where money can be is added up once.
async fn account(
    world: &World,
    env: &TestEnv,
    scenario: &Scenario,
    mut sent: Vec<(Message, Option<Response>)>,
    kept: u64,
) -> Result<Outcome, String> {
    let app = env.app(world, None, Arc::default()).await;
    let watch = tokio::spawn(Arc::clone(&app.orders).watch());
    app.orders.resume().await.map_err(|error| error.to_string())?;
    act(env, &app.orders, &scenario.actions, &mut sent).await;
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
            (app.ledger.live_leases(None).await.map_err(failed)?.len(), env.cluster.running());
        let left = app.ledger.unfinished().await.map_err(failed)?;
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
    let report = audited(&app.ledger, &app.wallet).await.map_err(|error| error.to_string())?;
    if !report.problems.is_empty() {
        return Err(format!("the audit fails: {report}"));
    }
    if report.total.in_doubt.0 + report.total.in_progress.0 + report.total.owed.0 != 0 {
        return Err(format!("something is still open: {report}"));
    }
    // The customers take back what is theirs: tokens that were refused, refunds that were answered
    // or are returned by a status request.
    let paid: Vec<String> = sent
        .iter()
        .filter_map(|(message, _)| Some(message.token.as_ref()?.expose().to_owned()))
        .collect();
    let mut refunds: Vec<String> = Vec::new();
    let responses: Vec<Response> = env
        .responder
        .responses
        .lock()
        .unwrap()
        .iter()
        .map(|(_, response)| response.clone())
        .collect();
    for answer in sent.iter().filter_map(|(_, answer)| answer.as_ref()).chain(&responses) {
        refunds.extend(refund_tokens(answer));
        if let Some(pod) = pod_of(answer)
            && let Ok(status) = app.orders.status(&PodName::parse(pod).unwrap(), &customer(1)).await
        {
            refunds.extend(refund_tokens(&status.into()));
        }
    }
    refunds.sort();
    refunds.dedup();
    // (One of a sat is worth as much as redeeming it costs.)
    for refund in &refunds {
        let _ = env
            .wallet
            .receive(
                &relabelled(refund, world.mint.url(), "sat").map_err(|error| error.to_string())?,
            )
            .await;
    }
    let all: Vec<String> = paid.into_iter().chain(refunds).collect();
    let in_hand = env.wallet.unspent(&all).await.map_err(|error| error.to_string())?;
    let in_wallet_store: u64 = app
        .wallet
        .balances()
        .await
        .unwrap()
        .iter()
        .map(|balance| balance.available.0 + balance.reserved.0)
        .sum();
    let in_wallet = env.wallet.balance().await.map_err(|error| error.to_string())?;
    let outstanding = world.mint.outstanding().await;
    let found = kept + in_wallet_store + in_wallet + in_hand;
    if outstanding != found {
        return Err(format!(
            "the mint has {outstanding} sat outstanding; before were {kept}, the wallet store holds {in_wallet_store}, the customers' wallet {in_wallet} \
             and their hands {in_hand}: {} are lost\n{report}\n{:#?}",
            i128::from(outstanding) - i128::from(found),
            app.wallet.transactions().await.unwrap()
        ));
    }
    let orders = all_orders(&app.ledger).await.map_err(|error| error.to_string())?;
    Ok(Outcome { outstanding, met: Vec::new(), responses, orders })
}

/// All refund tokens that a response carries.
fn refund_tokens(response: &Response) -> Vec<String> {
    let (first, all) = match response {
        Response::Error(error) => {
            (error.refund.as_ref().and_then(|refund| refund.refund_token.clone()), Vec::new())
        }
        Response::Stopped(stopped) => {
            (stopped.refunds.refund_token.clone(), stopped.refunds.refund_tokens.clone())
        }
        Response::Status(status) => {
            (status.refund_token.clone(), status.refund_tokens.clone().unwrap_or_default())
        }
        Response::Access(_) | Response::ToppedUp(_) => (None, Vec::new()),
    };
    first.into_iter().chain(all).map(|token| token.expose().to_owned()).collect()
}

/// The pod that a response names.
fn pod_of(response: &Response) -> Option<String> {
    match response {
        Response::Access(access) => Some(access.pod_name.clone()),
        Response::ToppedUp(top_up) => Some(top_up.pod_name.clone()),
        Response::Stopped(stopped) => Some(stopped.pod_name.clone()),
        Response::Status(status) => Some(status.pod_name.clone()),
        Response::Error(error) => error.pod_name.clone(),
    }
}
