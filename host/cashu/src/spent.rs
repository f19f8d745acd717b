//! The proofs that a mint has called spent. Their DLEQ proofs stay valid (NUT-12), so that whoever
//! has them could go before all others again and again, for nothing.

use paygress_core::recent::Recent;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Proofs that are remembered, at 100 bytes each: to have more, somebody swaps as many.
const MAX_PROOFS: usize = 65_536;
/// A mint that was wrong, or is restored from a backup, is believed again after this.
const KEPT: Duration = Duration::from_secs(3_600);

/// The spent proofs of one mint, by keyed hashes of their Ys: nobody outside can find two that are
/// the same.
pub(crate) struct SpentProofs {
    key: RandomState,
    hashes: Mutex<Recent<u64>>,
}

impl Default for SpentProofs {
    fn default() -> Self {
        Self { key: RandomState::new(), hashes: Mutex::new(Recent::new(MAX_PROOFS, KEPT)) }
    }
}

impl SpentProofs {
    /// Remembers these Ys, in hex.
    pub(crate) fn record(&self, ys: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        for y in ys {
            hashes.insert(&self.key.hash_one(y.as_ref()));
        }
    }

    /// Whether any of these Ys, in hex, is known to be spent.
    pub(crate) fn contains_any(&self, ys: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        ys.into_iter().any(|y| hashes.contains(&self.key.hash_one(y.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_sends_many_spent_proofs_makes_it_forget_their_oldest() {
        const SENT: usize = 70_000;
        let (spent, y) = (SpentProofs::default(), |n: usize| format!("{n:066x}"));
        spent.record((0..SENT).map(y));
        let known = (0..SENT).filter(|n| spent.contains_any([y(*n)])).count();
        println!("{SENT} spent proofs: {known} are remembered");
        assert_eq!(known, MAX_PROOFS);
        assert!(spent.contains_any([y(0), y(SENT - 1)]) && !spent.contains_any([y(0), y(SENT)]));
    }
}
