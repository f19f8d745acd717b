//! How a candidate's decisions compare with the recorded ones: for past orders of the ledger and
//! for live ones (the shadow).

use crate::recorded::{Decisions, Recorded};
use crate::replay::{Candidate, Replayed, replay};
use paygress_core::backend::policy::{Grant, Quote, RefundTerms};
use paygress_core::model::order::Order;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::{Sat, Seconds};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// In what a decision can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// Granted or refused, or the code of the refusal.
    Outcome,
    Tier,
    Price,
    Resources,
    Minimum,
    Seconds,
    Image,
    /// The refund terms.
    Refund,
    /// The pod's template, or a Service.
    Template,
    /// Only the text that the customer sees.
    #[serde(rename = "words")]
    Message,
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
            Self::Message => "message",
        })
    }
}

/// One difference of one order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The order's id.
    pub order: String,
    #[serde(rename = "what")]
    pub aspect: Aspect,
    pub was: String,
    pub would_be: String,
}

/// How a candidate compares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Orders that were compared.
    pub orders: u64,
    /// Orders whose decisions would have been the same.
    pub same: u64,
    /// Orders that differ, by aspect.
    pub differing: BTreeMap<Aspect, u64>,
    /// Calls in which a component failed.
    pub faults: u64,
    /// Net payments of the granted orders: as recorded…
    pub income_sat: Sat,
    /// …and with the candidate.
    pub would_be_income_sat: Sat,
    /// Time that was sold…
    pub sold_seconds: Seconds,
    /// …and with the candidate.
    pub would_be_sold_seconds: Seconds,
    /// Refused orders, by code…
    pub refused: BTreeMap<ErrorType, u64>,
    /// …and with the candidate.
    pub would_be_refused: BTreeMap<ErrorType, u64>,
    /// The first [`MAX_DIFFERENCES`] differences.
    pub differences: Vec<Difference>,
}

/// Differences that are listed one by one; the rest are counted.
pub const MAX_DIFFERENCES: usize = 100;

fn count<T: Ord>(counts: &mut BTreeMap<T, u64>, key: T) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}

impl Comparison {
    /// Compares one order. Orders that are not decided yet, or for which no policy was called, do
    /// not count. Blocks.
    pub fn add(&mut self, order: &Order, candidate: &Candidate) {
        if let Some(recorded) = Recorded::of(order) {
            self.add_recorded(&recorded, candidate);
        }
    }

    pub(crate) fn add_recorded(&mut self, recorded: &Recorded, candidate: &Candidate) {
        let replayed = replay(recorded, candidate);
        self.record(recorded, &replayed);
    }

    fn record(&mut self, recorded: &Recorded, replayed: &Replayed) {
        self.orders = self.orders.saturating_add(1);
        self.faults = self.faults.saturating_add(replayed.faults);
        let (old, new) = (&recorded.decisions, &replayed.decisions);
        let (was, would_be) = (outcome(old, recorded), outcome(new, recorded));
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
        if new == old {
            self.same = self.same.saturating_add(1);
            return;
        }
        let mut found = Differences { order: &recorded.order.id, found: Vec::new() };
        if was.map(drop) == would_be.map(drop) {
            found.compare(old, new);
        } else {
            found.add(Aspect::Outcome, label(was), label(would_be));
        }
        for difference in found.found {
            count(&mut self.differing, difference.aspect);
            if self.differences.len() < MAX_DIFFERENCES {
                self.differences.push(difference);
            }
        }
    }
}

/// For how long an order is granted, or the code of its refusal.
fn outcome(decisions: &Decisions, recorded: &Recorded) -> Result<Seconds, ErrorType> {
    fn check<T>(decision: Option<&Result<T, Refusal>>) -> Result<Option<&T>, ErrorType> {
        decision.map(|decision| decision.as_ref().map_err(|refusal| refusal.code)).transpose()
    }
    check(decisions.image.as_ref())?;
    let quote = check(decisions.quote.as_ref())?.ok_or(ErrorType::InternalError)?;
    let grant = check(decisions.grant.as_ref())?.ok_or(ErrorType::InternalError)?;
    if recorded.payment.net < quote.minimum {
        return Err(ErrorType::InsufficientPayment);
    }
    check(decisions.refund.as_ref())?;
    check(decisions.template.as_ref())?;
    recorded.host_refusal.map_or(Ok(grant.seconds), Err)
}

fn label(outcome: Result<Seconds, ErrorType>) -> String {
    outcome.map_or_else(|code| code.as_str().to_owned(), |_| "granted".to_owned())
}

/// The differences of one order.
struct Differences<'a> {
    order: &'a str,
    found: Vec<Difference>,
}

impl Differences<'_> {
    fn add(&mut self, aspect: Aspect, was: String, would_be: String) {
        self.found.push(Difference { order: self.order.to_owned(), aspect, was, would_be });
    }

    fn compare_texts(&mut self, aspect: Aspect, was: String, would_be: String) {
        if was != would_be {
            self.add(aspect, was, would_be);
        }
    }

    /// Compares two sets of decisions with the same outcome.
    fn compare(&mut self, old: &Decisions, new: &Decisions) {
        // long: one comparison for each field.
        let quote = |text: fn(&Quote) -> String| {
            move |decisions: &Decisions| returned(&decisions.quote).map(text).unwrap_or_default()
        };
        let mut compare = |aspect, text: &dyn Fn(&Decisions) -> String| {
            self.compare_texts(aspect, text(old), text(new));
        };
        compare(Aspect::Tier, &quote(|quote| quote.tier.to_string()));
        compare(
            Aspect::Price,
            &quote(|quote| format!("{} msat for {} s", quote.price.msat.0, quote.price.seconds.0)),
        );
        compare(
            Aspect::Resources,
            &quote(|quote| {
                let resources = quote.resources;
                format!("{} mCPU, {} MiB", resources.cpu_millicores, resources.memory_mib)
            }),
        );
        compare(Aspect::Minimum, &quote(|quote| quote.minimum.to_string()));
        compare(Aspect::Seconds, &|decisions| {
            let seconds = |grant: &Grant| grant.seconds.0.to_string();
            returned(&decisions.grant).map(seconds).unwrap_or_default()
        });
        compare(Aspect::Image, &|decisions| {
            returned(&decisions.image).map(ToString::to_string).unwrap_or_default()
        });
        compare(
            Aspect::Refund,
            &|decisions| match returned(&decisions.refund).copied().flatten() {
                Some(RefundTerms { step, percent }) => {
                    format!("{percent} % in steps of {} s", step.0)
                }
                None => "the host's".to_owned(),
            },
        );
        let template = |decisions: &Decisions| {
            let objects = returned(&decisions.template).map(Vec::as_slice).unwrap_or_default();
            objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
        };
        self.compare_excerpts(Aspect::Template, &template(old), &template(new));
        if self.found.is_empty() {
            // The same decision with another message.
            let excerpt = first_difference(&messages(old), &messages(new));
            self.add(Aspect::Message, excerpt.was, excerpt.would_be);
        }
    }

    fn compare_excerpts(&mut self, aspect: Aspect, was: &str, would_be: &str) {
        if was != would_be {
            let excerpt = first_difference(was, would_be);
            self.compare_texts(aspect, excerpt.was, excerpt.would_be);
        }
    }
}

fn returned<T>(decision: &Option<Result<T, Refusal>>) -> Option<&T> {
    decision.as_ref().and_then(|decision| decision.as_ref().ok())
}

/// What the customer reads of the decisions.
fn messages(decisions: &Decisions) -> String {
    fn message<T>(decision: &Option<Result<T, Refusal>>) -> Option<&str> {
        let refusal = decision.as_ref()?.as_ref().err()?;
        Some(refusal.message.as_str())
    }
    let Decisions { image, quote, grant, refund, template } = decisions;
    let note = returned(grant).and_then(|grant| grant.note.as_deref());
    let messages =
        [message(image), message(quote), message(grant), note, message(refund), message(template)];
    messages.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

struct Excerpt {
    was: String,
    would_be: String,
}

/// Where two texts start to differ, with some context.
fn first_difference(was: &str, would_be: &str) -> Excerpt {
    let same = was.chars().zip(would_be.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| text.chars().skip(same.saturating_sub(20)).take(60).collect();
    Excerpt { was: part(was), would_be: part(would_be) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_shown_as_the_customer_reads_them() {
        let refused = |message: &str| Decisions {
            image: Some(Err(Refusal::new(ErrorType::ImageNotAllowed, message))),
            ..Decisions::default()
        };
        let mut found = Differences { order: "1", found: Vec::new() };
        found.compare(&refused("not on the list"), &refused("not sold here"));
        let [Difference { aspect, was, would_be, .. }] = found.found.as_slice() else {
            panic!("{:?}", found.found)
        };
        assert_eq!(*aspect, Aspect::Message);
        assert_eq!((was.as_str(), would_be.as_str()), ("not on the list", "not sold here"));
    }
}
