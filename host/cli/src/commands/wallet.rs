//! `paygress wallet`.

use crate::app::{OpenMode, open_stores};
use crate::output::{print_line, print_note};
use crate::serve::configured;
use anyhow::{Result, bail};
use clap::Subcommand;
use paygress_cashu::{CashuWallet, HealthCheck, MintStatus};
use paygress_core::error_chain;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::units::Sat;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long the restore of one mint may take: for a million derivation counters, at a mint that
/// answers in a tenth of a second.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

#[derive(Subcommand)]
pub enum WalletAction {
    /// Show the balance and the health of each mint.
    Balance,
    /// Print a token. Whoever has it has the money.
    Send {
        /// Amount in sat
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        amount: u64,
        /// URL of the mint; may be left out if there is one only
        #[arg(long)]
        mint: Option<String>,
    },
    /// Print the tokens that were sent and are not redeemed.
    Sent,
    /// Pay a bolt11 invoice, or an amount to a Lightning address.
    Pay {
        /// Invoice, or name@domain
        destination: String,
        /// Amount in sat, for an address
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        amount: Option<u64>,
        /// URL of the mint; may be left out if there is one only
        #[arg(long)]
        mint: Option<String>,
    },
    /// Restore what the mnemonic has at every mint: after the loss of a disk, for instance. A mint
    /// gets 30 minutes.
    Restore,
}

/// Runs `paygress wallet`.
///
/// # Errors
/// What failed, and what to do.
pub async fn wallet(config: Option<&Path>, action: WalletAction) -> Result<ExitCode> {
    let (_, wallet) = open_stores(&configured(config)?, OpenMode::ReadOnly).await?;
    match action {
        WalletAction::Balance => {
            for status in wallet.overview(HealthCheck::Probe).await? {
                print_status(&status);
            }
        }
        WalletAction::Send { amount, mint } => {
            let mint = select_mint(&wallet, mint).await?;
            print_line(wallet.send(&mint, Sat(amount)).await?.expose());
        }
        WalletAction::Sent => {
            for token in wallet.sent().await? {
                print_line(token.expose());
            }
        }
        WalletAction::Pay { destination, amount, mint } => {
            let mint = select_mint(&wallet, mint).await?;
            let melted = wallet.melt(&mint, &destination, amount.map(Sat)).await?;
            print_line(format_args!("paid {}, and {} in fees", melted.amount, melted.fee));
        }
        WalletAction::Restore => {
            return restore(&wallet).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One mint that does not answer, or that answers without end, does not keep the coins of the
/// others.
async fn restore(wallet: &CashuWallet) -> Result<ExitCode> {
    let mut outcome = ExitCode::SUCCESS;
    for mint in mints(wallet).await? {
        match tokio::time::timeout(RESTORE_TIMEOUT, wallet.restore(&mint)).await {
            Ok(Ok(restored)) => {
                print_line(format_args!("{mint}: {restored} restored"));
            }
            Ok(Err(error)) => {
                print_note(format_args!("{mint} not restored: {}", error_chain(&error)));
                outcome = ExitCode::FAILURE;
            }
            Err(_) => {
                print_note(format_args!(
                    "{mint} not restored within 30 minutes; what was found is kept"
                ));
                outcome = ExitCode::FAILURE;
            }
        }
    }
    Ok(outcome)
}

fn print_status(status: &MintStatus) {
    let (balance, health) = (&status.balance, &status.health);
    let mut notes = Vec::new();
    if balance.reserved > Sat(0) {
        notes.push(format!("{} in open operations", balance.reserved));
    }
    if !status.accepted {
        notes.push("no longer accepted".to_owned());
    }
    match (&health.last_error, health.latency) {
        (Some(error), _) => notes.push(error.clone()),
        (None, Some(latency)) => notes.push(format!("answers in {} ms", latency.as_millis())),
        (None, None) => {}
    }
    let available = balance.available.to_string();
    print_line(format_args!("{} {available:>14}  {}", balance.mint, notes.join("; ")));
}

async fn mints(wallet: &CashuWallet) -> Result<Vec<MintUrl>> {
    let overview = wallet.overview(HealthCheck::Cached).await?;
    Ok(overview.into_iter().map(|status| status.balance.mint).collect())
}

/// The named mint, or the only one.
async fn select_mint(wallet: &CashuWallet, named: Option<String>) -> Result<MintUrl> {
    if let Some(named) = named {
        return Ok(MintUrl::parse(named)?);
    }
    match mints(wallet).await?.as_slice() {
        [one] => Ok(one.clone()),
        several => {
            let names: Vec<&str> = several.iter().map(MintUrl::as_str).collect();
            bail!("several mints; name one with --mint: {}", names.join(", "))
        }
    }
}
