//! Invoices of Lightning addresses (LUD-16).

use crate::error::LightningAddressError;
use crate::http::JsonClient;
use cdk::lightning_invoice::Bolt11Invoice;
use hyper::Uri;
use paygress_core::model::units::Sat;
use paygress_http_client::{RedirectError, check_destination};
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

/// Whether it is written as `name@domain`, with what these may have.
#[must_use]
pub fn is_valid_lightning_address(address: &str) -> bool {
    parts(address).is_some()
}

/// Name and domain.
fn parts(address: &str) -> Option<(&str, &str)> {
    let (name, domain) = address.split_once('@')?;
    (is_made_of(name, "-_.+") && is_made_of(domain, "-.:")).then_some((name, domain))
}

/// An invoice over `amount` of the address `name@domain`.
pub(crate) async fn invoice_of(
    client: &JsonClient,
    address: &str,
    amount: Sat,
) -> Result<Bolt11Invoice, LightningAddressError> {
    let (name, domain) = parts(address).ok_or(LightningAddressError::Malformed)?;
    // For tests: this machine has no certificate.
    let scheme = if domain.split(':').next() == Some("127.0.0.1") { "http" } else { "https" };
    let url = format!("{scheme}://{domain}/.well-known/lnurlp/{name}");
    let (request, server): (PayRequest, _) = client.get(None, &url).await?;
    let msat = amount.0.saturating_mul(1_000);
    let (min, max) = (request.min_sendable, request.max_sendable);
    if !(min..=max).contains(&msat) {
        return Err(LightningAddressError::AmountOutOfRange { min, max });
    }
    let url = callback_url(&url, &request.callback, msat)?;
    let (response, _): (Invoice, _) = client.get(Some(&server), &url).await?;
    let invoice = Bolt11Invoice::from_str(&response.pr).map_err(LightningAddressError::Invoice)?;
    if invoice.amount_milli_satoshis() != Some(msat) {
        return Err(LightningAddressError::WrongAmount);
    }
    Ok(invoice)
}

/// Where the invoice is requested. A server leads no further than a redirect of it could.
fn callback_url(from: &str, callback: &str, msat: u64) -> Result<String, LightningAddressError> {
    let parse = |url: &str| url.parse::<Uri>().map_err(|_| RedirectError::InvalidLocation);
    let checked = parse(from).and_then(|from| {
        let to = parse(callback)?;
        check_destination(&from, &to)?;
        Ok(to)
    });
    let to = checked.map_err(LightningAddressError::InsecureCallback)?;
    let separator = if to.query().is_some() { '&' } else { '?' };
    Ok(format!("{to}{separator}amount={msat}"))
}

fn is_made_of(text: &str, punctuation: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || punctuation.contains(c);
    !text.is_empty() && text.chars().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_leads_no_further_than_a_redirect() {
        let public = "https://pay.example/.well-known/lnurlp/a";
        let local = "http://127.0.0.1:1/.well-known/lnurlp/a";
        for (from, callback, expected) in [
            (public, "https://pay.example/cb", Ok("https://pay.example/cb?amount=5000")),
            (public, "https://b.example/cb?k=1", Ok("https://b.example/cb?k=1&amount=5000")),
            (local, "http://127.0.0.1:2/pay", Ok("http://127.0.0.1:2/pay?amount=5000")),
            (public, "http://pay.example/cb", Err(RedirectError::NotConfidential)),
            (public, "https://10.0.0.1/cb", Err(RedirectError::PrivateAddress)),
            (public, "https://localhost/cb", Err(RedirectError::PrivateAddress)),
            (public, "https://[::1]/cb", Err(RedirectError::PrivateAddress)),
            (public, "https://127.1/cb", Err(RedirectError::InvalidLocation)),
            (public, "file:///etc/passwd", Err(RedirectError::InvalidLocation)),
            (public, "/cb", Err(RedirectError::InvalidLocation)),
        ] {
            let url = callback_url(from, callback, 5_000);
            let found = match &url {
                Ok(url) => Ok(url.as_str()),
                Err(LightningAddressError::InsecureCallback(reason)) => Err(*reason),
                Err(error) => panic!("{callback}: {error}"),
            };
            assert_eq!(found, expected, "{callback}");
        }
    }
}
