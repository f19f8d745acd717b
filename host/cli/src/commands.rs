//! `paygress ledger` and `paygress wallet`: the operator's look into the books, beside a running
//! service.
#![allow(clippy::print_stdout)]

use crate::app::{OpenMode, books};
use crate::audit::{Report, audit};
use crate::serve::configured;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use paygress_cashu::CashuWallet;
use paygress_core::backend::store::Reporting;
use paygress_core::model::order::Order;
use paygress_core::model::units::{MintUrl, OrderId, Sat};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Orders that are read at once.
pub(crate) const PAGE: u32 = 500;

/// Between two looks at books that do not agree: longer than an order stays between two of them.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// What to do with the ledger.
#[derive(Subcommand)]
pub enum LedgerAction {
    /// One line an order, the newest last.
    List,
    /// One order, whole. No secret is shown.
    Show {
        /// Its id.
        order: String,
    },
    /// Every order as one line of JSON, without secrets.
    Export,
    /// Account for every sat. Exits with 1, and names the order, when something does not add up.
    Audit,
}

/// What to do with the wallet.
#[derive(Subcommand)]
pub enum WalletAction {
    /// What is held at each mint, and how the mint is.
    Balance,
    /// Print a token over so many sats. Whoever has it has the money.
    Send {
        /// How much.
        amount: u64,
        /// From which mint; may be left out when there is one.
        #[arg(long)]
        mint: Option<String>,
    },
    /// Print the tokens that were sent and that nobody has redeemed.
    Sent,
    /// Pay a bolt11 invoice, or an amount to a Lightning address.
    Pay {
        /// The invoice, or name@domain.
        destination: String,
        /// How much, for an address.
        #[arg(long)]
        amount: Option<u64>,
        /// From which mint; may be left out when there is one.
        #[arg(long)]
        mint: Option<String>,
    },
    /// Ask every mint for what the mnemonic has there: after a disk was lost, for instance.
    Restore,
}

/// Every order of a ledger.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn all_orders(ledger: &dyn Reporting) -> Result<Vec<Order>> {
    let mut all: Vec<Order> = Vec::new();
    loop {
        let page = ledger.page(all.last().map(|order| &order.id), PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// The audit of these books.
///
/// # Errors
/// When they cannot be read.
pub async fn audited(ledger: &dyn Reporting, wallet: &CashuWallet) -> Result<Report> {
    let mut report =
        audit(&all_orders(ledger).await?, &wallet.entries().await?, &wallet.overview(false).await?);
    if !report.problems.is_empty() {
        // The books are read one after the other, and the service may be writing: what is wrong is
        // wrong twice.
        tokio::time::sleep(SECOND_LOOK).await;
        let again = audit(
            &all_orders(ledger).await?,
            &wallet.entries().await?,
            &wallet.overview(false).await?,
        );
        let lasting: Vec<String> = again
            .problems
            .iter()
            .filter(|problem| report.problems.contains(problem))
            .cloned()
            .collect();
        report = Report { problems: lasting, ..again };
    }
    Ok(report)
}

/// Runs `paygress ledger`.
///
/// # Errors
/// When the books cannot be read.
pub async fn ledger(config: Option<&Path>, action: LedgerAction) -> Result<ExitCode> {
    let (book, wallet) = books(&configured(config)?, OpenMode::ReadOnly).await?;
    match action {
        LedgerAction::List => {
            for order in all_orders(&book).await? {
                let (gross, state) = (order.token_info.gross.to_string(), order.state.as_str());
                let pod = order.pod();
                let why =
                    order.refusal.as_ref().map(|refusal| refusal.code.as_str()).unwrap_or_default();
                println!(
                    "{} {} {gross:>12} {state:<15} {pod:<18} {why}",
                    order.id,
                    order.created_at.rfc3339()
                );
            }
        }
        LedgerAction::Show { order } => {
            let found = book
                .order(&OrderId(order.clone()))
                .await?
                .with_context(|| format!("there is no order {order}"))?;
            println!("{}", serde_json::to_string_pretty(&found)?);
        }
        LedgerAction::Export => {
            for order in all_orders(&book).await? {
                println!("{}", serde_json::to_string(&order)?);
            }
        }
        LedgerAction::Audit => {
            let report = audited(&book, &wallet).await?;
            println!("{report}");
            return Ok(if report.problems.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `paygress wallet`.
///
/// # Errors
/// When it cannot be done; what to do.
pub async fn wallet(config: Option<&Path>, action: WalletAction) -> Result<ExitCode> {
    let (_, wallet) = books(&configured(config)?, OpenMode::ReadOnly).await?;
    match action {
        WalletAction::Balance => {
            for holding in wallet.overview(true).await? {
                let mut notes = Vec::new();
                if holding.held > Sat(0) {
                    notes.push(format!("{} in open operations", holding.held));
                }
                if !holding.accepted {
                    notes.push("no longer accepted".to_owned());
                }
                match (&holding.health.why, holding.health.took) {
                    (Some(why), _) => notes.push(why.clone()),
                    (None, Some(took)) => notes.push(format!("answers in {} ms", took.as_millis())),
                    (None, None) => {}
                }
                println!("{} {:>14}  {}", holding.mint, holding.free.to_string(), notes.join("; "));
            }
        }
        WalletAction::Send { amount, mint } => {
            println!("{}", wallet.send(&chosen(&wallet, mint).await?, Sat(amount)).await?.expose());
        }
        WalletAction::Sent => {
            for token in wallet.sent().await? {
                println!("{}", token.expose());
            }
        }
        WalletAction::Pay { destination, amount, mint } => {
            let paid =
                wallet.pay(&chosen(&wallet, mint).await?, &destination, amount.map(Sat)).await?;
            println!("paid {}, and {} in fees", paid.amount, paid.fee);
        }
        WalletAction::Restore => {
            for holding in wallet.overview(false).await? {
                println!(
                    "{} {}",
                    holding.mint,
                    json!({ "restored_sats": wallet.restore(&holding.mint).await? })
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The mint that was named, or the only one.
async fn chosen(wallet: &CashuWallet, named: Option<String>) -> Result<MintUrl> {
    let mints: Vec<MintUrl> =
        wallet.overview(false).await?.into_iter().map(|holding| holding.mint).collect();
    match (named, mints.as_slice()) {
        (Some(named), _) => Ok(MintUrl(named)),
        (None, [one]) => Ok(one.clone()),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(MintUrl::as_str).collect();
            bail!("say which mint, with --mint: {}", names.join(", "))
        }
    }
}
