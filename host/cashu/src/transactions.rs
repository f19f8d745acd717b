//! The operator's side of the till: what there is, getting it out, getting it back.

use crate::health;
use crate::melt::{Melted, invoice_of};
use crate::mint_wallet::{OperationOutcome, WalletFault};
use crate::wallet::CashuWallet;
use crate::wallet_store::OperationState;
use cdk::lightning_invoice::Bolt11Invoice;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{MintUrl, OrderId, Sat, UnixTime};
use std::str::FromStr;
use std::time::Duration;

/// How often holdings are looked at.
const PAYOUT_EVERY: Duration = Duration::from_secs(600);
/// One in so many stays for Lightning's fee…
const PAYOUT_RESERVE: u64 = 50;
/// …and so much beside it, for the mint's.
const PAYOUT_LEFT: Sat = Sat(5);

/// Why the operator did not get it.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// No such mint.
    #[error(
        "the purse has nothing to do with {0}; its mints are those of WHITELISTED_MINTS and of earlier ones"
    )]
    MintClient(MintUrl),
    /// Not an invoice, nor an address.
    #[error("this is neither a bolt11 invoice nor a Lightning address: {0}")]
    Destination(String),
    /// An address says not how much.
    #[error("say how much with --amount: an address names no amount")]
    Amount,
    /// The mint's answer was lost. Nothing needs to be done again: it is found out at the next
    /// call, or start.
    #[error("not known yet: {0}; ask again with the same words")]
    Unknown(String),
    /// It was not done.
    #[error("{0}")]
    Failed(String),
}

impl From<WalletFault> for WalletError {
    fn from(fault: WalletFault) -> Self {
        Self::Failed(fault.to_string())
    }
}

/// A mint as the operator sees it.
#[derive(Clone, Debug)]
pub struct MintBalance {
    /// The mint.
    pub mint: MintUrl,
    /// Whether its tokens are accepted.
    pub accepted: bool,
    /// What can be spent.
    pub free: Sat,
    /// What open operations hold.
    pub held: Sat,
    /// How the mint is, as far as it was asked.
    pub health: health::State,
}

/// An operation as an audit sees it.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// What it was for: `receive ORDER`, `refund ORDER`, `sweep ORDER`, `send …`, `pay …`,
    /// `restore`.
    pub purpose: String,
    /// At which mint.
    pub mint: MintUrl,
    /// When.
    pub at: UnixTime,
    /// Whether it is still open.
    pub open: bool,
    /// What the purse got, gave away, and what the mint kept.
    pub got: Sat,
    /// What it gave away.
    pub gave: Sat,
    /// What the mint kept.
    pub fee: Sat,
    /// By how much the purse's holdings changed.
    pub delta: i64,
}

impl CashuWallet {
    /// All mints, with what the purse holds there. With `ask` each is asked how it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn overview(&self, ask: bool) -> Result<Vec<MintBalance>, WalletError> {
        let balances =
            self.balances().await.map_err(|error| WalletError::Failed(error.to_string()))?;
        let accepted = paygress_core::Wallet::mints(self);
        if ask {
            let asked = self.drawers.values().map(|wallet| wallet.mint.keysets(|_| true));
            let _ = futures::future::join_all(asked).await;
        }
        let holding = |(mint, wallet): (&MintUrl, &crate::mint_wallet::MintWallet)| {
            let (free, held) = balances
                .iter()
                .find(|(at, ..)| at == mint)
                .map_or((Sat(0), Sat(0)), |(_, free, held)| (*free, *held));
            MintBalance {
                mint: mint.clone(),
                accepted: accepted.contains(mint),
                free,
                held,
                health: wallet.mint.health.state(),
            }
        };
        let mut all: Vec<MintBalance> = self.drawers.iter().map(holding).collect();
        all.sort_by(|a, b| a.mint.cmp(&b.mint));
        Ok(all)
    }

    /// A token over `amount`; the mint's fee for making it comes on top.
    ///
    /// # Errors
    /// [`WalletError`].
    pub async fn send(&self, mint: &MintUrl, amount: Sat) -> Result<Secret, WalletError> {
        let wallet = self.drawers.get(mint).ok_or_else(|| WalletError::MintClient(mint.clone()))?;
        let purpose = format!("send {}", OrderId::random());
        let (token, _) = wallet.send(&purpose, amount.0, true).await?;
        Ok(Secret::new(token.to_string()))
    }

    /// The tokens that were made with [`CashuWallet::send`] and that nobody has redeemed: an answer
    /// may have been lost.
    ///
    /// # Errors
    /// [`WalletError`].
    pub async fn sent(&self) -> Result<Vec<Secret>, WalletError> {
        let mut tokens = Vec::new();
        for entry in
            self.entries().await?.into_iter().filter(|entry| entry.purpose.starts_with("send "))
        {
            let Some(wallet) = self.drawers.get(&entry.mint) else { continue };
            wallet.finish_latest(&entry.purpose).await?;
            let given = self
                .wallet_store
                .given(&entry.purpose)
                .await
                .map_err(|error| WalletError::Failed(error.to_string()))?;
            if !given.is_empty() && !wallet.was_redeemed(&entry.purpose).await? {
                tokens.push(Secret::new(wallet.token(given).to_string()));
            }
        }
        Ok(tokens)
    }

    /// Pays a bolt11 invoice, or `amount` to a Lightning address.
    ///
    /// # Errors
    /// [`WalletError`].
    pub async fn pay(
        &self,
        mint: &MintUrl,
        destination: &str,
        amount: Option<Sat>,
    ) -> Result<Melted, WalletError> {
        let wallet = self.drawers.get(mint).ok_or_else(|| WalletError::MintClient(mint.clone()))?;
        // An address gives a new invoice each time: what was begun is finished first, or it would
        // be paid twice.
        for open in self
            .wallet_store
            .open_with(mint, "pay ")
            .await
            .map_err(|error| WalletError::Failed(error.to_string()))?
        {
            if destination.contains('@')
                && let OperationOutcome::Unknown(why) = wallet.finish(open).await?
            {
                return Err(WalletError::Unknown(format!(
                    "an earlier payment is still under way ({why})"
                )));
            }
        }
        let invoice = match destination.contains('@') {
            true => invoice_of(destination, amount.ok_or(WalletError::Amount)?).await?,
            false => Bolt11Invoice::from_str(destination)
                .map_err(|error| WalletError::Destination(error.to_string()))?,
        };
        match wallet.pay(&invoice).await? {
            OperationOutcome::Done(operation) => {
                Ok(Melted { amount: Sat(operation.work.gave), fee: Sat(operation.work.fee) })
            }
            OperationOutcome::Unknown(why) => Err(WalletError::Unknown(why)),
            OperationOutcome::Failed(Some(fault)) => Err(WalletError::Failed(fault.to_string())),
            OperationOutcome::Failed(None) => Err(WalletError::Failed(
                "Lightning did not find a way; nothing was paid".to_owned(),
            )),
            OperationOutcome::SpentElsewhere => Err(WalletError::Failed(
                "the purse's proofs were spent elsewhere; another program has its seed".to_owned(),
            )),
        }
    }

    /// Pays out what exceeds `above` at any mint, now and again, until it is dropped.
    pub async fn keep_paying_out(&self, address: &str, above: Sat) {
        let mut tick = tokio::time::interval(PAYOUT_EVERY);
        loop {
            tick.tick().await;
            if let Err(error) = self.pay_out(address, above).await {
                tracing::warn!(%error, "the payout was put off");
            }
        }
    }

    /// Pays out what exceeds `above` at any mint, once. What Lightning and the mint may keep of it
    /// stays there.
    ///
    /// # Errors
    /// [`WalletError`] of the first mint where it failed.
    pub async fn pay_out(&self, address: &str, above: Sat) -> Result<Vec<Melted>, WalletError> {
        let (mut all, mut failed) = (Vec::new(), None);
        for holding in self.overview(false).await? {
            let Some(wallet) = self.drawers.get(&holding.mint).filter(|_| holding.free > above)
            else {
                continue;
            };
            let spendable = Sat(wallet.spendable().await?);
            let reserve = Sat(spendable.0 / PAYOUT_RESERVE).plus(PAYOUT_LEFT);
            match self.pay(&holding.mint, address, Some(spendable.minus(reserve))).await {
                Ok(paid) => {
                    tracing::info!(mint = %holding.mint, amount = %paid.amount, fee = %paid.fee, "paid out");
                    all.push(paid);
                }
                // The other mints' earnings do not wait for it.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(all), Err)
    }

    /// Asks a mint for everything that this seed has there, and takes in what is not spent.
    ///
    /// # Errors
    /// [`WalletError`].
    pub async fn restore(&self, mint: &MintUrl) -> Result<Sat, WalletError> {
        let wallet = self.drawers.get(mint).ok_or_else(|| WalletError::MintClient(mint.clone()))?;
        Ok(Sat(wallet.restore().await?))
    }

    /// Every operation that was done or is open.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn entries(&self) -> Result<Vec<Transaction>, WalletError> {
        let operations = self
            .wallet_store
            .operations()
            .await
            .map_err(|error| WalletError::Failed(error.to_string()))?;
        let entry = |operation: crate::wallet_store::Operation| Transaction {
            purpose: operation.purpose,
            mint: operation.mint,
            at: operation.at,
            open: operation.state == OperationState::Open,
            got: Sat(operation.work.got),
            gave: Sat(operation.work.gave),
            fee: Sat(operation.work.fee),
            delta: operation.delta,
        };
        Ok(operations.into_iter().map(entry).collect())
    }
}
