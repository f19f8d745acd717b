//! Four components that decide together: what is published, and exchanged, as one value.

use crate::engine::PolicyEngine;
use crate::function::{Answer, admit, grant, offers, quote, refund, render};
use crate::slot::{Duration, Images, LoadedComponent, PodTemplate, Pricing, Rejected, World};
use async_trait::async_trait;
use paygress_core::backend::policy::{
    Context, Digests, Fault, Grant, Offer, Payment, Placement, PolicyError, PolicySet, Price,
    Quote, RefundTerms, Rendered, Resources, Slot, SlotStats,
};
use paygress_core::model::order::OrderView;
use paygress_core::model::refusal::Refusal;
use paygress_core::model::units::{Msat, Sat, Seconds, UnixTime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

/// A component's bytes and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The component.
    pub component: Vec<u8>,
    /// A JSON object.
    pub settings: String,
}

impl Source {
    /// A component that is left to its defaults.
    #[must_use]
    pub fn plain(component: Vec<u8>) -> Self {
        Self { component, settings: "{}".to_owned() }
    }
}

/// Components for some of the slots.
pub type Sources = BTreeMap<Slot, Source>;

/// Why a component was not taken; the one in force stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {slot} policy was not taken: {reason}")]
pub struct LoadError {
    /// The slot.
    pub slot: Slot,
    /// Why.
    pub reason: Rejected,
}

/// Four components that decide together.
#[derive(Clone)]
pub struct ComponentSet {
    pub(crate) images: LoadedComponent<Images>,
    pub(crate) pricing: LoadedComponent<Pricing>,
    pub(crate) duration: LoadedComponent<Duration>,
    pub(crate) pod_template: LoadedComponent<PodTemplate>,
}

/// The same for each slot, in their order: the four have four types, so that no loop can do it.
macro_rules! each {
    ($set:expr, $filled:ident => $done:expr) => {{
        let set = $set;
        [
            {
                let $filled = &set.images;
                $done
            },
            {
                let $filled = &set.pricing;
                $done
            },
            {
                let $filled = &set.duration;
                $done
            },
            {
                let $filled = &set.pod_template;
                $done
            },
        ]
    }};
}

impl ComponentSet {
    /// Loads four components and tries them on a sample order.
    ///
    /// # Errors
    /// Every component that was not taken, with its reason.
    pub fn load(machine: &Arc<PolicyEngine>, sources: &Sources) -> Result<Self, Vec<LoadError>> {
        fn first<W: World>(
            machine: &Arc<PolicyEngine>,
            sources: &Sources,
        ) -> Result<LoadedComponent<W>, LoadError> {
            fill(machine, sources)
                .unwrap_or(Err(LoadError { slot: W::SLOT, reason: Rejected::Missing }))
        }
        match (
            first(machine, sources),
            first(machine, sources),
            first(machine, sources),
            first(machine, sources),
        ) {
            (Ok(images), Ok(pricing), Ok(duration), Ok(pod_template)) => {
                let set = Self { images, pricing, duration, pod_template };
                set.dry_run().map_err(|error| vec![error])?;
                Ok(set)
            }
            (images, pricing, duration, pod_template) => {
                Err([images.err(), pricing.err(), duration.err(), pod_template.err()]
                    .into_iter()
                    .flatten()
                    .collect())
            }
        }
    }

    /// This set with other components in some of its slots, tried on a sample order.
    ///
    /// # Errors
    /// Every component that was not taken, with its reason.
    pub fn with(
        &self,
        machine: &Arc<PolicyEngine>,
        sources: &Sources,
    ) -> Result<Self, Vec<LoadError>> {
        fn exchange<W: World>(
            filled: &mut LoadedComponent<W>,
            machine: &Arc<PolicyEngine>,
            sources: &Sources,
            errors: &mut Vec<LoadError>,
        ) {
            match fill(machine, sources) {
                None => {}
                Some(Ok(new)) => *filled = new,
                Some(Err(error)) => errors.push(error),
            }
        }
        let (mut set, mut errors) = (self.clone(), Vec::new());
        exchange(&mut set.images, machine, sources, &mut errors);
        exchange(&mut set.pricing, machine, sources, &mut errors);
        exchange(&mut set.duration, machine, sources, &mut errors);
        exchange(&mut set.pod_template, machine, sources, &mut errors);
        if errors.is_empty() {
            set.dry_run().map_err(|error| vec![error])?;
            Ok(set)
        } else {
            Err(errors)
        }
    }

    /// How its components do.
    #[must_use]
    pub fn report(&self) -> Vec<SlotStats> {
        each!(self, filled => filled.report()).into()
    }

    /// Counts a call of a slot.
    pub(crate) fn note<T>(&self, slot: Slot, took: std::time::Duration, answer: &Answer<T>) {
        for (tally, of) in each!(self, filled => &filled.tally).into_iter().zip(Slot::ALL) {
            if of == slot {
                tally.note(took, answer);
            }
        }
    }

    /// Tries a sample order. A refusal is an answer; a fault is not.
    fn dry_run(&self) -> Result<(), LoadError> {
        fn tried<T>(slot: Slot, answer: Answer<T>) -> Result<Option<T>, LoadError> {
            answer
                .map(Result::ok)
                .map_err(|kind| LoadError { slot, reason: Rejected::Faulty(kind) })
        }
        let order = OrderView {
            id: "sample".to_owned(),
            username: "user".to_owned(),
            ..OrderView::default()
        };
        let context = Context { now: UnixTime::now(), capacity_leases: 1, ..Context::default() };
        let image = tried(Slot::Images, admit(&order, &context)(&self.images))?
            .unwrap_or_else(|| "example.invalid/image:1".to_owned());
        tried(Slot::Pricing, offers(&context)(&self.pricing))?;
        let quoted =
            tried(Slot::Pricing, quote(&order, &context)(&self.pricing))?.unwrap_or_else(|| {
                Quote {
                    tier: "sample".to_owned(),
                    resources: Resources { cpu_millicores: 1_000, memory_mib: 1_024 },
                    price: Price { msat: Msat(1_000), seconds: Seconds(60) },
                    minimum: Sat(1),
                }
            });
        let payment = Payment {
            mint: "https://mint.invalid".to_owned(),
            gross: Sat(1_000),
            fee: Sat(0),
            net: Sat(1_000),
        };
        let granted =
            tried(Slot::Duration, grant(&order, &quoted, &payment, &context)(&self.duration))?
                .unwrap_or(Grant { seconds: Seconds(60), note: None });
        tried(
            Slot::Duration,
            refund(&order, &quoted, &payment, &granted, &context)(&self.duration),
        )?;
        let placement = sample_placement(image, quoted.resources);
        tried(Slot::PodTemplate, render(&order, &granted, &placement)(&self.pod_template)).map(drop)
    }
}

/// Where a pod would go that nobody has placed.
pub(crate) fn sample_placement(image: String, resources: Resources) -> Placement {
    Placement {
        pod_name: "ssh-pod-sample".to_owned(),
        image,
        resources,
        host_port: 30_000,
        container_port: paygress_core::backend::cluster::CONTAINER_PORT,
        secret_name: "ssh-pod-sample".to_owned(),
        secret_mount_path: paygress_core::backend::cluster::LOGIN_MOUNT_PATH.to_owned(),
    }
}

fn fill<W: World>(
    machine: &Arc<PolicyEngine>,
    sources: &Sources,
) -> Option<Result<LoadedComponent<W>, LoadError>> {
    let source = sources.get(&W::SLOT)?;
    Some(
        LoadedComponent::load(machine, &source.component, &source.settings)
            .map_err(|reason| LoadError { slot: W::SLOT, reason }),
    )
}

/// Asks on a thread that may be held, counts, and tells a refusal from a fault. Faults are the
/// operator's to know.
async fn ask<W: World, T: Send + 'static>(
    filled: &LoadedComponent<W>,
    question: impl FnOnce(&LoadedComponent<W>) -> Answer<T> + Send + 'static,
) -> Result<T, PolicyError> {
    let begun = Instant::now();
    let span = tracing::info_span!(
        "policy",
        slot = W::SLOT.as_str(),
        digest = filled.digest,
        outcome = tracing::field::Empty
    );
    let answer = filled.call_blocking(question).instrument(span.clone()).await;
    let answer =
        answer.map_err(|kind| Fault { slot: W::SLOT, digest: filled.digest.clone(), kind });
    filled.tally.note(begun.elapsed(), &answer);
    span.record("outcome", outcome(&answer));
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(refusal)) => Err(refusal.into()),
        Err(fault) => {
            tracing::error!(%fault, "a policy failed");
            Err(fault.into())
        }
    }
}

fn outcome<T>(answer: &Result<Result<T, Refusal>, Fault>) -> &'static str {
    match answer {
        Ok(Ok(_)) => "yes",
        Ok(Err(refusal)) => refusal.code.as_str(),
        Err(_) => "fault",
    }
}

#[async_trait]
impl PolicySet for ComponentSet {
    fn digests(&self) -> Digests {
        let [images, pricing, duration, pod_template] =
            each!(self, filled => filled.digest.clone());
        Digests { images, pricing, duration, pod_template }
    }

    async fn admit(&self, order: &OrderView, context: &Context) -> Result<String, PolicyError> {
        ask(&self.images, admit(order, context)).await
    }

    async fn offers(&self, context: &Context) -> Result<Vec<Offer>, PolicyError> {
        ask(&self.pricing, offers(context)).await
    }

    async fn quote(&self, order: &OrderView, context: &Context) -> Result<Quote, PolicyError> {
        ask(&self.pricing, quote(order, context)).await
    }

    async fn grant(
        &self,
        order: &OrderView,
        quote: &Quote,
        payment: &Payment,
        context: &Context,
    ) -> Result<Grant, PolicyError> {
        ask(&self.duration, grant(order, quote, payment, context)).await
    }

    async fn refund(
        &self,
        order: &OrderView,
        quote: &Quote,
        payment: &Payment,
        grant: &Grant,
        context: &Context,
    ) -> Result<Option<RefundTerms>, PolicyError> {
        // Nothing is called, so nothing is counted, where the component knows no terms.
        if !self.duration.knows_refunds() {
            return Ok(None);
        }
        ask(&self.duration, refund(order, quote, payment, grant, context)).await
    }

    async fn render(
        &self,
        order: &OrderView,
        grant: &Grant,
        placement: &Placement,
    ) -> Result<Rendered, PolicyError> {
        ask(&self.pod_template, render(order, grant, placement)).await
    }
}
