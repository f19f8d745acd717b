//! `paygress ledger`.

use crate::app::{OpenMode, open_stores};
use crate::audit::{Report, audit};
use crate::output::print_line;
use crate::serve::configured;
use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use paygress_cashu::{CashuWallet, HealthCheck, MintBalance};
use paygress_core::backend::store::{OrderStore, Reporting};
use paygress_core::model::ids::OrderId;
use paygress_core::model::order::Order;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Orders in one query.
pub(crate) const PAGE_SIZE: u32 = 500;

/// Between two audits: longer than ledger and wallet of a running service disagree.
const RECHECK_AFTER: Duration = Duration::from_secs(3);

#[derive(Subcommand)]
pub enum LedgerAction {
    /// List the orders, the newest last.
    List,
    /// Show an order, without its secrets.
    Show {
        /// The order's id
        order: String,
    },
    /// Print every order as a line of JSON, without its secrets.
    Export,
    /// Account for every sat. Exits with 1 and names the order if something does not add up.
    Audit,
}

/// # Errors
/// When the ledger cannot be read.
pub async fn all_orders(ledger: &dyn Reporting) -> Result<Vec<Order>> {
    let mut all: Vec<Order> = Vec::new();
    loop {
        let page = ledger.page(all.last().map(|order| &order.id), PAGE_SIZE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

async fn audit_once(ledger: &dyn Reporting, wallet: &CashuWallet) -> Result<Report> {
    let damaged = ledger.damaged().await?;
    // Without these rows no sum is right.
    ensure!(
        damaged.is_empty(),
        "nothing is accounted for, since {} row(s) cannot be read; restore the database, or ask for help\n  {}",
        damaged.len(),
        damaged.join("\n  ")
    );
    let orders = all_orders(ledger).await?;
    let transactions = wallet.transactions().await?;
    let overview = wallet.overview(HealthCheck::Cached).await?;
    let balances: Vec<MintBalance> = overview.into_iter().map(|status| status.balance).collect();
    Ok(audit(&orders, &transactions, &balances))
}

/// Audits a ledger and a wallet that a service may be writing.
///
/// # Errors
/// When they cannot be read.
pub async fn audited(ledger: &dyn Reporting, wallet: &CashuWallet) -> Result<Report> {
    let first = audit_once(ledger, wallet).await?;
    if first.problems.is_empty() {
        return Ok(first);
    }
    // Ledger and wallet are read one after the other: a problem counts if it lasts.
    tokio::time::sleep(RECHECK_AFTER).await;
    let mut second = audit_once(ledger, wallet).await?;
    second.problems.retain(|problem| first.problems.contains(problem));
    Ok(second)
}

/// Runs `paygress ledger`.
///
/// # Errors
/// When the stores cannot be read.
pub async fn ledger(config: Option<&Path>, action: LedgerAction) -> Result<ExitCode> {
    let (ledger, wallet) = open_stores(&configured(config)?, OpenMode::ReadOnly).await?;
    match action {
        LedgerAction::List => {
            for order in all_orders(&ledger).await? {
                print_order(&order);
            }
        }
        LedgerAction::Show { order } => {
            let none = || format!("there is no order {order}");
            let id = OrderId::parse(order.as_str()).with_context(none)?;
            let found = ledger.order(&id).await?.with_context(none)?;
            print_line(serde_json::to_string_pretty(&found)?);
        }
        LedgerAction::Export => {
            for order in all_orders(&ledger).await? {
                print_line(serde_json::to_string(&order)?);
            }
        }
        LedgerAction::Audit => {
            let report = audited(&ledger, &wallet).await?;
            print_line(&report);
            if !report.problems.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_order(order: &Order) {
    let (gross, state) = (order.token_info.gross.to_string(), order.state().as_str());
    let pod = order.pod();
    let error_type = order.state.refusal().map(|refusal| refusal.code.as_str()).unwrap_or_default();
    let created_at = order.created_at.rfc3339();
    print_line(format_args!(
        "{} {created_at} {gross:>12} {state:<15} {pod:<18} {error_type}",
        order.id
    ));
}
