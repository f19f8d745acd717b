//! Four components that decide together, published and replaced as one value.

use crate::component::{LoadedComponent, RejectReason};
use crate::engine::{Deadline, PolicyEngine};
use crate::function::{Outcome, admit, catalog, grant, offers, quote, refund, render};
use crate::world::{Duration, Images, PodTemplate, Pricing, World};
use async_trait::async_trait;
use paygress_core::backend::policy::{
    CallFault, Context, Digests, Grant, ImageOffer, Offer, Payment, Placement, PolicyError,
    PolicySet, Price, Quote, RefundTerms, Rendered, Resources, SettingsDigests, Slot, SlotStats,
};
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::{ImageRef, MintUrl, TierId};
use paygress_core::model::order::OrderView;
use paygress_core::model::refusal::Refusal;
use paygress_core::model::units::{Msat, Sat, Seconds, UnixTime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

/// A component and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub component: Vec<u8>,
    /// A JSON object.
    pub settings: String,
}

impl Source {
    /// A component with its default settings.
    #[must_use]
    pub fn plain(component: Vec<u8>) -> Self {
        Self { component, settings: "{}".to_owned() }
    }
}

/// Components for some of the slots.
pub type Sources = BTreeMap<Slot, Source>;

/// Why a component was not loaded. The active one stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {slot} policy was rejected: {reason}")]
pub struct LoadError {
    pub slot: Slot,
    #[source]
    pub reason: RejectReason,
}

/// Four components that decide together.
#[derive(Clone)]
pub struct ComponentSet {
    pub(crate) images: LoadedComponent<Images>,
    pub(crate) pricing: LoadedComponent<Pricing>,
    pub(crate) duration: LoadedComponent<Duration>,
    pub(crate) pod_template: LoadedComponent<PodTemplate>,
}

/// Components for some of the slots, compiled and configured.
pub(crate) struct LoadedComponents {
    images: Option<LoadedComponent<Images>>,
    pricing: Option<LoadedComponent<Pricing>>,
    duration: Option<LoadedComponent<Duration>>,
    pod_template: Option<LoadedComponent<PodTemplate>>,
}

impl LoadedComponents {
    /// Loads them. Blocks: compiling takes seconds.
    pub(crate) fn load(
        engine: &Arc<PolicyEngine>,
        sources: &Sources,
    ) -> Result<Self, Vec<LoadError>> {
        fn load<W: World>(
            engine: &Arc<PolicyEngine>,
            sources: &Sources,
            errors: &mut Vec<LoadError>,
        ) -> Option<LoadedComponent<W>> {
            load_slot(engine, sources)?.map_err(|error| errors.push(error)).ok()
        }
        let mut errors = Vec::new();
        let loaded = Self {
            images: load(engine, sources, &mut errors),
            pricing: load(engine, sources, &mut errors),
            duration: load(engine, sources, &mut errors),
            pod_template: load(engine, sources, &mut errors),
        };
        if errors.is_empty() { Ok(loaded) } else { Err(errors) }
    }

    /// The same components, with statistics of their own.
    pub(crate) fn with_new_stats(&self) -> Self {
        let Self { images, pricing, duration, pod_template } = self;
        Self {
            images: images.as_ref().map(LoadedComponent::with_new_stats),
            pricing: pricing.as_ref().map(LoadedComponent::with_new_stats),
            duration: duration.as_ref().map(LoadedComponent::with_new_stats),
            pod_template: pod_template.as_ref().map(LoadedComponent::with_new_stats),
        }
    }
}

/// Evaluates an expression for each slot, in their order. The four have different types, so that a
/// loop cannot do it.
macro_rules! each {
    ($set:expr, $component:ident => $done:expr) => {{
        let set = $set;
        [
            {
                let $component = &set.images;
                $done
            },
            {
                let $component = &set.pricing;
                $done
            },
            {
                let $component = &set.duration;
                $done
            },
            {
                let $component = &set.pod_template;
                $done
            },
        ]
    }};
}

impl ComponentSet {
    /// Loads four components and tests them on a sample order. Blocks: compiling takes seconds.
    ///
    /// # Errors
    /// Every component that was rejected, with its reason.
    pub fn load(engine: &Arc<PolicyEngine>, sources: &Sources) -> Result<Self, Vec<LoadError>> {
        fn required<W: World>(
            engine: &Arc<PolicyEngine>,
            sources: &Sources,
        ) -> Result<LoadedComponent<W>, LoadError> {
            load_slot(engine, sources)
                .unwrap_or(Err(LoadError { slot: W::SLOT, reason: RejectReason::Missing }))
        }
        match (
            required(engine, sources),
            required(engine, sources),
            required(engine, sources),
            required(engine, sources),
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

    /// This set with other components in some of its slots, tested on a sample order. Blocks.
    ///
    /// # Errors
    /// Every component that was rejected, with its reason.
    pub fn with(
        &self,
        engine: &Arc<PolicyEngine>,
        sources: &Sources,
    ) -> Result<Self, Vec<LoadError>> {
        self.with_loaded(LoadedComponents::load(engine, sources)?)
    }

    /// The same with components that are loaded already: nothing is compiled.
    pub(crate) fn with_loaded(&self, loaded: LoadedComponents) -> Result<Self, Vec<LoadError>> {
        let LoadedComponents { images, pricing, duration, pod_template } = loaded;
        let set = Self {
            images: images.unwrap_or_else(|| self.images.clone()),
            pricing: pricing.unwrap_or_else(|| self.pricing.clone()),
            duration: duration.unwrap_or_else(|| self.duration.clone()),
            pod_template: pod_template.unwrap_or_else(|| self.pod_template.clone()),
        };
        set.dry_run().map_err(|error| vec![error])?;
        Ok(set)
    }

    #[must_use]
    pub fn report(&self) -> Vec<SlotStats> {
        each!(self, component => component.report()).into()
    }

    pub(crate) fn record_call<T>(
        &self,
        slot: Slot,
        took: std::time::Duration,
        result: &Outcome<T>,
    ) {
        for (stats, of) in each!(self, component => &component.stats).into_iter().zip(Slot::ALL) {
            if of == slot {
                stats.record(took, result);
            }
        }
    }

    /// Runs a sample order. A refusal is fine; a fault is not.
    fn dry_run(&self) -> Result<(), LoadError> {
        fn tested<T>(slot: Slot, result: Outcome<T>) -> Result<Option<T>, LoadError> {
            result
                .map(Result::ok)
                .map_err(|kind| LoadError { slot, reason: RejectReason::Faulty(kind) })
        }
        let order = OrderView {
            id: "sample".to_owned(),
            username: "user".to_owned(),
            ..OrderView::default()
        };
        let context = Context { now: UnixTime::now(), capacity_leases: 1, ..Context::default() };
        let image = tested(Slot::Images, admit(&order, &context)(&self.images, Deadline::Full))?
            .unwrap_or_else(ImageRef::of_dry_run);
        tested(Slot::Images, catalog(&context)(&self.images, Deadline::Full))?;
        tested(Slot::Pricing, offers(&context)(&self.pricing, Deadline::Full))?;
        let quoted = tested(Slot::Pricing, quote(&order, &context)(&self.pricing, Deadline::Full))?
            .unwrap_or_else(|| Quote {
                tier: TierId::of_dry_run(),
                resources: Resources { cpu_millicores: 1_000, memory_mib: 1_024 },
                price: Price { msat: Msat(1_000), seconds: Seconds(60) },
                minimum: Sat(1),
            });
        let payment = Payment {
            mint: MintUrl::of_dry_run(),
            gross: Sat(1_000),
            fee: Sat(0),
            net: Sat(1_000),
        };
        let granted = tested(
            Slot::Duration,
            grant(&order, &quoted, &payment, &context)(&self.duration, Deadline::Full),
        )?
        .unwrap_or(Grant { seconds: Seconds(60), note: None });
        tested(
            Slot::Duration,
            refund(&order, &quoted, &payment, &granted, &context)(&self.duration, Deadline::Full),
        )?;
        let access = self.pod_template.engine.access().clone();
        let placement = placement_by(access, image, quoted.resources);
        tested(
            Slot::PodTemplate,
            render(&order, &quoted, &granted, &placement)(&self.pod_template, Deadline::Full),
        )
        .map(drop)
    }
}

/// The placement of a pod that is only rendered for a test, with a port of the nodes.
#[must_use]
pub fn sample_placement(image: ImageRef, resources: Resources) -> Placement {
    placement_by(AccessModes::default(), image, resources)
}

/// The same of a pod that is reached so.
pub(crate) fn placement_by(
    access: AccessModes,
    image: ImageRef,
    resources: Resources,
) -> Placement {
    Placement {
        pod_name: "ssh-pod-sample".to_owned(),
        image,
        resources,
        host_port: access.has_port().then_some(30_000),
        access,
        container_port: paygress_core::backend::cluster::CONTAINER_PORT,
        secret_name: "ssh-pod-sample".to_owned(),
        secret_mount_path: paygress_core::backend::cluster::LOGIN_MOUNT_PATH.to_owned(),
    }
}

fn load_slot<W: World>(
    engine: &Arc<PolicyEngine>,
    sources: &Sources,
) -> Option<Result<LoadedComponent<W>, LoadError>> {
    let source = sources.get(&W::SLOT)?;
    Some(
        LoadedComponent::load(engine, &source.component, &source.settings)
            .map_err(|reason| LoadError { slot: W::SLOT, reason }),
    )
}

/// Calls a component, records the call, and tells a refusal from a fault. Faults are logged for the operator.
async fn call<W: World, T: Send + 'static>(
    component: &LoadedComponent<W>,
    function: impl Fn(&LoadedComponent<W>, Deadline) -> Outcome<T> + Send + 'static,
) -> Result<T, PolicyError> {
    let begun = Instant::now();
    let span = tracing::info_span!(
        "policy",
        slot = W::SLOT.as_str(),
        digest = component.digest.as_str(),
        outcome = tracing::field::Empty
    );
    let result = component.call_or_move(function).instrument(span.clone()).await;
    let result =
        result.map_err(|kind| CallFault { slot: W::SLOT, digest: component.digest.clone(), kind });
    component.stats.record(begun.elapsed(), &result);
    span.record("outcome", outcome_label(&result));
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(refusal)) => Err(refusal.into()),
        Err(fault) => {
            tracing::error!(%fault, "a policy failed");
            Err(fault.into())
        }
    }
}

fn outcome_label<T>(result: &Result<Result<T, Refusal>, CallFault>) -> &'static str {
    match result {
        Ok(Ok(_)) => "yes",
        Ok(Err(refusal)) => refusal.code.as_str(),
        Err(_) => "fault",
    }
}

#[async_trait]
impl PolicySet for ComponentSet {
    fn digests(&self) -> Digests {
        let [images, pricing, duration, pod_template] =
            each!(self, component => component.digest.clone());
        let settings = {
            let [images, pricing, duration, pod_template] =
                each!(self, component => component.settings_digest.clone());
            Some(SettingsDigests { images, pricing, duration, pod_template })
        };
        Digests { images, pricing, duration, pod_template, settings }
    }

    async fn admit(&self, order: &OrderView, context: &Context) -> Result<ImageRef, PolicyError> {
        call(&self.images, admit(order, context)).await
    }

    async fn catalog(&self, context: &Context) -> Result<Vec<ImageOffer>, PolicyError> {
        // A component without a list is not called, so no call is counted.
        if !self.images.has_catalog() {
            return Ok(Vec::new());
        }
        call(&self.images, catalog(context)).await
    }

    async fn offers(&self, context: &Context) -> Result<Vec<Offer>, PolicyError> {
        call(&self.pricing, offers(context)).await
    }

    async fn quote(&self, order: &OrderView, context: &Context) -> Result<Quote, PolicyError> {
        call(&self.pricing, quote(order, context)).await
    }

    async fn grant(
        &self,
        order: &OrderView,
        quote: &Quote,
        payment: &Payment,
        context: &Context,
    ) -> Result<Grant, PolicyError> {
        call(&self.duration, grant(order, quote, payment, context)).await
    }

    async fn refund(
        &self,
        order: &OrderView,
        quote: &Quote,
        payment: &Payment,
        grant: &Grant,
        context: &Context,
    ) -> Result<Option<RefundTerms>, PolicyError> {
        // A component without refund terms is not called, so no call is counted.
        if !self.duration.has_refund_terms() {
            return Ok(None);
        }
        call(&self.duration, refund(order, quote, payment, grant, context)).await
    }

    async fn render(
        &self,
        order: &OrderView,
        quote: &Quote,
        grant: &Grant,
        placement: &Placement,
    ) -> Result<Rendered, PolicyError> {
        call(&self.pod_template, render(order, quote, grant, placement)).await
    }
}
