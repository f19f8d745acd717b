//! Invoices of Lightning addresses (LUD-16).

use crate::error::LightningAddressError;
use crate::http::JsonClient;
use cdk::lightning_invoice::Bolt11Invoice;
use paygress_core::model::units::Sat;
use serde::Deserialize;
use std::str::FromStr;

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

pub(crate) fn is_lightning_address(destination: &str) -> bool {
    destination.contains('@')
}

/// An invoice over `amount` of the address `name@domain`.
pub(crate) async fn invoice_of(
    client: &JsonClient,
    address: &str,
    amount: Sat,
) -> Result<Bolt11Invoice, LightningAddressError> {
    let (name, domain) = address.split_once('@').ok_or(LightningAddressError::Malformed)?;
    if !is_made_of(name, "-_.+") || !is_made_of(domain, "-.:") {
        return Err(LightningAddressError::Malformed);
    }
    // For tests: this machine has no certificate.
    let scheme = if domain.split(':').next() == Some("127.0.0.1") { "http" } else { "https" };
    let url = format!("{scheme}://{domain}/.well-known/lnurlp/{name}");
    let request: PayRequest = client.get(&url).await?;
    let msat = amount.0.saturating_mul(1_000);
    let (min, max) = (request.min_sendable, request.max_sendable);
    if !(min..=max).contains(&msat) {
        return Err(LightningAddressError::AmountOutOfRange { min, max });
    }
    if !request.callback.starts_with(&format!("{scheme}://")) {
        return Err(LightningAddressError::InsecureCallback);
    }
    let separator = if request.callback.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}amount={msat}", request.callback);
    let response: Invoice = client.get(&url).await?;
    let invoice = Bolt11Invoice::from_str(&response.pr).map_err(LightningAddressError::Invoice)?;
    if invoice.amount_milli_satoshis() != Some(msat) {
        return Err(LightningAddressError::WrongAmount);
    }
    Ok(invoice)
}

fn is_made_of(text: &str, punctuation: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || punctuation.contains(c);
    !text.is_empty() && text.chars().all(is_allowed)
}
