//! The accepted mints.

use super::host::{ClockOf, clock};
use super::report::{Area, Check, Group};
use crate::config::Config;
use paygress_cashu::{MeltLimits, MintOffer, Nut, check_mint};
use paygress_core::error_chain;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::units::Sat;

pub(super) const MINT: Area = Area::new(Group::Mints, "mint");

pub(super) async fn checks(config: &Config, mint: &MintUrl) -> Vec<Check> {
    match check_mint(mint).await {
        Ok(offer) => {
            let offset = offer.clock.map(|ahead| clock(ClockOf::Mint(mint.as_str()), ahead));
            let mut checks = offered(mint, &offer);
            checks.extend(payout(config, mint, &offer));
            checks.extend(offset);
            checks
        }
        Err(error) => vec![MINT.fail(
            format!("{mint}: {}", error_chain(&error)),
            "its tokens are refused meanwhile: check the URL, ask the mint's operator, or remove it from WHITELISTED_MINTS",
        )],
    }
}

fn list(nuts: &[Nut]) -> String {
    nuts.iter().map(|nut| format!("NUT-{:02}", nut.0)).collect::<Vec<_>>().join(", ")
}

fn bound(limit: Option<Sat>, none: &str) -> String {
    limit.map_or_else(|| none.to_owned(), |limit| limit.0.to_string())
}

fn offered(mint: &MintUrl, offer: &MintOffer) -> Vec<Check> {
    let mut checks = Vec::new();
    if offer.missing.is_empty() {
        let lightning = match offer.melt {
            Some(MeltLimits { least, most }) => {
                format!("pays {} to {} sat by Lightning", bound(least, "0"), bound(most, "any"))
            }
            None => "pays nothing by Lightning".to_owned(),
        };
        let fee = offer.input_fee_ppk;
        checks.push(MINT.ok(format!("{mint}: takes {fee} ppk for a proof; {lightning}")));
    } else {
        checks.push(MINT.fail(
            format!("{mint}: does not support {}", list(&offer.missing)),
            "remove it from WHITELISTED_MINTS: payments whose answer is lost would have no end",
        ));
    }
    if !offer.unused.is_empty() {
        checks.push(MINT.warn(
            format!("{mint}: does not support {}", list(&offer.unused)),
            "see \"What a mint must support\" in docs/operating.md: what is missing there does not work with it",
        ));
    }
    checks
}

fn payout(config: &Config, mint: &MintUrl, offer: &MintOffer) -> Option<Check> {
    let is_lacking = config.payout.is_some() && offer.melt.is_none();
    is_lacking.then(|| {
        MINT.warn(
            format!("{mint}: cannot pay to PAYOUT_ADDRESS"),
            "what it holds stays there; take it out with `paygress wallet send`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn offer() -> MintOffer {
        let melt = Some(MeltLimits { least: Some(Sat(1)), most: None });
        MintOffer { input_fee_ppk: 100, missing: vec![], unused: vec![], melt, clock: None }
    }

    #[test]
    fn what_a_mint_lacks_is_named_with_what_to_do() {
        let mint = MintUrl::parse("https://mint.example").unwrap();
        let missing = MintOffer { missing: vec![Nut(7), Nut(9)], ..offer() };
        let unused = MintOffer { unused: vec![Nut(12)], melt: None, ..offer() };
        for (offer, outcome, parts) in [
            (offer(), Outcome::Ok, ["takes 100 ppk", "pays 1 to any sat by Lightning"]),
            (missing, Outcome::Fail, ["https://mint.example", "does not support NUT-07, NUT-09"]),
            (unused, Outcome::Warn, ["https://mint.example", "does not support NUT-12"]),
        ] {
            let checks = offered(&mint, &offer);
            let worst = checks.iter().max_by_key(|check| check.outcome).unwrap();
            assert_eq!(worst.outcome, outcome, "{checks:?}");
            assert!(parts.iter().all(|part| worst.text.contains(part)), "{worst:?}");
            assert_eq!(worst.remedy.is_some(), outcome != Outcome::Ok, "{worst:?}");
        }
    }
}
