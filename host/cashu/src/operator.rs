//! The operator's commands: getting money out, and getting it back from the mnemonic.

use crate::error::{MintWalletError, OperatorError};
use crate::lightning_address::{invoice_of, is_lightning_address};
use crate::melt::Melted;
use crate::mint_wallet::MintWallet;
use crate::operation::OperationOutcome;
use crate::purpose::{Purpose, SendId};
use crate::send::FeeMode;
use crate::wallet::{CashuWallet, HealthCheck};
use cdk::lightning_invoice::Bolt11Invoice;
use paygress_core::backend::store::RefundStore;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use std::str::FromStr;
use std::time::Duration;

const PAYOUT_INTERVAL: Duration = Duration::from_secs(600);
/// One in so many sat is not paid out, for Lightning's fee…
const PAYOUT_RESERVE_DIVISOR: u64 = 50;
/// …and so many more, for the mint's.
const PAYOUT_MIN_RESERVE: Sat = Sat(5);
/// A payout is one of so many parts of the threshold at least: each has its fees.
const PAYOUT_PARTS: u64 = 10;

type Result<T> = std::result::Result<T, OperatorError>;

impl CashuWallet {
    fn operators_wallet(&self, mint: &MintUrl) -> Result<&MintWallet> {
        self.wallets.get(mint).ok_or_else(|| OperatorError::UnknownMint(mint.clone()))
    }

    /// Makes a token over `amount`. The mint's fee for making it comes on top.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn send(&self, mint: &MintUrl, amount: Sat) -> Result<Secret> {
        let wallet = self.operators_wallet(mint)?;
        let purpose = Purpose::Send { id: SendId::random() };
        let sent = wallet.send(&purpose, amount.0, FeeMode::OnTop { reserve: 0 }).await?;
        Ok(Secret::new(sent.token.to_string()))
    }

    /// The tokens of [`CashuWallet::send`] that are not redeemed: its output may have been lost.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn sent(&self) -> Result<Vec<Secret>> {
        let mut tokens = Vec::new();
        for transaction in self.transactions().await? {
            let Purpose::Send { .. } = transaction.purpose else { continue };
            let Some(wallet) = self.wallets.get(&transaction.mint) else { continue };
            wallet.resume_latest(&transaction.purpose).await?;
            let proofs = self.store.sent(&transaction.purpose).await?;
            if !proofs.is_empty() && !wallet.is_redeemed(&transaction.purpose).await? {
                tokens.push(Secret::new(wallet.token(proofs).to_string()));
            }
        }
        Ok(tokens)
    }

    /// Pays a bolt11 invoice, or `amount` to a Lightning address.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn melt(
        &self,
        mint: &MintUrl,
        destination: &str,
        amount: Option<Sat>,
    ) -> Result<Melted> {
        self.melt_leaving(Sat(0), mint, destination, amount).await
    }

    /// As [`CashuWallet::melt`], if `kept` is left at the mint.
    async fn melt_leaving(
        &self,
        kept: Sat,
        mint: &MintUrl,
        destination: &str,
        amount: Option<Sat>,
    ) -> Result<Melted> {
        let wallet = self.operators_wallet(mint)?;
        let invoice = if is_lightning_address(destination) {
            // An address gives a new invoice each time: without this, a payment whose response was
            // lost would be made twice.
            self.require_no_open_payment(wallet).await?;
            invoice_of(&self.http, destination, amount.ok_or(OperatorError::Amount)?).await?
        } else {
            Bolt11Invoice::from_str(destination).map_err(OperatorError::Destination)?
        };
        match wallet.melt(&invoice, kept.0).await? {
            OperationOutcome::Done(operation) => {
                Ok(Melted { amount: Sat(operation.data.sent), fee: Sat(operation.data.fee) })
            }
            OperationOutcome::Unknown(reason) => Err(OperatorError::Unresolved(reason)),
            OperationOutcome::Failed(Some(error)) => Err(MintWalletError::from(error).into()),
            OperationOutcome::Failed(None) => Err(OperatorError::NoRoute),
            OperationOutcome::SpentElsewhere => Err(MintWalletError::SpentElsewhere.into()),
        }
    }

    async fn require_no_open_payment(&self, wallet: &MintWallet) -> Result<()> {
        for operation in self.store.open_operations(&wallet.mint).await? {
            let Purpose::Melt { .. } = operation.purpose else { continue };
            if let OperationOutcome::Unknown(reason) = wallet.resume(operation).await? {
                return Err(OperatorError::EarlierPayment(reason));
            }
        }
        Ok(())
    }

    /// As [`CashuWallet::pay_out`], periodically, until it is dropped.
    pub async fn run_payout_loop(&self, ledger: &dyn RefundStore, address: &str, above: Sat) {
        let mut tick = tokio::time::interval(PAYOUT_INTERVAL);
        loop {
            tick.tick().await;
            if let Err(error) = self.pay_out(ledger, address, above).await {
                tracing::warn!(%error, "payout failed; it is tried again");
            }
        }
    }

    /// Pays out what exceeds `above`, and what may have to go back to customers, at any mint, less a
    /// reserve for fees.
    ///
    /// # Errors
    /// [`OperatorError`] of the last mint where it failed.
    pub async fn pay_out(
        &self,
        ledger: &dyn RefundStore,
        address: &str,
        above: Sat,
    ) -> Result<Vec<Melted>> {
        let (mut payments, mut failure) = (Vec::new(), None);
        for status in self.overview(HealthCheck::Cached).await? {
            let balance = status.balance;
            if balance.available <= above {
                continue;
            }
            match self.pay_out_at(&balance.mint, ledger, address, above).await {
                Ok(paid) => payments.extend(paid),
                // Other mints' payouts do not wait for it.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(payments), Err)
    }

    async fn pay_out_at(
        &self,
        mint: &MintUrl,
        ledger: &dyn RefundStore,
        address: &str,
        above: Sat,
    ) -> Result<Option<Melted>> {
        // Before the balance: what is refunded between the two is then kept once more, not paid out.
        let kept = above.max(ledger.owed(mint, None).await?);
        let payable = Sat(self.operators_wallet(mint)?.max_spendable(kept.0).await?);
        let reserve = Sat(payable.0 / PAYOUT_RESERVE_DIVISOR).plus(PAYOUT_MIN_RESERVE);
        let amount = payable.minus(reserve);
        if amount < Sat(above.0 / PAYOUT_PARTS).max(Sat(1)) {
            return Ok(None);
        }
        let paid = self.melt_leaving(kept, mint, address, Some(amount)).await?;
        tracing::info!(%mint, amount = %paid.amount, fee = %paid.fee, "paid out");
        Ok(Some(paid))
    }

    /// Adds the seed's unspent proofs at a mint that the wallet does not have, and removes those that
    /// are spent: its store may be a copy of before. What is found is stored as it is found.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn restore(&self, mint: &MintUrl) -> Result<Sat> {
        let wallet = self.operators_wallet(mint)?;
        self.claim_keysets().await?;
        let restored = wallet.restore().await?;
        match restored.conflict {
            None => Ok(Sat(restored.added)),
            Some(conflict) => {
                Err(OperatorError::PartlyRestored { restored: Sat(restored.added), conflict })
            }
        }
    }
}
