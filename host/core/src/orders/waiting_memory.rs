//! The memory that orders hold until they are paid for, at all mints together.

use super::lane::Lane;
use crate::byte_budget::{ByteBudget, ReservedBytes};
use crate::limits;
use crate::model::secret::Secret;
use crate::model::token::TokenInfo;

/// What the orders of each lane may hold, beyond the first few of each mint.
pub(super) struct WaitingMemory {
    proven: ByteBudget,
    unproven: ByteBudget,
}

impl Default for WaitingMemory {
    fn default() -> Self {
        let budget = || ByteBudget::new(limits::ORDERS_WAITING_BYTES);
        Self { proven: budget(), unproven: budget() }
    }
}

impl WaitingMemory {
    fn lane(&self, lane: Lane) -> &ByteBudget {
        match lane {
            Lane::Proven => &self.proven,
            Lane::Unproven => &self.unproven,
        }
    }

    /// None if the orders of this lane hold too much for one more of this size.
    pub(super) fn try_reserve(&self, lane: Lane, bytes: usize) -> Option<ReservedBytes> {
        self.lane(lane).try_reserve(bytes)
    }
}

/// What an order holds while it waits, about.
pub(super) fn held_bytes(token: &Secret, token_info: &TokenInfo) -> usize {
    let proofs = token_info.ys.len().saturating_mul(limits::ORDER_PROOF_BYTES);
    limits::ORDER_BYTES.saturating_add(token.expose().len()).saturating_add(proofs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{MintUrl, ProofY};
    use crate::model::refusal::{ErrorType, Refusal};
    use crate::model::units::Sat;
    use crate::orders::admission::{Admission, Place, Source};
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    const LANES: [Lane; 2] = [Lane::Unproven, Lane::Proven];

    fn mint(name: &str) -> MintUrl {
        MintUrl::parse(format!("https://{name}.invalid")).unwrap()
    }

    /// What an order of the largest token holds.
    fn largest() -> usize {
        let y = ProofY::parse("0".repeat(66)).unwrap();
        let ys = vec![y; limits::TOKEN_PROOFS];
        held_bytes(
            &Secret::new("x".repeat(limits::TOKEN_BYTES)),
            &TokenInfo { mint: mint("a"), gross: Sat(1), ys },
        )
    }

    fn claim(
        admission: &Arc<Admission>,
        n: u32,
        mint: &str,
        lane: Lane,
        bytes: usize,
    ) -> Result<Place, Refusal> {
        let source = Source::Network(IpAddr::V4(Ipv4Addr::from_bits(n)));
        admission.claim_place(admission.accept(source)?, &self::mint(mint), lane, bytes)
    }

    #[test]
    fn the_largest_orders_of_many_mints_hold_so_much_and_each_mint_has_some_of_its_own() {
        const MINTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let (admission, largest) = (Arc::new(Admission::default()), largest());
        let (mut places, mut sources) = (Vec::new(), 0..);
        for lane in LANES {
            for mint in MINTS {
                let crowd = sources.by_ref().take(600);
                let claimed = crowd.filter_map(|n| claim(&admission, n, mint, lane, largest).ok());
                let claimed: Vec<Place> = claimed.collect();
                // However much the others hold.
                assert!(claimed.len() >= limits::ORDERS_AT_ONCE, "{mint}, {lane:?}");
                places.extend(claimed);
            }
        }
        let held = places.len().saturating_mul(largest);
        println!(
            "9,600 orders with tokens of 60 KB at 8 mints: {} wait and hold {} MiB",
            places.len(),
            held >> 20
        );
        let own = LANES.len() * MINTS.len() * limits::ORDERS_AT_ONCE * largest;
        assert!(held <= LANES.len() * limits::ORDERS_WAITING_BYTES + own);
        // A smaller one may find room where the largest does not.
        let lane = Lane::Unproven;
        let left = admission.memory.lane(lane).left();
        assert!(left < largest);
        let refusal = claim(&admission, u32::MAX, "b", lane, left + 1).err().unwrap();
        assert_eq!(refusal.code, ErrorType::ResourceUnavailable);
        assert!(claim(&admission, u32::MAX, "b", lane, left).is_ok());
        drop(places);
        for lane in LANES {
            assert_eq!(admission.memory.lane(lane).left(), limits::ORDERS_WAITING_BYTES);
        }
    }
}
