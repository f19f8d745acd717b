//! One component by itself, asked what its author wants to know: for `paygress policy check`,
//! `eval`, `test` and `bench`.

use crate::engine::PolicyEngine;
use crate::function::{Answer, admit, grant, offers, quote, refund, render};
use crate::set::sample_placement;
use crate::slot::{Duration, Images, LoadedComponent, PodTemplate, Pricing, Rejected};
use crate::stats::CallStats;
use paygress_core::backend::policy::{
    Context, FaultKind, Grant, LeaseView, Payment, Placement, Price, Quote, Resources, Slot,
};
use paygress_core::model::order::OrderView;
use paygress_core::model::refusal::Refusal;
use paygress_core::model::units::{Msat, Sat, Seconds, UnixTime};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// What can be asked: the functions of the four interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Function {
    /// Slot images.
    Admit,
    /// Slot pricing.
    Offers,
    /// Slot pricing.
    Quote,
    /// Slot duration.
    Grant,
    /// Slot duration.
    Refund,
    /// Slot pod-template.
    Render,
}

impl Function {
    /// What a slot is asked first of all.
    #[must_use]
    pub fn of(slot: Slot) -> Self {
        match slot {
            Slot::Images => Self::Admit,
            Slot::Pricing => Self::Quote,
            Slot::Duration => Self::Grant,
            Slot::PodTemplate => Self::Render,
        }
    }

    fn slot(self) -> Slot {
        match self {
            Self::Admit => Slot::Images,
            Self::Offers | Self::Quote => Slot::Pricing,
            Self::Grant | Self::Refund => Slot::Duration,
            Self::Render => Slot::PodTemplate,
        }
    }
}

/// A question, and all that its answer may depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestCase {
    /// The function.
    pub ask: Function,
    /// The order.
    pub order: OrderView,
    /// The world.
    pub context: Context,
    /// The token's worth.
    pub payment: Payment,
    /// What pricing said.
    pub quote: Quote,
    /// What duration said.
    pub grant: Grant,
    /// Where the pod goes.
    pub placement: Placement,
}

/// 2026-01-01, noon: the same answer every day.
const SAMPLE_TIME: UnixTime = UnixTime(1_767_268_800);

impl TestCase {
    /// An order as they mostly are: a new pod, nothing special wanted, 60 sat for an hour.
    #[must_use]
    pub fn sample(slot: Slot) -> Self {
        let resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };
        let order = OrderView {
            id: "sample".to_owned(),
            customer: "c".repeat(64),
            username: "alice".to_owned(),
            ..OrderView::default()
        };
        Self {
            ask: Function::of(slot),
            order,
            context: Context {
                now: SAMPLE_TIME,
                capacity_leases: 100,
                active_leases: 10,
                customer_leases: Vec::new(),
            },
            payment: Payment {
                mint: "https://mint.example".to_owned(),
                gross: Sat(61),
                fee: Sat(1),
                net: Sat(60),
            },
            quote: Quote {
                tier: "standard".to_owned(),
                resources,
                price: Price { msat: Msat(1_000), seconds: Seconds(60) },
                minimum: Sat(1),
            },
            grant: Grant { seconds: Seconds(3_600), note: None },
            placement: sample_placement("registry.example/ssh:1".to_owned(), resources),
        }
    }

    /// The sample with what an author writes of it; a name that there is not is an error.
    ///
    /// # Errors
    /// In words.
    pub fn read(slot: Slot, written: &Value) -> Result<Self, String> {
        if !written.is_object() {
            return Err("an order is a JSON object".to_owned());
        }
        let mut whole = json!(Self::sample(slot));
        // Absent in the sample, and yet there is such a thing.
        if written.pointer("/order/extends").is_some_and(Value::is_object)
            && let Some(extends) = whole.pointer_mut("/order/extends")
        {
            *extends = json!(lease("lease0", true));
        }
        merge(&mut whole, written, "")?;
        let case: Self = serde_json::from_value(whole).map_err(|error| error.to_string())?;
        match case.ask.slot() == slot {
            true => Ok(case),
            false => Err(format!("/ask: {} is not asked of the slot {slot}", json!(case.ask))),
        }
    }

    /// Orders as strangers send them, each with a name: what an author should have thought of.
    #[must_use]
    pub fn samples(slot: Slot) -> Vec<(&'static str, Self)> {
        let with = |change: fn(&mut Self)| {
            let mut case = Self::sample(slot);
            change(&mut case);
            case
        };
        let mut samples = vec![
            ("an order with nothing special", with(|_| ())),
            ("an unknown tier", with(|case| case.order.tier = Some("no-such-tier".to_owned()))),
            (
                "an image by name",
                with(|case| case.order.image = Some("docker.io/library/alpine:3".to_owned())),
            ),
            (
                "an image that is no name",
                with(|case| case.order.image = Some("\u{1f980} ".repeat(102))),
            ),
            ("a customer nobody knows", with(|case| case.order.customer = String::new())),
            (
                "a bearer over HTTP",
                with(|case| case.order.customer = format!("bearer:{}", "b".repeat(64))),
            ),
            (
                "a wanted time that is too long",
                with(|case| case.order.wanted = Some(Seconds(u64::MAX))),
            ),
            ("no time wanted at all", with(|case| case.order.wanted = Some(Seconds(0)))),
            (
                "one sat",
                with(|case| {
                    (case.payment.gross, case.payment.fee, case.payment.net) =
                        (Sat(1), Sat(0), Sat(1))
                }),
            ),
            (
                "nothing left after the fee",
                with(|case| (case.payment.gross, case.payment.net) = (Sat(1), Sat(0))),
            ),
            ("all the money there is", with(|case| case.payment.net = Sat(2_100_000_000_000_000))),
            ("a price of nothing", with(|case| case.quote.price.msat = Msat(0))),
            (
                "a full cluster",
                with(|case| case.context.active_leases = case.context.capacity_leases),
            ),
            (
                "a cluster without places",
                with(|case| (case.context.capacity_leases, case.context.active_leases) = (0, 0)),
            ),
            ("1970", with(|case| case.context.now = UnixTime(0))),
            (
                "64 leases",
                with(|case| {
                    case.context.customer_leases =
                        (0..64).map(|n| lease(&format!("lease{n}"), true)).collect()
                }),
            ),
            (
                "more time for his own pod",
                with(|case| case.order.extends = Some(lease("lease0", true))),
            ),
            (
                "more time for another's pod",
                with(|case| case.order.extends = Some(lease("lease0", false))),
            ),
            (
                "more time for a pod that is over",
                with(|case| {
                    case.order.extends =
                        Some(LeaseView { remaining: Seconds(0), ..lease("lease0", true) })
                }),
            ),
        ];
        let others: &[Function] = match slot {
            Slot::Pricing => &[Function::Offers],
            Slot::Duration => &[Function::Refund],
            Slot::Images | Slot::PodTemplate => &[],
        };
        samples.extend(
            others
                .iter()
                .map(|ask| ("the other question", Self { ask: *ask, ..Self::sample(slot) })),
        );
        samples
    }
}

fn lease(id: &str, own: bool) -> LeaseView {
    LeaseView {
        id: id.to_owned(),
        tier: "standard".to_owned(),
        image: "registry.example/ssh:1".to_owned(),
        created_at: UnixTime(SAMPLE_TIME.0.saturating_sub(1_800)),
        expires_at: UnixTime(SAMPLE_TIME.0.saturating_add(1_800)),
        remaining: Seconds(1_800),
        owned_by_customer: own,
    }
}

/// Puts what is written over what is there.
fn merge(there: &mut Value, written: &Value, path: &str) -> Result<(), String> {
    match (there, written) {
        (Value::Object(there), Value::Object(written)) => {
            for (name, value) in written {
                let path = format!("{path}/{name}");
                let Some(place) = there.get_mut(name) else {
                    let names = there.keys().cloned().collect::<Vec<_>>().join(", ");
                    return Err(format!("{path}: there is no such thing; there are {names}"));
                };
                merge(place, value, &path)?;
            }
        }
        (there, written) => *there = written.clone(),
    }
    Ok(())
}

/// What a component said.
#[derive(Clone, Debug, PartialEq)]
pub enum CallResult {
    /// Yes, and what.
    Yes(Value),
    /// No.
    No(Refusal),
    /// It failed.
    Failed(FaultKind),
}

/// An answer, and what it cost.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// The answer.
    pub said: CallResult,
    /// The time, with a fresh instance and `configure`.
    pub took: std::time::Duration,
    /// The memory that it had.
    pub memory_bytes: u64,
    /// The instructions; 0 unless the machine is [`PolicyEngine::with_fuel`].
    pub fuel: u64,
}

enum ComponentRef {
    Images(LoadedComponent<Images>),
    Pricing(LoadedComponent<Pricing>),
    Duration(LoadedComponent<Duration>),
    PodTemplate(LoadedComponent<PodTemplate>),
}

/// A component in its slot, by itself.
pub struct Harness {
    slot: Slot,
    filling: ComponentRef,
}

macro_rules! filled {
    ($trial:expr, $filled:ident => $done:expr) => {
        match &$trial.filling {
            ComponentRef::Images($filled) => $done,
            ComponentRef::Pricing($filled) => $done,
            ComponentRef::Duration($filled) => $done,
            ComponentRef::PodTemplate($filled) => $done,
        }
    };
}

fn heard<T: Serialize>(tally: &CallStats, ask: impl FnOnce() -> Answer<T>) -> CallRecord {
    let begun = Instant::now();
    let answer = ask();
    let took = begun.elapsed();
    let (memory_bytes, fuel) = tally.last_usage();
    let said = match answer {
        Ok(Ok(value)) => CallResult::Yes(json!(value)),
        Ok(Err(refusal)) => CallResult::No(refusal),
        Err(kind) => CallResult::Failed(kind),
    };
    CallRecord { said, took, memory_bytes, fuel }
}

impl Harness {
    /// Compiles, checks against the contract and configures.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn load(
        machine: &Arc<PolicyEngine>,
        slot: Slot,
        component: &[u8],
        settings: &str,
    ) -> Result<Self, Rejected> {
        let filling = match slot {
            Slot::Images => {
                ComponentRef::Images(LoadedComponent::load(machine, component, settings)?)
            }
            Slot::Pricing => {
                ComponentRef::Pricing(LoadedComponent::load(machine, component, settings)?)
            }
            Slot::Duration => {
                ComponentRef::Duration(LoadedComponent::load(machine, component, settings)?)
            }
            Slot::PodTemplate => {
                ComponentRef::PodTemplate(LoadedComponent::load(machine, component, settings)?)
            }
        };
        Ok(Self { slot, filling })
    }

    /// Its slot.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The version of the contract that it keeps to.
    #[must_use]
    pub fn contract(&self) -> &'static str {
        filled!(self, filled => filled.contract.as_str())
    }

    /// SHA-256 of the component, in hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        filled!(self, filled => &filled.digest)
    }

    /// The JSON Schema of its settings, as it gives it.
    #[must_use]
    pub fn schema(&self) -> &str {
        filled!(self, filled => &filled.schema)
    }

    /// Asks it. A question of another slot is not answered, which [`TestCase::read`] rules out.
    #[must_use]
    pub fn ask(&self, case: &TestCase) -> CallRecord {
        let TestCase { ask, order, context, payment, quote: quoted, grant: granted, placement } =
            case;
        match (&self.filling, ask) {
            (ComponentRef::Images(filled), _) => {
                heard(&filled.tally, || admit(order, context)(filled))
            }
            (ComponentRef::Pricing(filled), Function::Offers) => {
                heard(&filled.tally, || offers(context)(filled))
            }
            (ComponentRef::Pricing(filled), _) => {
                heard(&filled.tally, || quote(order, context)(filled))
            }
            (ComponentRef::Duration(filled), Function::Refund) => {
                heard(&filled.tally, || refund(order, quoted, payment, granted, context)(filled))
            }
            (ComponentRef::Duration(filled), _) => {
                heard(&filled.tally, || grant(order, quoted, payment, context)(filled))
            }
            (ComponentRef::PodTemplate(filled), _) => {
                heard(&filled.tally, || render(order, granted, placement)(filled))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_the_sample_with_what_is_written() {
        let case = TestCase::read(
            Slot::Duration,
            &json!({"ask": "refund", "payment": {"net": 5}, "order": {"extends": {"remaining": 7}}}),
        );
        let case = case.unwrap();
        assert_eq!(
            (case.ask, case.payment.net, case.payment.gross),
            (Function::Refund, Sat(5), Sat(61))
        );
        assert_eq!(case.order.extends.unwrap().remaining, Seconds(7));
        for (written, why) in [
            (json!({"ordr": {}}), "/ordr: there is no such thing"),
            (json!({"order": {"teir": "x"}}), "/order/teir"),
            (json!({"ask": "render"}), "not asked of the slot duration"),
            (json!({"payment": {"net": -1}}), "-1"),
            (json!([]), "a JSON object"),
            (json!({"payment": []}), "invalid"),
        ] {
            let told = TestCase::read(Slot::Duration, &written).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
