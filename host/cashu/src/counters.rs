//! Derivation counters (NUT-13): which places of the seed an operation's outputs are made from.
//!
//! A restore asks the mint for one counter after the other, and ends in a long gap. Whoever sends
//! worthless tokens must not be able to make such a gap. So outputs are made no further than
//! [`WINDOW`] above the highest counter that the mint is known to have signed, on the lowest
//! counters that no open operation has:
//!
//! ```text
//! signed ·· signed │ open · free · open · free … │
//!            next ─┘                next + WINDOW ┘
//! ```
//!
//! Counters of a swap that the mint has refused, with no output signed, are used again. That is
//! safe even if the mint does the refused swap after all: it signs a blinded message once, and
//! refuses the later request as "already signed".

use std::ops::Range;

/// From the highest counter that is signed to the next one at most. A restore passes gaps of this
/// size.
pub(crate) const WINDOW: u32 = 2_500;
/// What received tokens leave of it to refunds and to the operator. The rest is enough for all
/// the unproven tokens that may be in progress or unresolved at one mint.
const RESERVE: u32 = 500;

/// Whose proofs an operation spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spender {
    Wallet,
    External,
}

impl Spender {
    /// Outputs of one operation. A sum has one of each denomination, rarely more; a token that is
    /// sent has change as well.
    pub(crate) const fn max_outputs(self) -> usize {
        match self {
            Self::Wallet => 128,
            Self::External => 40,
        }
    }
}

/// The lowest `count` consecutive counters from `next` on that are not taken; those from `from` on
/// are preferred. None when the window is full.
pub(crate) fn lowest_free(
    next: u64,
    from: u64,
    count: u64,
    taken: &[Range<u64>],
    spender: Spender,
) -> Option<u64> {
    let window = match spender {
        Spender::Wallet => WINDOW,
        Spender::External => WINDOW.saturating_sub(RESERVE),
    };
    let end = next.saturating_add(u64::from(window));
    let first_from = |from| {
        let mut first = next.max(from);
        let mut taken: Vec<_> = taken.iter().filter(|range| !range.is_empty()).collect();
        taken.sort_by_key(|range| range.start);
        for range in taken {
            if range.start < first.saturating_add(count) && first < range.end {
                first = range.end;
            }
        }
        (first.saturating_add(count) <= end).then_some(first)
    };
    first_from(from).or_else(|| first_from(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_lowest_free_counters_are_used_and_refused_ones_again() {
        let free = |from, count, taken: &[Range<u64>]| {
            lowest_free(100, from, count, taken, Spender::External)
        };
        assert_eq!(free(0, 8, &[]), Some(100));
        assert_eq!(free(0, 8, &[100..110, 118..130]), Some(110));
        assert_eq!(free(0, 9, &[118..130, 100..110]), Some(130));
        // The places of the attempt before are avoided, as long as there are others.
        assert_eq!(free(108, 8, &[]), Some(108));
        assert_eq!(free(2_096, 8, &[]), Some(100));
        let taken = std::slice::from_ref(&(100..2_096));
        assert_eq!(free(0, 8, taken), None);
        assert_eq!(lowest_free(100, 0, 8, taken, Spender::Wallet), Some(2_096));
    }

    proptest! {
        /// What a restore relies on: each signed counter has another, or the start, within the
        /// window below it, whatever is refused, done or left open.
        #[test]
        fn no_gap_is_larger_than_the_window(steps in prop::collection::vec((1_u64..=40, 0..3_u8), 1..400)) {
            let (mut next, mut taken) = (0, Vec::new());
            for (count, end) in steps {
                let Some(first) = lowest_free(next, 0, count, &taken, Spender::External) else {
                    taken.clear();
                    continue;
                };
                let range = first..first.saturating_add(count);
                prop_assert!(first >= next && range.end <= u64::from(WINDOW).saturating_add(next));
                prop_assert!(taken.iter().all(|other: &Range<u64>| other.end <= first || range.end <= other.start));
                match end {
                    0 => next = range.end,
                    1 => taken.push(range),
                    _ => {}
                }
            }
        }
    }
}
