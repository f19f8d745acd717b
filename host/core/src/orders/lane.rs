//! The two lanes in which orders wait for their turn at a mint.

/// Whether a token is known to be its mint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Its DLEQ proofs (NUT-12) are valid: it cost its sender what it is worth.
    Proven,
    Unproven,
}
