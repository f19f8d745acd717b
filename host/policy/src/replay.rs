//! What would a candidate have said? A recorded order goes through the four slots again: where
//! everything so far is as recorded, the other slots say what they said then; from the first
//! difference on, they are asked.
//!
//! The same for orders of last month ([`compare`] over the ledger) and for those of this moment
//! (the shadow).

use crate::function::{Answer, admit, grant, quote, refund, render};
use crate::set::{ComponentSet, sample_placement};
use paygress_core::backend::policy::{
    Context, Decision, Fault, Grant, Payment, Placement, PodDecision, PolicyError, PolicyTrace,
    Quote, RefundTerms, Slot,
};
use paygress_core::model::order::{Order, OrderView, State};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::{Sat, Seconds};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

/// A candidate among the components in force: those in `slots` are new.
pub struct Candidate {
    pub(crate) set: ComponentSet,
    pub(crate) slots: BTreeSet<Slot>,
}

impl Candidate {
    /// This set, of which these slots are tried.
    #[must_use]
    pub fn new(set: ComponentSet, slots: BTreeSet<Slot>) -> Self {
        Self { set, slots }
    }
}

/// What the policies were asked for an order, and what they said.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    order: OrderView,
    context: Context,
    payment: Payment,
    placement: Option<Placement>,
    said: Answers,
    /// The code with which the host said no where the policies had said yes: it would have again.
    host_refused: Option<ErrorType>,
}

/// What four slots say of an order, as far as they are asked: the last answer may be a no.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answers {
    image: Option<Result<String, Refusal>>,
    quote: Option<Result<Quote, Refusal>>,
    grant: Option<Result<Grant, Refusal>>,
    refund: Option<Result<Option<RefundTerms>, Refusal>>,
    template: Option<Result<Vec<Value>, Refusal>>,
}

impl Recorded {
    /// What an order holds of it; `None` when no policy was asked.
    pub(crate) fn of(order: &Order) -> Option<Self> {
        match (&order.policy_trace, &order.decision) {
            (Some(policy_trace), _) => Some(Self::refused(policy_trace, order.refusal.as_ref()?)),
            (None, Some(decision)) => {
                let refusal = order.refusal.as_ref().filter(|_| order.state == State::Refused);
                Some(Self::granted(
                    decision,
                    order.payment.clone()?,
                    refusal.map(|refusal| refusal.code),
                ))
            }
            (None, None) => None,
        }
    }

    fn granted(decision: &Decision, payment: Payment, host_refused: Option<ErrorType>) -> Self {
        let said = Answers {
            image: decision.pod.as_ref().map(|pod| Ok(pod.placement.image.clone())),
            quote: Some(Ok(decision.quote.clone())),
            grant: Some(Ok(decision.grant.clone())),
            refund: Some(Ok(decision.refund)),
            template: decision.pod.as_ref().map(|pod| Ok(template(pod))),
        };
        let placement = decision.pod.as_ref().map(|pod| pod.placement.clone());
        Self {
            order: decision.order.clone(),
            context: decision.context.clone(),
            payment,
            placement,
            said,
            host_refused,
        }
    }

    fn refused(policy_trace: &PolicyTrace, refusal: &Refusal) -> Self {
        let PolicyTrace {
            digests: _,
            order,
            context,
            payment,
            image,
            quote,
            grant,
            refund,
            placement,
        } = policy_trace.clone();
        let mut said = Answers {
            image: image.map(Ok),
            quote: quote.map(Ok),
            grant: grant.map(Ok),
            ..Answers::default()
        };
        // The first that gave no answer is the one that said no.
        fn no<T>(refusal: &Refusal) -> Option<Result<T, Refusal>> {
            Some(Err(refusal.clone()))
        }
        match (&said.image, &said.quote, &said.grant, &placement) {
            (None, ..) if order.extends.is_none() => said.image = no(refusal),
            (_, None, ..) => said.quote = no(refusal),
            (_, _, None, _) => said.grant = no(refusal),
            (.., Some(_)) => (said.refund, said.template) = (Some(Ok(refund)), no(refusal)),
            // The host did: for the minimum, which a candidate may set otherwise…
            (.., None)
                if said.quote.as_ref().is_some_and(|quote| {
                    quote.as_ref().is_ok_and(|quote| payment.net < quote.minimum)
                }) => {}
            // …or for want of a port for instance.
            (.., None) => {
                return Self {
                    order,
                    context,
                    payment,
                    placement,
                    said,
                    host_refused: Some(refusal.code),
                };
            }
        }
        Self { order, context, payment, placement, said, host_refused: None }
    }
}

fn template(pod: &PodDecision) -> Vec<Value> {
    parsed(&pod.rendered.pod_template_json, &pod.rendered.services_json)
}

/// Two texts that read as the same JSON are the same.
fn parsed(pod: &str, services: &[String]) -> Vec<Value> {
    let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    std::iter::once(pod).chain(services.iter().map(String::as_str)).map(read).collect()
}

/// One pass of an order through the slots.
struct Pass<'a> {
    candidate: &'a Candidate,
    as_recorded: bool,
    faults: u64,
}

impl Pass<'_> {
    /// The recorded answer where it must be the same, else a new one. `Err` ends the pass: there is
    /// a no, or no answer.
    fn step<T: Clone + PartialEq>(
        &mut self,
        slot: Slot,
        recorded: Option<&Result<T, Refusal>>,
        ask: impl FnOnce(&ComponentSet) -> Answer<T>,
        into: &mut Option<Result<T, Refusal>>,
    ) -> Result<T, ()> {
        let answer = match recorded {
            // The host ended it before this slot was asked.
            None if self.as_recorded => return Err(()),
            Some(recorded) if self.as_recorded && !self.candidate.slots.contains(&slot) => {
                recorded.clone()
            }
            recorded => {
                let begun = Instant::now();
                let answer = ask(&self.candidate.set);
                self.candidate.set.note(slot, begun.elapsed(), &answer);
                let answer = answer.unwrap_or_else(|kind| {
                    self.faults = self.faults.saturating_add(1);
                    Err(PolicyError::Fault(Fault { slot, digest: String::new(), kind }).into())
                });
                self.as_recorded = self.as_recorded && recorded == Some(&answer);
                answer
            }
        };
        into.insert(answer).clone().map_err(drop)
    }
}

/// What the candidate says, and how often it failed.
fn again(recorded: &Recorded, candidate: &Candidate) -> (Answers, u64) {
    let mut said = Answers::default();
    let mut pass = Pass { candidate, as_recorded: true, faults: 0 };
    // Its end is in `said`.
    let _ = pass_through(recorded, &mut pass, &mut said);
    (said, pass.faults)
}

fn pass_through(recorded: &Recorded, pass: &mut Pass<'_>, said: &mut Answers) -> Result<(), ()> {
    let Recorded { order, context, payment, placement, said: then, host_refused: _ } = recorded;
    let image = match order.extends {
        None => {
            let ask = |set: &ComponentSet| admit(order, context)(&set.images);
            Some(pass.step(Slot::Images, then.image.as_ref(), ask, &mut said.image)?)
        }
        Some(_) => None,
    };
    let ask = |set: &ComponentSet| quote(order, context)(&set.pricing);
    let quoted = pass.step(Slot::Pricing, then.quote.as_ref(), ask, &mut said.quote)?;
    let ask = |set: &ComponentSet| grant(order, &quoted, payment, context)(&set.duration);
    let granted = pass.step(Slot::Duration, then.grant.as_ref(), ask, &mut said.grant)?;
    if payment.net < quoted.minimum {
        // The host holds to the minimum, whoever forgets it.
        return Err(());
    }
    let ask =
        |set: &ComponentSet| refund(order, &quoted, payment, &granted, context)(&set.duration);
    pass.step(Slot::Duration, then.refund.as_ref(), ask, &mut said.refund)?;
    let Some(image) = image else { return Ok(()) };
    let mut placement =
        placement.clone().unwrap_or_else(|| sample_placement(image.clone(), quoted.resources));
    (placement.image, placement.resources) = (image, quoted.resources);
    let ask = |set: &ComponentSet| {
        let rendered = render(order, &granted, &placement)(&set.pod_template)?;
        Ok(rendered.map(|rendered| parsed(&rendered.pod_template_json, &rendered.services_json)))
    };
    pass.step(Slot::PodTemplate, then.template.as_ref(), ask, &mut said.template)?;
    Ok(())
}

/// Whether the order is granted, and for how long; else the code of the refusal.
fn outcome(said: &Answers, recorded: &Recorded) -> Result<Seconds, ErrorType> {
    let no = |refusal: &Refusal| refusal.code;
    said.image.as_ref().map_or(Ok(()), |image| image.as_ref().map(drop).map_err(no))?;
    let quote = said
        .quote
        .as_ref()
        .map_or(Err(ErrorType::InternalError), |quote| quote.as_ref().map_err(no))?;
    let grant = said
        .grant
        .as_ref()
        .map_or(Err(ErrorType::InternalError), |grant| grant.as_ref().map_err(no))?;
    if recorded.payment.net < quote.minimum {
        return Err(ErrorType::InsufficientPayment);
    }
    said.refund.as_ref().map_or(Ok(()), |refund| refund.as_ref().map(drop).map_err(no))?;
    said.template.as_ref().map_or(Ok(()), |template| template.as_ref().map(drop).map_err(no))?;
    recorded.host_refused.map_or(Ok(grant.seconds), Err)
}

/// What of an order can be otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// Granted or refused, or for which reason.
    Outcome,
    /// The tier.
    Tier,
    /// The price.
    Price,
    /// What the pod may use.
    Resources,
    /// The least amount that is taken.
    Minimum,
    /// The time.
    Seconds,
    /// The image.
    Image,
    /// The terms of paying back.
    Refund,
    /// The pod's template, or a Service.
    Template,
    /// Only what the customer is told.
    Words,
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outcome => "outcome",
            Self::Tier => "tier",
            Self::Price => "price",
            Self::Resources => "resources",
            Self::Minimum => "minimum",
            Self::Seconds => "seconds",
            Self::Image => "image",
            Self::Refund => "refund terms",
            Self::Template => "template",
            Self::Words => "words",
        })
    }
}

/// One thing that would have been otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The order.
    pub order: String,
    /// What of it.
    pub what: Aspect,
    /// What it was.
    pub was: String,
    /// What it would have been.
    pub would_be: String,
}

/// How a candidate compares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Orders that were compared.
    pub orders: u64,
    /// Those of them that would have been the same.
    pub same: u64,
    /// Orders that differ, by what.
    pub differing: BTreeMap<Aspect, u64>,
    /// Calls in which a component failed.
    pub faults: u64,
    /// What the granted orders paid, net: as it was…
    pub income_sat: Sat,
    /// …and as it would have been.
    pub would_be_income_sat: Sat,
    /// The time that was sold…
    pub sold_seconds: Seconds,
    /// …and as it would have been.
    pub would_be_sold_seconds: Seconds,
    /// Orders that were refused, by code…
    pub refused: BTreeMap<ErrorType, u64>,
    /// …and as it would have been.
    pub would_be_refused: BTreeMap<ErrorType, u64>,
    /// The first differences.
    pub differences: Vec<Difference>,
}

/// Differences that are told one by one; the rest are counted.
pub const DIFFERENCES_TOLD: usize = 100;

fn count<T: Ord>(counts: &mut BTreeMap<T, u64>, what: T) {
    let count = counts.entry(what).or_default();
    *count = count.saturating_add(1);
}

impl Comparison {
    /// Compares one order. One that no policy was asked for does not count, nor one that is not
    /// decided yet.
    pub fn add(&mut self, order: &Order, candidate: &Candidate) {
        if let Some(recorded) =
            (order.state != State::Received).then(|| Recorded::of(order)).flatten()
        {
            let (said, faults) = again(&recorded, candidate);
            self.note(&recorded, &said, faults);
        }
    }

    fn note(&mut self, recorded: &Recorded, said: &Answers, faults: u64) {
        self.orders = self.orders.saturating_add(1);
        self.faults = self.faults.saturating_add(faults);
        let (was, would_be) = (outcome(&recorded.said, recorded), outcome(said, recorded));
        let net = recorded.payment.net;
        for (outcome, income, sold, refused) in [
            (was, &mut self.income_sat, &mut self.sold_seconds, &mut self.refused),
            (
                would_be,
                &mut self.would_be_income_sat,
                &mut self.would_be_sold_seconds,
                &mut self.would_be_refused,
            ),
        ] {
            match outcome {
                Ok(seconds) => (*income, *sold) = (income.plus(net), sold.plus(seconds)),
                Err(code) => count(refused, code),
            }
        }
        if *said == recorded.said {
            self.same = self.same.saturating_add(1);
            return;
        }
        for (what, was, would_be) in differences(&recorded.said, said, was, would_be) {
            count(&mut self.differing, what);
            if self.differences.len() < DIFFERENCES_TOLD {
                self.differences.push(Difference {
                    order: recorded.order.id.clone(),
                    what,
                    was,
                    would_be,
                });
            }
        }
    }
}

fn differences(
    was: &Answers,
    would_be: &Answers,
    outcome: Result<Seconds, ErrorType>,
    new_outcome: Result<Seconds, ErrorType>,
) -> Vec<(Aspect, String, String)> {
    let word = |outcome: Result<Seconds, ErrorType>| {
        outcome.map_or_else(|code| code.as_str().to_owned(), |_| "granted".to_owned())
    };
    if outcome.is_ok() != new_outcome.is_ok() || outcome.err() != new_outcome.err() {
        return vec![(Aspect::Outcome, word(outcome), word(new_outcome))];
    }
    let mut found = Vec::new();
    let mut compare = |what: Aspect, was: String, would_be: String| {
        if was != would_be {
            found.push((what, was, would_be));
        }
    };
    let yes = |said: &Answers| {
        (said.quote.clone().and_then(Result::ok), said.grant.clone().and_then(Result::ok))
    };
    let ((quote, grant), (new_quote, new_grant)) = (yes(was), yes(would_be));
    let mut compare_quotes = |what, part: fn(&Quote) -> String| {
        let text = |quote: &Option<Quote>| quote.as_ref().map(part).unwrap_or_default();
        compare(what, text(&quote), text(&new_quote));
    };
    compare_quotes(Aspect::Tier, |quote| quote.tier.clone());
    compare_quotes(Aspect::Price, |quote| {
        format!("{} msat for {} s", quote.price.msat.0, quote.price.seconds.0)
    });
    compare_quotes(Aspect::Resources, |quote| {
        format!("{} mCPU, {} MiB", quote.resources.cpu_millicores, quote.resources.memory_mib)
    });
    compare_quotes(Aspect::Minimum, |quote| quote.minimum.to_string());
    let seconds = |grant: &Option<Grant>| {
        grant.as_ref().map(|grant| grant.seconds.0.to_string()).unwrap_or_default()
    };
    compare(Aspect::Seconds, seconds(&grant), seconds(&new_grant));
    let image = |said: &Answers| said.image.clone().and_then(Result::ok).unwrap_or_default();
    compare(Aspect::Image, image(was), image(would_be));
    let terms = |said: &Answers| match said.refund.clone().and_then(Result::ok).flatten() {
        Some(RefundTerms { step, percent }) => format!("{percent} % in steps of {} s", step.0),
        None => "the host's".to_owned(),
    };
    compare(Aspect::Refund, terms(was), terms(would_be));
    let template = |said: &Answers| {
        let template = said.template.clone().and_then(Result::ok).unwrap_or_default();
        template.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
    };
    let (old, new) = (template(was), template(would_be));
    if old != new {
        let (was, would_be) = first_difference(&old, &new);
        compare(Aspect::Template, was, would_be);
    }
    if found.is_empty() {
        // The same code or time, said in other words.
        let words =
            |said: &Answers| format!("{:?}", (&said.image, &said.quote, &said.grant, &said.refund));
        let (was, would_be) = first_difference(&words(was), &words(would_be));
        found.push((Aspect::Words, was, would_be));
    }
    found
}

/// Where two texts part, with a little around it.
fn first_difference(was: &str, would_be: &str) -> (String, String) {
    let same = was.chars().zip(would_be.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| text.chars().skip(same.saturating_sub(20)).take(60).collect();
    (part(was), part(would_be))
}
