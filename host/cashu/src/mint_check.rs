//! What a mint offers of what the wallet needs, for an operator who wants to know. Nothing of it is
//! stored, and no money moves.

use crate::client::MintClient;
use crate::error::{BoxError, MintError, ResponseError, UnavailableReason};
use crate::http::{JsonClient, ResponseLimits};
use crate::keyset::longest_active;
use cdk::mint_url::MintUrl;
use hyper::Method;
use hyper::body::Bytes;
use paygress_core::model::ids;
use paygress_core::model::units::{ClockOffset, Sat, UnixTime};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::str::FromStr;

/// A specification of Cashu, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nut(pub u8);

/// Without these a payment whose answer was lost has no known end, and no restore finds anything.
const NEEDED: [Nut; 2] = [Nut(7), Nut(9)];
/// Tokens that are locked to the service; proofs that tokens are the mint's, offline.
const USEFUL: [Nut; 2] = [Nut(11), Nut(12)];
/// Paying by Lightning.
const MELT: &str = "5";

/// What a mint offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintOffer {
    /// The fee for each proof that is spent, in thousandths of a sat.
    pub input_fee_ppk: u64,
    /// What the wallet needs and the mint does not announce.
    pub missing: Vec<Nut>,
    /// What the service would use besides.
    pub unused: Vec<Nut>,
    /// What may be paid from it over Lightning; none: nothing.
    pub melt: Option<MeltLimits>,
    pub clock: Option<ClockOffset>,
}

/// The least and the most of one payment, where there are limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeltLimits {
    pub least: Option<Sat>,
    pub most: Option<Sat>,
}

/// What a mint says of itself (NUT-06), as far as it is read here.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    nuts: BTreeMap<String, Value>,
}

impl Info {
    /// Mints announce each of them in a form of its own.
    fn supports(&self, nut: Nut) -> bool {
        self.nuts.get(&nut.0.to_string()).and_then(|it| it.get("supported")?.as_bool())
            == Some(true)
    }

    fn lacks(&self, nuts: &[Nut]) -> Vec<Nut> {
        nuts.iter().copied().filter(|nut| !self.supports(*nut)).collect()
    }

    fn melt(&self) -> Option<MeltLimits> {
        let melt = self.nuts.get(MELT)?;
        if melt.get("disabled").and_then(Value::as_bool) == Some(true) {
            return None;
        }
        let is = |method: &Value, key: &str, text: &str| {
            method.get(key).and_then(Value::as_str) == Some(text)
        };
        let mut methods = melt.get("methods")?.as_array()?.iter();
        let ours =
            methods.find(|method| is(method, "method", "bolt11") && is(method, "unit", "sat"))?;
        let limit = |key: &str| ours.get(key).and_then(Value::as_u64).map(Sat);
        Some(MeltLimits { least: limit("min_amount"), most: limit("max_amount") })
    }
}

/// Requests keysets, keys and what the mint says of itself.
///
/// # Errors
/// [`MintError`]: it is unavailable, or has no keys in sat that can be used.
pub async fn check_mint(mint: &ids::MintUrl) -> Result<MintOffer, MintError> {
    let invalid = |error: BoxError| MintError::Unavailable(UnavailableReason::Url(error));
    let url = MintUrl::from_str(mint.as_str()).map_err(|error| invalid(Box::new(error)))?;
    let info_url = url.join_paths(&["v1", "info"]).map_err(|error| invalid(Box::new(error)))?;
    let http = JsonClient::open().await?;
    let client = MintClient::new(url, http.clone());
    let keysets = client.keysets(|_| false).await?;
    let active = longest_active(keysets.iter(), UnixTime::now())
        .ok_or(MintError::InvalidResponse(ResponseError::NoActiveKeyset))?;
    client.keys(active.id).await?;
    let (method, limits) = (Method::GET, ResponseLimits::READ);
    let answer = http.exchange(None, method, info_url.as_str(), Bytes::new(), limits).await?;
    let clock = answer.clock;
    let info: Info = answer.decode(&client.share).await?;
    Ok(MintOffer {
        input_fee_ppk: active.input_fee_ppk,
        missing: info.lacks(&NEEDED),
        unused: info.lacks(&USEFUL),
        melt: info.melt(),
        clock,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn info(nuts: &Value) -> Info {
        serde_json::from_value(json!({"name": "a mint", "nuts": nuts})).unwrap()
    }

    #[test]
    fn what_a_mint_does_not_announce_is_missing() {
        let yes = json!({"supported": true});
        let all = info(&json!({"7": yes, "9": yes, "11": yes, "12": yes}));
        assert_eq!((all.lacks(&NEEDED), all.lacks(&USEFUL)), (vec![], vec![]));
        let some = info(&json!({"7": {"supported": false}, "9": [], "12": yes}));
        assert_eq!(some.lacks(&NEEDED), NEEDED);
        assert_eq!(some.lacks(&USEFUL), [Nut(11)]);
        let none: Info = serde_json::from_value(json!({})).unwrap();
        assert_eq!(none.lacks(&NEEDED), NEEDED);
    }

    #[test]
    fn payments_over_lightning_have_limits_or_none() {
        let sat = json!({"method": "bolt11", "unit": "sat", "min_amount": 1, "max_amount": 9});
        let limits = MeltLimits { least: Some(Sat(1)), most: Some(Sat(9)) };
        for (melt, expected) in [
            (json!({"methods": [{"method": "bolt11", "unit": "usd"}, sat]}), Some(limits)),
            (json!({"methods": [sat], "disabled": true}), None),
            (json!({"methods": []}), None),
            (json!("all"), None),
        ] {
            assert_eq!(info(&json!({"5": melt})).melt(), expected, "{melt}");
        }
        assert_eq!(info(&json!({})).melt(), None);
    }
}
