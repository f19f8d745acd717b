//! Choosing keysets, and splitting amounts into a keyset's denominations.

use crate::counters::Spender;
use crate::error::MintWalletError;
use crate::refusal;
use crate::token_format::{ReadProof, ReadToken};
use cdk::Amount;
use cdk::amount::FeeAndAmounts;
use cdk::nuts::{Id, KeySet, KeySetInfo, Proofs};
use paygress_core::limits;
use paygress_core::model::refusal::Refusal;
use paygress_core::model::units::{Seconds, UnixTime};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

/// Fees beyond this many sat are not looked for: such a mint takes more than it is worth.
const MAX_GROSS_STEPS: usize = 10_000;
/// A keyset that ends within 60 days ends soon: refunds wait for their customers, 30 days by default…
const ENDS_SOON: Seconds = Seconds(5_184_000);
/// …and its proofs are swapped until a day after its end, where the mint has not dropped it yet.
const SWAPPED_AFTER_END: Seconds = Seconds(86_400);

/// The keyset that new outputs are made with.
pub(crate) struct ActiveKeyset {
    pub(crate) info: KeySetInfo,
    pub(crate) keys: Arc<KeySet>,
}

/// When a mint may drop a keyset (NUT-02).
fn end_of(keyset: &KeySetInfo) -> UnixTime {
    // Some mints write 0 for none.
    UnixTime(keyset.final_expiry.filter(|at| *at > 0).unwrap_or(u64::MAX))
}

/// The mint's active keyset that ends last, or never; of several the one with the lowest input fee.
pub(crate) fn longest_active<'a>(
    keysets: impl IntoIterator<Item = &'a KeySetInfo>,
    now: UnixTime,
) -> Option<&'a KeySetInfo> {
    let is_usable = |keyset: &&KeySetInfo| keyset.active && end_of(keyset) > now;
    let order = |keyset: &&KeySetInfo| (Reverse(end_of(keyset)), keyset.input_fee_ppk);
    keysets.into_iter().filter(is_usable).min_by_key(order)
}

/// Those of a mint's keysets whose proofs are to be swapped for proofs of the one that ends last.
pub(crate) fn ending_keysets(keysets: &[&KeySetInfo], now: UnixTime) -> HashSet<Id> {
    let Some(active) = longest_active(keysets.iter().copied(), now) else { return HashSet::new() };
    let ending = keysets.iter().filter(|keyset| is_ending(keyset, active, now));
    ending.map(|keyset| keyset.id).collect()
}

/// Whether a keyset ends soon, and `active` lasts twice as long: so a mint that rotates its keys often
/// takes its fee a few times only.
fn is_ending(keyset: &KeySetInfo, active: &KeySetInfo, now: UnixTime) -> bool {
    let left = end_of(keyset).since(now);
    left <= ENDS_SOON
        && now.since(end_of(keyset)) <= SWAPPED_AFTER_END
        && end_of(active).since(now) >= left.plus(left)
}

/// An amount in the keyset's denominations, in no more outputs than one operation may have.
///
/// # Errors
/// [`MintWalletError::TooManyOutputs`].
pub(crate) fn split(
    amount: u64,
    keyset: &KeySet,
    spender: Spender,
) -> Result<Vec<u64>, MintWalletError> {
    let denominations: Vec<u64> = keyset.keys.iter().map(|(amount, _)| amount.to_u64()).collect();
    // Before a list of them is made: a mint whose only denomination is 1 asks for a million.
    let outputs = output_count(amount, &denominations);
    let max_outputs = spender.max_outputs();
    if !usize::try_from(outputs).is_ok_and(|outputs| outputs <= max_outputs) {
        return Err(MintWalletError::TooManyOutputs { amount, outputs });
    }
    let denominations = FeeAndAmounts::from((keyset.input_fee_ppk, denominations));
    let parts = Amount::from(amount).split(&denominations).map_err(MintWalletError::cdk)?;
    Ok(parts.into_iter().map(|part| part.to_u64()).collect())
}

/// How many outputs an amount is split into, the largest first.
fn output_count(amount: u64, denominations: &[u64]) -> u64 {
    let mut descending = denominations.to_vec();
    descending.sort_unstable_by(|a, b| b.cmp(a));
    let (mut rest, mut outputs) = (amount, 0_u64);
    for denomination in descending {
        outputs = outputs.saturating_add(rest.checked_div(denomination).unwrap_or(0));
        rest = rest.checked_rem(denomination).unwrap_or(rest);
    }
    outputs
}

/// The least amount of which `net` is left after the mint's fee, if it is paid with as few proofs of
/// powers of two as it can be.
pub(crate) fn gross_of(net: u64, input_fee_ppk: u64) -> u64 {
    let fee = |proofs: u32| input_fee_ppk.saturating_mul(u64::from(proofs)).div_ceil(1_000);
    (net..=net.saturating_add(fee(u64::BITS)))
        .take(MAX_GROSS_STEPS)
        .find(|gross| gross.saturating_sub(fee(gross.count_ones())) >= net)
        .unwrap_or(net)
}

/// The token's proofs with their full keyset ids, if all are of these keysets. (The library checks
/// only ids that are shortened.)
pub(crate) fn proofs_of_keysets(token: &ReadToken, keysets: &[KeySetInfo]) -> Option<Proofs> {
    let proof = |proof: &ReadProof| {
        let id = Id::from_short_keyset_id(&proof.keyset_id, keysets).ok()?;
        keysets.iter().any(|keyset| keyset.id == id).then(|| proof.to_proof(id))
    };
    token.proofs.iter().map(proof).collect()
}

/// Refuses a token whose proofs are of so many keysets that their keys would fill the memory.
pub(crate) fn require_few(proofs: &[ReadProof]) -> Result<(), Refusal> {
    let keysets: HashSet<_> = proofs.iter().map(|proof| &proof.keyset_id).collect();
    if keysets.len() <= limits::TOKEN_KEYSETS {
        return Ok(());
    }
    Err(refusal::invalid_token(format!(
        "the token's proofs are of {} keysets, and at most {} are accepted; receive the token in \
         your wallet and send a fresh one",
        keysets.len(),
        limits::TOKEN_KEYSETS
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token;
    use cdk::nuts::{CurrencyUnit, Proof, SecretKey, Token};
    use cdk::secret::Secret;
    use paygress_core::model::ids::MintUrl;
    use paygress_core::model::units::Sat;

    #[test]
    fn a_token_of_more_keysets_than_a_mint_has_in_a_year_is_refused_offline() {
        let mint = MintUrl::parse("https://mint.example").unwrap();
        let c = SecretKey::generate().public_key();
        for (keysets, is_read) in [(1, true), (16, true), (17, false), (300, false)] {
            let of_keyset = |n: u64| {
                let id = format!("00{n:014x}").parse().unwrap();
                Proof::new(Amount::from(1), id, Secret::generate(), c)
            };
            let proofs = (0..keysets).map(of_keyset).collect();
            let url = mint.as_str().parse().unwrap();
            let text = Token::new(url, proofs, None, CurrencyUnit::Sat).to_string();
            match token::decode(&text, std::slice::from_ref(&mint), None) {
                Ok(info) => assert!(is_read && info.gross == Sat(keysets)),
                Err(refusal) => {
                    assert!(!is_read, "{refusal}");
                    let reason = format!("of {keysets} keysets");
                    assert!(refusal.message.contains(&reason), "{refusal}");
                }
            }
        }
    }

    /// The last digit of its id; its fee; the seconds until its end.
    fn info(digit: u64, input_fee_ppk: u64, ends_in: Option<u64>) -> KeySetInfo {
        KeySetInfo {
            id: format!("00{digit:014x}").parse().unwrap(),
            unit: CurrencyUnit::Sat,
            active: true,
            input_fee_ppk,
            final_expiry: ends_in.map(|seconds| NOW.0.saturating_add(seconds)),
        }
    }

    const NOW: UnixTime = UnixTime(1_900_000_000);
    const DAY: u64 = 86_400;

    #[test]
    fn outputs_are_made_in_the_active_keyset_that_ends_last() {
        let none = KeySetInfo { final_expiry: Some(0), ..info(5, 50, None) };
        let inactive = KeySetInfo { active: false, ..info(6, 0, None) };
        for (keysets, chosen) in [
            (vec![info(1, 0, Some(60)), info(2, 100, None)], Some(2)),
            (vec![info(1, 100, None), info(2, 0, Some(60)), info(3, 10, None)], Some(3)),
            (vec![info(1, 0, Some(DAY)), info(2, 100, Some(2 * DAY))], Some(2)),
            (vec![none, info(1, 0, Some(DAY))], Some(5)),
            (vec![inactive.clone(), info(1, 7, Some(1))], Some(1)),
            (vec![inactive, info(1, 0, Some(0))], None),
        ] {
            let found = longest_active(&keysets, NOW).map(|keyset| keyset.id);
            assert_eq!(found, chosen.map(|digit| info(digit, 0, None).id), "{keysets:?}");
        }
    }

    #[test]
    fn proofs_are_swapped_whose_keyset_ends_soon_if_another_lasts_twice_as_long() {
        for (ends_in, active_for, is_swapped) in [
            (Some(60 * DAY), None, true),
            (Some(60 * DAY + 1), None, false),
            (None, None, false),
            (Some(7 * DAY), Some(14 * DAY), true),
            (Some(7 * DAY + 1), Some(14 * DAY), false),
            (Some(0), Some(1), true),
        ] {
            let (keyset, active) = (info(1, 0, ends_in), info(2, 0, active_for));
            let ending = ending_keysets(&[&keyset, &active], NOW);
            let expected: HashSet<Id> = is_swapped.then_some(keyset.id).into_iter().collect();
            assert_eq!(ending, expected, "{ends_in:?} {active_for:?}");
        }
        for (ended_ago, is_swapped) in [(DAY, true), (DAY + 1, false)] {
            let final_expiry = Some(NOW.0.saturating_sub(ended_ago));
            let (keyset, active) =
                (KeySetInfo { final_expiry, ..info(1, 0, None) }, info(2, 0, None));
            let ending = ending_keysets(&[&keyset, &active], NOW);
            assert_eq!(ending.contains(&keyset.id), is_swapped, "{ended_ago}");
        }
    }

    fn keyset(denominations: &[u64]) -> KeySet {
        let key = SecretKey::generate().public_key();
        let keys = denominations.iter().map(|amount| (Amount::from(*amount), key)).collect();
        let id = "009a1f293253e41e".parse().unwrap();
        KeySet {
            id,
            unit: cdk::nuts::CurrencyUnit::Sat,
            active: Some(true),
            keys: cdk::nuts::Keys::new(keys),
            input_fee_ppk: 0,
            final_expiry: None,
        }
    }

    #[test]
    fn a_mint_does_not_choose_how_many_outputs_are_derived() {
        let powers: Vec<u64> = (0..40).map(|exponent| 1 << exponent).collect();
        assert_eq!(split(13, &keyset(&powers), Spender::External).unwrap().len(), 3);
        assert_eq!(split(128, &keyset(&[1]), Spender::Wallet).unwrap().len(), 128);
        assert!(split(41, &keyset(&[1]), Spender::External).is_err());
        let error = split(1_000_000_000, &keyset(&[1]), Spender::Wallet).unwrap_err();
        assert_eq!(
            error.to_string(),
            "keyset's denominations need 1000000000 outputs for 1000000000 sat"
        );
        let decimal = [1_000, 100, 10, 1];
        assert_eq!(output_count(9_999, &decimal), 36);
        assert_eq!(split(9_999, &keyset(&decimal), Spender::External).unwrap().len(), 36);
    }

    #[test]
    fn the_gross_amount_leaves_the_price_after_the_fee() {
        for (net, ppk, gross) in [
            (6, 0, 6),
            (6, 100, 7),
            (15, 100, 16),
            (1_000, 100, 1_001),
            (7, 1_000, 8),
            (63, 1_000, 64),
            (1_000, 100_000, 1_280),
        ] {
            assert_eq!(gross_of(net, ppk), gross, "{net} at {ppk} ppk");
        }
        assert_eq!(gross_of(5, u64::MAX), 5);
        for net in 1..2_000 {
            let fee = 300 * u64::from(gross_of(net, 300).count_ones());
            assert!(gross_of(net, 300) - fee.div_ceil(1_000) >= net, "{net}");
        }
    }
}
