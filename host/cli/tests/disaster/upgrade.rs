//! A rolling upgrade, under load, on a database that the version before has made.

use crate::account::{account, orders};
use crate::load::{Bought, Load};
use crate::service::{Installation, Service};
use crate::support::command::text;
use crate::support::customer::until;
use crate::support::web::Web;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::order::{Order, Purchase, State};
use paygress_sandbox::TestWallet;
use paygress_store::db::testing::Server;
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::process::Command;
use tokio::sync::watch;

/// Orders between two replacements.
const ORDERS: usize = 10;

/// States that orders leave although their mint is gone.
const OPEN: [State; 5] =
    [State::Received, State::Decided, State::Redeeming, State::Paid, State::Provisioning];

/// How often all replicas are replaced.
fn rounds() -> usize {
    let rounds = std::env::var("DISASTER_ROUNDS");
    rounds.map_or(1, |rounds| rounds.parse().expect("DISASTER_ROUNDS is no number"))
}

fn webs(replicas: &VecDeque<Service>) -> Vec<Web> {
    replicas.iter().map(|replica| replica.web.clone()).collect()
}

/// What the customers have together: their wallets, tokens and pods.
pub(crate) fn together(bought: &[Bought]) -> (Vec<&TestWallet>, Vec<String>, BTreeSet<String>) {
    let wallets = bought.iter().map(|bought| &bought.wallet).collect();
    let tokens = bought.iter().flat_map(|bought| bought.tokens.clone()).collect();
    let pods = bought.iter().flat_map(|bought| bought.pods.clone()).collect();
    (wallets, tokens, pods)
}

/// Each order that was paid at our mint has a pod, and each pod one order.
pub(crate) async fn assert_none_lost(installation: &Installation, bought: &[Bought]) {
    let (wallets, tokens, pods) = together(bought);
    assert_eq!(pods.len(), tokens.len(), "an order has no pod of its own");
    assert!(pods.is_subset(&installation.pods.running()), "a pod is gone");
    let mint = MintUrl::parse(installation.sandbox.mint.url()).unwrap();
    let orders = orders(installation).await;
    let here = orders.iter().filter(|order| order.token_info.mint == mint);
    let active = here.filter(|order| order.state() == State::Active).count();
    assert_eq!(active, tokens.len(), "what is paid is what is sold");
    account(installation, &wallets, &tokens).await;
}

/// An installation on a Postgres of version 0.1.0.
async fn of_the_version_before(server: &Server) -> Installation {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v0.1.0");
    let database = server.new_database().unwrap();
    server.run_file(&database, &fixtures.join("ledger.postgres.sql")).unwrap();
    let mnemonic = std::fs::read_to_string(fixtures.join("wallet.mnemonic")).unwrap();
    let settings = [
        ("DATABASE_URL", database.expose()),
        ("WALLET_MNEMONIC", mnemonic.trim()),
        ("REQUESTS_PER_MINUTE", "100000"),
    ];
    Installation::new(&settings, "").await
}

/// Each order that the version before left open is served or refused, or is known to wait for its
/// mint; a pod that was paid for is there.
async fn assert_continued(installation: &Installation, before: &[Order]) {
    let open: Vec<&Order> = before.iter().filter(|order| OPEN.contains(&order.state())).collect();
    let states: BTreeSet<&str> = open.iter().map(|order| order.state().as_str()).collect();
    assert_eq!(states.len(), OPEN.len(), "only {states:?}");
    let after = until("orders of the version before are still open", async || {
        let all = orders(installation).await.into_iter();
        let after: Vec<Order> =
            all.filter(|order| open.iter().any(|old| old.id == order.id)).collect();
        after.iter().all(|order| !OPEN.contains(&order.state())).then_some(after)
    })
    .await;
    assert_eq!(after.len(), open.len(), "an order is lost");
    for old in open {
        let is_paid = matches!(old.state(), State::Paid | State::Provisioning);
        if is_paid && matches!(old.purchase, Purchase::Spawn { .. }) {
            let order = after.iter().find(|order| order.id == old.id).unwrap();
            assert_eq!(order.state(), State::Active, "{}", old.id);
            let pod = order.pod().to_string();
            assert!(installation.pods.running().contains(&pod), "{pod} is gone");
        }
    }
}

/// The program of the version before reads what this version has written, or says that it cannot.
async fn assert_previous_reads(installation: &Installation) {
    let Some(program) = std::env::var_os("PAYGRESS_PREVIOUS") else {
        println!("NOT RUN: the program of the version before, since PAYGRESS_PREVIOUS is not set");
        return;
    };
    let mut command = Command::new(program);
    command.args(["ledger", "audit"]).env_clear().envs(&installation.sandbox.environment);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() || printed.contains("use the newer program"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_replaced_one_after_the_other_under_load() {
    let server = Server::start().unwrap();
    let installation = of_the_version_before(&server).await;
    let old = orders(&installation).await;
    let before = old.len();
    assert!(before > 0, "the ledger of the version before is empty");
    let mut replicas = VecDeque::from([installation.start().await, installation.start().await]);
    assert_continued(&installation, &old).await;
    let (served_by, serving) = watch::channel(webs(&replicas));
    let mut load = Load::start(&installation, serving).await;
    for _ in 0..2 * rounds() {
        load.sell(ORDERS).await;
        replicas.push_back(installation.start().await);
        let old = replicas.pop_front().unwrap();
        served_by.send_replace(webs(&replicas));
        old.stop().await;
    }
    load.sell(ORDERS).await;
    let bought = load.end().await;
    let errors: Vec<&String> = bought.iter().flat_map(|bought| &bought.errors).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert_none_lost(&installation, &bought).await;
    assert_previous_reads(&installation).await;
    let (sold, cut): (usize, usize) =
        bought.iter().fold((0, 0), |sum, one| (sum.0 + one.pods.len(), sum.1 + one.cut));
    assert_eq!(cut, 0, "requests have no answer");
    assert_eq!(orders(&installation).await.len(), before + sold);
    println!(
        "{sold} orders over {} replacements, beside {before} of version 0.1.0: 0 lost, 0 wire errors, {cut} requests cut",
        2 * rounds()
    );
}
