//! What would a candidate have decided? A recorded order runs through the four slots again. As long
//! as everything is as recorded, slots without a candidate repeat their recorded decisions; from
//! the first difference on, they are called.

use crate::engine::Deadline;
use crate::function::{Outcome, admit, grant, quote, refund, render};
use crate::recorded::{Decisions, Recorded, parse_objects};
use crate::set::{ComponentSet, sample_placement};
use paygress_core::backend::policy::{CallFault, PolicyError, Slot};
use paygress_core::model::ids::HexDigest;
use paygress_core::model::refusal::Refusal;
use std::collections::BTreeSet;
use std::time::Instant;

/// A set in which the components of `slots` are candidates.
pub struct Candidate {
    pub(crate) set: ComponentSet,
    pub(crate) slots: BTreeSet<Slot>,
}

impl Candidate {
    #[must_use]
    pub fn new(set: ComponentSet, slots: BTreeSet<Slot>) -> Self {
        Self { set, slots }
    }
}

/// A candidate's decisions on an order.
pub(crate) struct Replayed {
    pub(crate) decisions: Decisions,
    /// Calls in which a component failed.
    pub(crate) faults: u64,
}

pub(crate) fn replay(recorded: &Recorded, candidate: &Candidate) -> Replayed {
    let mut decisions = Decisions::default();
    let mut pass = Pass { candidate, as_recorded: true, faults: 0 };
    // Where it ends shows in `decisions`.
    let _ = run(recorded, &mut pass, &mut decisions);
    Replayed { decisions, faults: pass.faults }
}

/// One pass of an order through the slots.
struct Pass<'a> {
    candidate: &'a Candidate,
    as_recorded: bool,
    faults: u64,
}

impl Pass<'_> {
    /// The recorded decision if it must be the same, else a new one. `None` ends the pass: the slot
    /// refused, or was not reached.
    fn step<T: Clone + PartialEq>(
        &mut self,
        slot: Slot,
        recorded: Option<&Result<T, Refusal>>,
        call: impl FnOnce(&ComponentSet) -> Outcome<T>,
        into: &mut Option<Result<T, Refusal>>,
    ) -> Option<T> {
        let decision = match recorded {
            // The host ended it before this slot was called.
            None if self.as_recorded => return None,
            Some(recorded) if self.as_recorded && !self.candidate.slots.contains(&slot) => {
                recorded.clone()
            }
            recorded => {
                let begun = Instant::now();
                let outcome = call(&self.candidate.set);
                self.candidate.set.record_call(slot, begun.elapsed(), &outcome);
                let decision = outcome.unwrap_or_else(|kind| {
                    self.faults = self.faults.saturating_add(1);
                    Err(PolicyError::Fault(CallFault { slot, digest: HexDigest::default(), kind })
                        .into())
                });
                self.as_recorded = self.as_recorded && recorded == Some(&decision);
                decision
            }
        };
        into.insert(decision).clone().ok()
    }
}

fn run(recorded: &Recorded, pass: &mut Pass<'_>, decisions: &mut Decisions) -> Option<()> {
    let Recorded { order, context, payment, placement, decisions: old, host_refusal: _ } = recorded;
    let image = match order.extends {
        None => {
            let call = |set: &ComponentSet| admit(order, context)(&set.images, Deadline::Full);
            Some(pass.step(Slot::Images, old.image.as_ref(), call, &mut decisions.image)?)
        }
        Some(_) => None,
    };
    let call = |set: &ComponentSet| quote(order, context)(&set.pricing, Deadline::Full);
    let quoted = pass.step(Slot::Pricing, old.quote.as_ref(), call, &mut decisions.quote)?;
    let call =
        |set: &ComponentSet| grant(order, &quoted, payment, context)(&set.duration, Deadline::Full);
    let granted = pass.step(Slot::Duration, old.grant.as_ref(), call, &mut decisions.grant)?;
    if payment.net < quoted.minimum {
        // The host enforces the minimum, whether or not a policy does.
        return None;
    }
    let call = |set: &ComponentSet| {
        refund(order, &quoted, payment, &granted, context)(&set.duration, Deadline::Full)
    };
    pass.step(Slot::Duration, old.refund.as_ref(), call, &mut decisions.refund)?;
    let image = image?;
    let mut placement =
        placement.clone().unwrap_or_else(|| sample_placement(image.clone(), quoted.resources));
    (placement.image, placement.resources) = (image, quoted.resources);
    let call = |set: &ComponentSet| {
        let rendered =
            render(order, &quoted, &granted, &placement)(&set.pod_template, Deadline::Full)?;
        Ok(rendered.map(|rendered| parse_objects(&rendered)))
    };
    pass.step(Slot::PodTemplate, old.template.as_ref(), call, &mut decisions.template).map(drop)
}
