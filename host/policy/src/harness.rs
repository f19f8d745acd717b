//! One component by itself, without a set. `paygress-policy-tools` builds the authors' commands on
//! it.

use crate::component::{LoadedComponent, RejectReason};
use crate::engine::{Deadline, PolicyEngine};
use crate::function::{Outcome, admit, catalog, grant, offers, quote, refund, render};
use crate::stats::{CallStats, CallUsage};
use crate::world::{Duration, Images, PodTemplate, Pricing};
use paygress_core::backend::policy::{
    Configured, Context, FaultKind, Grant, ImageOffer, Offer, Payment, Placement, Quote,
    RefundTerms, Rendered, Slot,
};
use paygress_core::model::ids::{HexDigest, ImageRef};
use paygress_core::model::order::OrderView;
use paygress_core::model::refusal::Refusal;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// A call of one of the contract's functions, with its arguments.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    Admit {
        order: &'a OrderView,
        context: &'a Context,
    },
    Catalog {
        context: &'a Context,
    },
    Offers {
        context: &'a Context,
    },
    Quote {
        order: &'a OrderView,
        context: &'a Context,
    },
    Grant {
        order: &'a OrderView,
        quote: &'a Quote,
        payment: &'a Payment,
        context: &'a Context,
    },
    Refund {
        order: &'a OrderView,
        quote: &'a Quote,
        payment: &'a Payment,
        grant: &'a Grant,
        context: &'a Context,
    },
    Render {
        order: &'a OrderView,
        quote: &'a Quote,
        grant: &'a Grant,
        placement: &'a Placement,
    },
}

/// What a function returned. Serialized as the bare value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Output {
    Image(ImageRef),
    /// Empty from a component before contract 1.2.
    Images(Vec<ImageOffer>),
    Offers(Vec<Offer>),
    Quote(Quote),
    Grant(Grant),
    /// `None` from a component of contract 1.0.
    RefundTerms(Option<RefundTerms>),
    Rendered(Rendered),
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum CallResult {
    Returned(Output),
    Refused(Refusal),
    Failed(FaultKind),
}

/// A call's result and its cost.
#[derive(Clone, Debug)]
pub struct CallRecord {
    pub result: CallResult,
    /// Time, including a fresh instance, and `configure` unless it is of a snapshot.
    pub took: std::time::Duration,
    /// Size of the guest's memory.
    pub memory_bytes: u64,
    /// Instructions; 0 unless the engine is [`PolicyEngine::with_fuel`].
    pub fuel: u64,
}

/// The function belongs to another slot than the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a component for the slot {0} does not have this function")]
pub struct WrongSlot(pub Slot);

enum AnyComponent {
    Images(LoadedComponent<Images>),
    Pricing(LoadedComponent<Pricing>),
    Duration(LoadedComponent<Duration>),
    PodTemplate(LoadedComponent<PodTemplate>),
}

/// One component in its slot.
pub struct Harness {
    slot: Slot,
    component: AnyComponent,
}

macro_rules! any {
    ($harness:expr, $component:ident => $done:expr) => {
        match &$harness.component {
            AnyComponent::Images($component) => $done,
            AnyComponent::Pricing($component) => $done,
            AnyComponent::Duration($component) => $done,
            AnyComponent::PodTemplate($component) => $done,
        }
    };
}

impl Harness {
    /// Compiles, checks and configures a component. Blocks: compiling takes seconds.
    ///
    /// # Errors
    /// [`RejectReason`].
    pub fn load(
        engine: &Arc<PolicyEngine>,
        slot: Slot,
        component: &[u8],
        settings: &str,
    ) -> Result<Self, RejectReason> {
        let component = match slot {
            Slot::Images => {
                AnyComponent::Images(LoadedComponent::load(engine, component, settings)?)
            }
            Slot::Pricing => {
                AnyComponent::Pricing(LoadedComponent::load(engine, component, settings)?)
            }
            Slot::Duration => {
                AnyComponent::Duration(LoadedComponent::load(engine, component, settings)?)
            }
            Slot::PodTemplate => {
                AnyComponent::PodTemplate(LoadedComponent::load(engine, component, settings)?)
            }
        };
        Ok(Self { slot, component })
    }

    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The version of the contract that the component implements.
    #[must_use]
    pub fn contract(&self) -> &'static str {
        any!(self, component => component.contract.as_str())
    }

    /// The digest of the component.
    #[must_use]
    pub fn digest(&self) -> &HexDigest {
        any!(self, component => &component.digest)
    }

    /// When the component takes its settings.
    #[must_use]
    pub fn configured(&self) -> Configured {
        any!(self, component => component.configured)
    }

    /// The JSON Schema of the component's settings.
    #[must_use]
    pub fn schema(&self) -> &str {
        any!(self, component => &component.schema)
    }

    /// Calls the component, on this thread.
    ///
    /// # Errors
    /// The function belongs to another slot.
    pub fn call(&self, call: Call<'_>) -> Result<CallRecord, WrongSlot> {
        Ok(match (&self.component, call) {
            (AnyComponent::Images(component), Call::Admit { order, context }) => {
                record(&component.stats, Output::Image, || {
                    admit(order, context)(component, Deadline::Full)
                })
            }
            (AnyComponent::Images(component), Call::Catalog { context }) => {
                record(&component.stats, Output::Images, || {
                    catalog(context)(component, Deadline::Full)
                })
            }
            (AnyComponent::Pricing(component), Call::Offers { context }) => {
                record(&component.stats, Output::Offers, || {
                    offers(context)(component, Deadline::Full)
                })
            }
            (AnyComponent::Pricing(component), Call::Quote { order, context }) => {
                record(&component.stats, Output::Quote, || {
                    quote(order, context)(component, Deadline::Full)
                })
            }
            (AnyComponent::Duration(component), Call::Grant { order, quote, payment, context }) => {
                record(&component.stats, Output::Grant, || {
                    grant(order, quote, payment, context)(component, Deadline::Full)
                })
            }
            (
                AnyComponent::Duration(component),
                Call::Refund { order, quote, payment, grant, context },
            ) => record(&component.stats, Output::RefundTerms, || {
                refund(order, quote, payment, grant, context)(component, Deadline::Full)
            }),
            (
                AnyComponent::PodTemplate(component),
                Call::Render { order, quote, grant, placement },
            ) => record(&component.stats, Output::Rendered, || {
                render(order, quote, grant, placement)(component, Deadline::Full)
            }),
            _ => return Err(WrongSlot(self.slot)),
        })
    }
}

fn record<T>(
    stats: &CallStats,
    output: fn(T) -> Output,
    call: impl FnOnce() -> Outcome<T>,
) -> CallRecord {
    let begun = Instant::now();
    let outcome = call();
    let took = begun.elapsed();
    let CallUsage { memory_bytes, fuel } = stats.last_usage();
    let result = match outcome {
        Ok(Ok(value)) => CallResult::Returned(output(value)),
        Ok(Err(refusal)) => CallResult::Refused(refusal),
        Err(kind) => CallResult::Failed(kind),
    };
    CallRecord { result, took, memory_bytes, fuel }
}
