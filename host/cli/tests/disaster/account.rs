//! Where the money is: what the mint has signed is what the service and the customers hold, and the
//! audit of the ledger holds.

use crate::service::Installation;
use crate::support::command::{printed, text};
use paygress::app::{OpenMode, open_stores};
use paygress_core::backend::store::Reporting;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::order::{Order, State};
use paygress_sandbox::TestWallet;
use paygress_store::SqlStore;
use paygress_store::db::Database;
use std::path::Path;
use std::process::Command;

/// Tokens whose proofs a mint is sent in one request.
const TOKENS_AT_ONCE: usize = 50;

/// What these tokens are still worth.
async fn unspent(wallet: &TestWallet, tokens: &[String]) -> u64 {
    let mut sum = 0;
    for tokens in tokens.chunks(TOKENS_AT_ONCE) {
        sum += wallet.unspent(tokens).await.unwrap();
    }
    sum
}

/// What the service holds at the mint of the sandbox.
pub(crate) async fn held(installation: &Installation) -> u64 {
    let config = &installation.sandbox.config;
    let (_, wallet) = open_stores(config, OpenMode::ReadOnly).await.unwrap();
    let mint = MintUrl::parse(installation.sandbox.mint.url()).unwrap();
    let balances = wallet.balances().await.unwrap();
    let here = balances.iter().filter(|balance| balance.mint == mint);
    here.map(|balance| balance.available.0 + balance.reserved.0).sum()
}

pub(crate) async fn orders(installation: &Installation) -> Vec<Order> {
    let config = &installation.sandbox.config;
    let database = match &config.database {
        Some(url) => Database::postgres(url, &[SqlStore::SCHEMA]).await.unwrap(),
        None => Database::sqlite_read_only(&config.ledger, SqlStore::SCHEMA).await.unwrap(),
    };
    SqlStore::new(database).page(None, u32::MAX).await.unwrap()
}

/// How many orders are in this state.
pub(crate) async fn count(installation: &Installation, state: State) -> usize {
    orders(installation).await.iter().filter(|order| order.state() == state).count()
}

pub(crate) async fn assert_audited(installation: &Installation) {
    let audit = printed(&installation.sandbox, &["ledger", "audit"]).await;
    assert!(audit.contains("every sat is accounted for"), "{audit}");
}

/// The customers have these wallets, and these tokens of which some may never have been taken.
/// Gives what the service holds.
pub(crate) async fn account(
    installation: &Installation,
    wallets: &[&TestWallet],
    tokens: &[String],
) -> u64 {
    assert_audited(installation).await;
    let mut of_customers = unspent(wallets[0], tokens).await;
    for wallet in wallets {
        of_customers += wallet.balance().await.unwrap();
    }
    let (held, outstanding) =
        (held(installation).await, installation.sandbox.mint.outstanding().await.unwrap());
    assert_eq!(
        outstanding,
        held + of_customers,
        "the service holds {held}, the customers {of_customers}"
    );
    println!(
        "0 sats unaccounted for: the mint has {outstanding} outstanding, of which the service holds {held}"
    );
    held
}

/// The nth block of commands in this section of `docs/operating.md`.
pub(crate) fn documented(section: &str, nth: usize) -> String {
    let document = include_str!("../../../../docs/operating.md");
    let (_, after) = document.split_once(&format!("\n## {section}\n")).unwrap();
    let section = after.split("\n## ").next().unwrap();
    let block = section.split("```sh\n").nth(nth + 1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

/// Runs commands as an operator does: in this directory, with the service's configuration.
pub(crate) async fn run(installation: &Installation, directory: &Path, commands: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_paygress")).parent().unwrap();
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", commands]).current_dir(directory).env_clear();
    command
        .envs(&installation.sandbox.environment)
        .env("PATH", format!("{}:/usr/bin:/bin", program.display()));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{commands}\n{printed}");
    printed
}
