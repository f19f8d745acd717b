//! Lightning: paying an invoice with what the purse holds (NUT-05, NUT-08), and finding the invoice
//! of an address.

use crate::client::MintError;
use crate::mint_wallet::{MintWallet, OperationOutcome, Selection, WalletFault, crypto};
use crate::wallet_store::{Operation, OperationData, total};
use cdk::lightning_invoice::Bolt11Invoice;
use cdk::nuts::{
    CurrencyUnit, MeltQuoteBolt11Request, MeltQuoteBolt11Response, MeltQuoteState, MeltRequest,
};
use paygress_core::model::units::{Sat, UnixTime};
use serde::Deserialize;
use std::str::FromStr;

/// What a payment came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Melted {
    /// What the receiver got.
    pub amount: Sat,
    /// What Lightning and the mint kept.
    pub fee: Sat,
}

impl MintWallet {
    /// Pays an invoice. The same invoice is paid once.
    pub(crate) async fn pay(
        &self,
        invoice: &Bolt11Invoice,
    ) -> Result<OperationOutcome, WalletFault> {
        self.ready().await?;
        let purpose = format!("pay {}", invoice.payment_hash());
        let request = MeltQuoteBolt11Request {
            request: invoice.clone(),
            unit: CurrencyUnit::Sat,
            options: None,
        };
        let quote = self.mint.melt_quote(&request).await?;
        let needed = quote.amount.to_u64().saturating_add(quote.fee_reserve.to_u64());
        let (inputs, fee) = match self.choose(needed, true).await? {
            Selection::Swap { inputs, fee } => (inputs, fee),
            // The mint's fee for spending them comes on top: a little more is needed.
            Selection::Exact(proofs) => match self.fee(&proofs).await? {
                0 => (proofs, 0),
                fee => match self.choose(needed.saturating_add(fee), true).await? {
                    Selection::Swap { inputs, fee } => (inputs, fee),
                    Selection::Exact(proofs) => (proofs, fee),
                },
            },
        };
        let (keyset, _) = self.signing().await?;
        // Blank outputs for what may come back: as many as its binary digits (NUT-08).
        let change = total(&inputs).saturating_sub(quote.amount.to_u64()).saturating_sub(fee);
        let blanks = usize::try_from(u64::BITS.saturating_sub(change.leading_zeros())).unwrap_or(0);
        let work = OperationData {
            inputs: inputs.clone(),
            own: true,
            keyset: Some(keyset.id),
            amounts: vec![0; blanks],
            quote: Some(quote.quote),
            ..OperationData::default()
        };
        match self.begin(Operation::new(&purpose, &self.name, work), inputs).await? {
            Some(operation) => self.perform_payment(&operation).await,
            None => self.finish_latest(&purpose).await,
        }
    }

    async fn perform_payment(
        &self,
        operation: &Operation,
    ) -> Result<OperationOutcome, WalletFault> {
        let Some(quote) = operation.work.quote.clone() else {
            return Err(WalletFault::Crypto("a payment without a quote".to_owned()));
        };
        let outputs = self.outputs(&operation.work)?;
        let request = MeltRequest::new(
            quote,
            operation.work.inputs.clone(),
            Some(outputs.blinded_messages()),
        );
        match self.mint.melt(&request).await {
            Ok(answer) => self.book_payment(operation, answer, false).await,
            Err(fault) => {
                tracing::warn!(mint = %self.name, %fault, "a payment's answer is not a yes");
                // Only this process has asked, and it was told no.
                let refused = matches!(fault, MintError::Rejected { .. });
                self.ask_payment(operation, refused).await
            }
        }
    }

    /// Finds out how a payment ended.
    pub(crate) async fn settle_payment(
        &self,
        operation: &Operation,
    ) -> Result<OperationOutcome, WalletFault> {
        self.ask_payment(operation, false).await
    }

    async fn ask_payment(
        &self,
        operation: &Operation,
        refused: bool,
    ) -> Result<OperationOutcome, WalletFault> {
        let quote = operation.work.quote.as_deref().unwrap_or_default();
        match self.mint.melt_quote_state(quote).await {
            Ok(answer) => self.book_payment(operation, answer, refused).await,
            Err(fault) => Ok(OperationOutcome::Unknown(fault.to_string())),
        }
    }

    async fn book_payment(
        &self,
        operation: &Operation,
        answer: MeltQuoteBolt11Response<String>,
        refused: bool,
    ) -> Result<OperationOutcome, WalletFault> {
        // Until then the request of another process may still be on its way.
        let over =
            refused || answer.expiry < UnixTime::now().0 || answer.state == MeltQuoteState::Failed;
        match answer.state {
            MeltQuoteState::Melted => {
                let mut outputs = self.outputs(&operation.work)?;
                let change = answer.change.unwrap_or_default();
                outputs.secrets.truncate(change.len());
                let got = self.unblind(&outputs, change).await?;
                let paid = answer.amount.to_u64();
                let fee =
                    total(&operation.work.inputs).saturating_sub(paid).saturating_sub(total(&got));
                Ok(OperationOutcome::Done(Box::new(
                    self.wallet_store.done(operation, got, fee, paid).await?,
                )))
            }
            MeltQuoteState::Pending => {
                Ok(OperationOutcome::Unknown("the payment is under way".to_owned()))
            }
            // Not paid, and the inputs are free: it failed. With the inputs pending it is still
            // under way.
            MeltQuoteState::Unpaid | MeltQuoteState::Failed => match self.are_free(operation).await
            {
                Ok(Some(spent)) if over => {
                    self.wallet_store.failed(operation, &spent).await?;
                    Ok(OperationOutcome::Failed(None))
                }
                Ok(_) => Ok(OperationOutcome::Unknown(
                    "the payment is under way, or its quote must expire first".to_owned(),
                )),
                Err(fault) => Ok(OperationOutcome::Unknown(fault.to_string())),
            },
            MeltQuoteState::Unknown => {
                Ok(OperationOutcome::Unknown("the mint does not know yet".to_owned()))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PayRequest {
    callback: String,
    min_sendable: u64,
    max_sendable: u64,
}

#[derive(Deserialize)]
struct Invoice {
    pr: String,
}

/// The invoice over `amount` of a Lightning address (LUD-16).
pub(crate) async fn invoice_of(address: &str, amount: Sat) -> Result<Bolt11Invoice, WalletFault> {
    let malformed = || WalletFault::Crypto("not a Lightning address; write name@domain".to_owned());
    let (name, domain) = address.split_once('@').ok_or_else(malformed)?;
    let clean = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if !clean(name, "-_.+") || !clean(domain, "-.:") {
        return Err(malformed());
    }
    // The name of this machine, for tests, has no certificate.
    let scheme = if domain.split(':').next() == Some("127.0.0.1") { "http" } else { "https" };
    let web = crate::client::HttpClient::new()?;
    let offer: PayRequest =
        web.get(&format!("{scheme}://{domain}/.well-known/lnurlp/{name}")).await?;
    let msat = amount.0.saturating_mul(1_000);
    if !(offer.min_sendable..=offer.max_sendable).contains(&msat) {
        return Err(WalletFault::Crypto(format!(
            "{address} takes {} to {} msat",
            offer.min_sendable, offer.max_sendable
        )));
    }
    if !offer.callback.starts_with(&format!("{scheme}://")) {
        return Err(
            MintError::InvalidResponse("the address leads to an unsafe place".to_owned()).into()
        );
    }
    let joint = if offer.callback.contains('?') { '&' } else { '?' };
    let answer: Invoice = web.get(&format!("{}{joint}amount={msat}", offer.callback)).await?;
    let invoice = Bolt11Invoice::from_str(&answer.pr).map_err(crypto)?;
    if invoice.amount_milli_satoshis() != Some(msat) {
        return Err(MintError::InvalidResponse(
            "the invoice is over another amount than was asked for".to_owned(),
        )
        .into());
    }
    Ok(invoice)
}
