//! What the cluster has left for pods, counted from watches.
//!
//! ```text
//! watches of nodes, pods, quotas ─▶ objects ─▶ Snapshot (once per change) ─┐
//! dry run: the pod as it was admitted ─▶ PodDemand ─▶ Demand               ├─▶ View: Capacity
//!                                           └──────▶ Shapes, for offers ───┘
//! ```
//!
//! A pod on a node is counted on it; a reservation without a pod is placed as the scheduler would. A
//! probe is not counted, nor are its objects: it gives way to a pod that is sold.
//! Not counted are affinity between pods and spread constraints: the guard refuses templates that
//! require them. Those of other pods on the nodes may still rule a pod out.

mod amounts;
mod demand;
mod extra;
mod nodes;
mod objects;
mod pods;
mod quota;
mod shapes;
mod snapshot;
#[cfg(test)]
mod tests;
mod watch;

pub use extra::{ExtraCapacity, ExtraCapacityError};
pub(crate) use nodes::{is_unready, ready_until};
pub(crate) use watch::CapacityWatch;

/// A share, in thousandths; of nothing, none.
fn thousandths(part: u64, whole: u64) -> u32 {
    let share = u128::from(part).saturating_mul(1_000).checked_div(u128::from(whole));
    u32::try_from(share.unwrap_or(0)).unwrap_or(u32::MAX)
}
