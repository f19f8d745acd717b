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

    /// How much the orders of this lane may hold besides.
    #[cfg(test)]
    pub(super) fn left(&self, lane: Lane) -> usize {
        self.lane(lane).left()
    }
}

/// What an order holds while it waits, about.
pub(super) fn held_bytes(token: &Secret, token_info: &TokenInfo) -> usize {
    let proofs = token_info.ys.len().saturating_mul(limits::ORDER_PROOF_BYTES);
    limits::ORDER_BYTES.saturating_add(token.expose().len()).saturating_add(proofs)
}
