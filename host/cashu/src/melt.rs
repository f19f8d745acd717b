//! Paying Lightning invoices (NUT-05, NUT-08).

use crate::error::{MintError, MintWalletError, Unresolved, codes};
use crate::mint_wallet::{MintWallet, Result, leave_open};
use crate::operation::{Operation, OperationData, OperationOutcome, total};
use crate::purpose::{PaymentHash, Purpose};
use crate::send::{FeeMode, Selection, select_anew};
use cdk::lightning_invoice::Bolt11Invoice;
use cdk::nuts::{
    CurrencyUnit, MeltQuoteBolt11Request, MeltQuoteBolt11Response, MeltQuoteState, MeltRequest,
    Proofs, State,
};
use paygress_core::model::units::{Sat, UnixTime};

/// A payment that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Melted {
    /// What the payee received.
    pub amount: Sat,
    /// What Lightning and the mint kept.
    pub fee: Sat,
}

/// The mint's response to the payment request, as this process has seen it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Response {
    Rejected,
    /// Lost, or the request is another process's and may still be on its way.
    Unknown,
}

impl MintWallet {
    /// Pays an invoice, once however often it is called, if `kept` is left after it.
    pub(crate) async fn melt(
        &self,
        invoice: &Bolt11Invoice,
        kept: u64,
    ) -> Result<OperationOutcome> {
        self.ensure_restored().await?;
        let outcome = self.quote_and_melt(invoice, kept).await?;
        match self.prepare_retry(&outcome).await? {
            true => self.quote_and_melt(invoice, kept).await,
            false => Ok(outcome),
        }
    }

    async fn quote_and_melt(&self, invoice: &Bolt11Invoice, kept: u64) -> Result<OperationOutcome> {
        let purpose = Purpose::Melt { payment_hash: PaymentHash::of(invoice) };
        let request = MeltQuoteBolt11Request {
            request: invoice.clone(),
            unit: CurrencyUnit::Sat,
            options: None,
        };
        let quote = self.client.melt_quote(&request).await?;
        select_anew(|| self.try_melt(&purpose, &quote, kept)).await
    }

    async fn try_melt(
        &self,
        purpose: &Purpose,
        quote: &MeltQuoteBolt11Response<String>,
        kept: u64,
    ) -> Result<OperationOutcome> {
        let needed = quote.amount.to_u64().saturating_add(quote.fee_reserve.to_u64());
        let (inputs, fee) = self.select_inputs(needed).await?;
        if kept > 0 && self.max_spendable(kept).await? < needed.saturating_add(fee) {
            return Err(MintWalletError::NotSpared);
        }
        let keyset = self.active_keyset().await?;
        // Blank outputs for the change: as many as it has binary digits (NUT-08).
        let change = total(&inputs).saturating_sub(quote.amount.to_u64()).saturating_sub(fee);
        let blanks = usize::try_from(u64::BITS.saturating_sub(change.leading_zeros())).unwrap_or(0);
        let data = OperationData {
            inputs: inputs.clone(),
            has_own_inputs: true,
            keyset: Some(keyset.info.id),
            amounts: vec![0; blanks],
            quote: Some(quote.quote.clone()),
            ..OperationData::default()
        };
        let operation = Operation::new(purpose.clone(), &self.mint, data);
        match self.begin(operation, inputs).await? {
            Some(operation) => leave_open(self.perform_payment(&operation).await),
            None => self.resume_latest(purpose).await,
        }
    }

    /// Proofs over `needed` and the mint's fee for spending them, and that fee.
    async fn select_inputs(&self, needed: u64) -> Result<(Proofs, u64)> {
        let proofs = match self.select_proofs(needed, FeeMode::OnTop { reserve: 0 }).await? {
            Selection::Swap { inputs, fee } => return Ok((inputs, fee)),
            Selection::Exact(proofs) => proofs,
        };
        match self.fee(&proofs).await? {
            0 => Ok((proofs, 0)),
            fee => match self
                .select_proofs(needed.saturating_add(fee), FeeMode::OnTop { reserve: 0 })
                .await?
            {
                Selection::Swap { inputs, fee } => Ok((inputs, fee)),
                Selection::Exact(proofs) => Ok((proofs, fee)),
            },
        }
    }

    async fn perform_payment(&self, operation: &Operation) -> Result<OperationOutcome> {
        let quote = operation.data.quote.clone().ok_or(MintWalletError::NoQuote)?;
        let outputs = self.outputs(&operation.data).await?;
        let inputs = operation.data.inputs.clone();
        let request = MeltRequest::new(quote, inputs, Some(outputs.blinded_messages()));
        match self.client.melt(&request).await {
            Ok(quote) => self.record_payment(operation, quote, Response::Unknown).await,
            Err(error) => {
                tracing::warn!(mint = %self.mint, %error, "payment was not confirmed");
                let response = match error {
                    MintError::Rejected { .. } => Response::Rejected,
                    _ => Response::Unknown,
                };
                match (self.resolve_payment(operation, response).await?, error) {
                    // It may be paid with other outputs: see `prepare_retry`.
                    (OperationOutcome::Failed(None), MintError::Rejected { code, detail })
                        if codes::is_about_outputs(code) =>
                    {
                        Ok(OperationOutcome::Failed(Some(MintError::Rejected { code, detail })))
                    }
                    (outcome, _) => Ok(outcome),
                }
            }
        }
    }

    pub(crate) async fn resume_payment(&self, operation: &Operation) -> Result<OperationOutcome> {
        leave_open(self.resolve_payment(operation, Response::Unknown).await)
    }

    /// Finds out from the quote how a payment ended.
    async fn resolve_payment(
        &self,
        operation: &Operation,
        response: Response,
    ) -> Result<OperationOutcome> {
        let quote = operation.data.quote.as_deref().ok_or(MintWalletError::NoQuote)?;
        match self.client.melt_quote_state(quote).await {
            Ok(quote) => self.record_payment(operation, quote, response).await,
            Err(error) => Ok(OperationOutcome::Unknown(error.into())),
        }
    }

    async fn record_payment(
        &self,
        operation: &Operation,
        quote: MeltQuoteBolt11Response<String>,
        response: Response,
    ) -> Result<OperationOutcome> {
        let unknown = |reason| Ok(OperationOutcome::Unknown(reason));
        match quote.state {
            MeltQuoteState::Paid => self.complete_payment(operation, quote).await,
            MeltQuoteState::Pending => unknown(Unresolved::PaymentPending),
            MeltQuoteState::Unknown => unknown(Unresolved::PaymentUnknown),
            MeltQuoteState::Unpaid | MeltQuoteState::Failed => {
                // Otherwise another process's request may still be on its way.
                let is_over = response == Response::Rejected
                    || quote.expiry < UnixTime::now().0
                    || quote.state == MeltQuoteState::Failed;
                match self.states(&operation.data.inputs).await {
                    Ok(states) if is_over && are_final(&states) => {
                        self.fail(operation, &states, OperationOutcome::Failed(None)).await
                    }
                    Ok(_) => unknown(Unresolved::QuoteOpen),
                    Err(error) => unknown(Unresolved::Check(Box::new(error))),
                }
            }
        }
    }

    async fn complete_payment(
        &self,
        operation: &Operation,
        quote: MeltQuoteBolt11Response<String>,
    ) -> Result<OperationOutcome> {
        let mut outputs = self.outputs(&operation.data).await?;
        let signatures = quote.change.unwrap_or_default();
        outputs.secrets.truncate(signatures.len());
        let change = self.unblind(outputs, signatures).await?;
        let paid = quote.amount.to_u64();
        let fee = total(&operation.data.inputs).saturating_sub(paid).saturating_sub(total(&change));
        let operation = self.store.complete(operation, change, fee, paid).await?;
        Ok(OperationOutcome::Done(Box::new(operation)))
    }
}

/// Inputs that are pending belong to a payment in progress.
fn are_final(states: &[State]) -> bool {
    states.iter().all(|state| matches!(state, State::Unspent | State::Spent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::OperationState;
    use crate::testing::{FakeMint, OneKey};
    use serde_json::json;

    /// A payment that another process has found to be done, while this one found its quote unpaid.
    #[tokio::test]
    async fn a_payment_that_was_done_after_all_is_not_reported_as_failed() {
        let mint = FakeMint::start(|path, body| match path {
            "/v1/melt/quote/bolt11/q" => {
                let quote = json!({
                    "quote": "q", "amount": 1, "fee_reserve": 0, "state": "UNPAID", "expiry": 0
                });
                ("200 OK", quote.to_string())
            }
            _ => OneKey::unspent(body),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = mint.wallet(directory.path()).await;
        let purpose: Purpose = format!("pay {}", "ab".repeat(32)).parse().unwrap();
        let data = OperationData {
            has_own_inputs: true,
            quote: Some("q".to_owned()),
            ..OperationData::default()
        };
        let operation = Operation::new(purpose.clone(), &wallet.mint, data);
        let begun = wallet.begin(operation, Vec::new()).await.unwrap().unwrap();
        wallet.store.complete(&begun, Vec::new(), 1, 1).await.unwrap();
        let done = match wallet.resume_payment(&begun).await {
            Ok(OperationOutcome::Done(done)) => done,
            outcome => panic!("{outcome:?}"),
        };
        assert_eq!((done.data.sent, done.data.fee), (1, 1));
        let latest = wallet.store.latest(&purpose).await.unwrap().unwrap();
        assert_eq!(latest.state, OperationState::Done);
    }
}
