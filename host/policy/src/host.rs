//! The set of four, and the pointer that publishes it.

use crate::bindings::common::paygress::policy::types as wit;
use crate::bindings::{duration::DurationPolicy, images::ImagesPolicy, pod_template::PodTemplatePolicy, pricing::PricingPolicy};
use crate::machine::Machine;
use crate::slot::{Filled, Rejected, World};
use crate::v1_0;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use paygress_core::Policy;
use paygress_core::order::OrderView;
use paygress_core::policy::{
    Context, Digests, Fault, FaultKind, Grant, NotGranted, Offer, Payment, Placement, PolicySet, Price, Quote, Rendered, Resources, Slot,
    SlotReport,
};
use paygress_core::units::{Msat, Sat, Seconds, UnixTime};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A component's bytes and its settings.
#[derive(Clone, Debug)]
pub struct Source {
    /// The component.
    pub component: Vec<u8>,
    /// A JSON object.
    pub settings: String,
}

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
pub struct Set {
    images: Filled<ImagesPolicy>,
    pricing: Filled<PricingPolicy>,
    duration: Filled<DurationPolicy>,
    pod_template: Filled<PodTemplatePolicy>,
}

/// The policies in force.
pub struct Host {
    machine: Arc<Machine>,
    current: ArcSwap<Set>,
    // One swap at a time: two at once could each publish without the other's component.
    swapping: Mutex<()>,
}

impl Host {
    /// Loads four components and publishes them.
    ///
    /// # Errors
    /// Every component that was not taken, with its reason.
    pub fn load(machine: Arc<Machine>, sources: impl Fn(Slot) -> Source) -> Result<Arc<Self>, Vec<LoadError>> {
        let set = Set::load(&machine, sources)?;
        Ok(Arc::new(Self { machine, current: ArcSwap::from_pointee(set), swapping: Mutex::new(()) }))
    }

    /// Exchanges one component. Orders under way end with the set that they began with.
    ///
    /// # Errors
    /// [`LoadError`]; then the old one goes on.
    pub fn swap(&self, slot: Slot, source: &Source) -> Result<Digests, LoadError> {
        let _one = self.swapping.lock().unwrap_or_else(PoisonError::into_inner);
        let mut set = Set::clone(&self.current.load());
        match slot {
            Slot::Images => set.images = fill(&self.machine, source)?,
            Slot::Pricing => set.pricing = fill(&self.machine, source)?,
            Slot::Duration => set.duration = fill(&self.machine, source)?,
            Slot::PodTemplate => set.pod_template = fill(&self.machine, source)?,
        }
        set.rehearse()?;
        let digests = set.digests();
        self.current.store(Arc::new(set));
        Ok(digests)
    }

    /// The JSON Schema of a slot's settings, as its component gives it.
    #[must_use]
    pub fn schema(&self, slot: Slot) -> String {
        let set = self.current.load();
        match slot {
            Slot::Images => set.images.schema.clone(),
            Slot::Pricing => set.pricing.schema.clone(),
            Slot::Duration => set.duration.schema.clone(),
            Slot::PodTemplate => set.pod_template.schema.clone(),
        }
    }
}

impl Policy for Host {
    fn current(&self) -> Arc<dyn PolicySet> {
        let set: Arc<Set> = self.current.load_full();
        set
    }

    fn report(&self) -> Vec<SlotReport> {
        let set = self.current.load();
        vec![set.images.report(), set.pricing.report(), set.duration.report(), set.pod_template.report()]
    }
}

fn fill<W: World>(machine: &Arc<Machine>, source: &Source) -> Result<Filled<W>, LoadError> {
    Filled::load(machine, &source.component, &source.settings).map_err(|reason| LoadError { slot: W::SLOT, reason })
}

impl Set {
    fn load(machine: &Arc<Machine>, sources: impl Fn(Slot) -> Source) -> Result<Self, Vec<LoadError>> {
        let images = fill(machine, &sources(Slot::Images));
        let pricing = fill(machine, &sources(Slot::Pricing));
        let duration = fill(machine, &sources(Slot::Duration));
        let pod_template = fill(machine, &sources(Slot::PodTemplate));
        match (images, pricing, duration, pod_template) {
            (Ok(images), Ok(pricing), Ok(duration), Ok(pod_template)) => {
                let set = Self { images, pricing, duration, pod_template };
                set.rehearse().map_err(|error| vec![error])?;
                Ok(set)
            }
            (images, pricing, duration, pod_template) => {
                Err([images.err(), pricing.err(), duration.err(), pod_template.err()].into_iter().flatten().collect())
            }
        }
    }

    /// Tries a sample order. A refusal is an answer; a fault is not.
    fn rehearse(&self) -> Result<(), LoadError> {
        fn tried<T>(slot: Slot, tried: Result<T, NotGrantedHere>) -> Result<Option<T>, LoadError> {
            match tried {
                Ok(value) => Ok(Some(value)),
                Err(NotGrantedHere::Refused) => Ok(None),
                Err(NotGrantedHere::Fault(kind)) => Err(LoadError { slot, reason: Rejected::Faulty(kind) }),
            }
        }
        let order = v1_0::order(&OrderView { id: "sample".to_owned(), username: "user".to_owned(), ..OrderView::default() });
        let context = v1_0::context(&Context { now: UnixTime::now(), capacity_leases: 1, ..Context::default() });
        let image =
            here(&self.images, v1_0::checked_image, |world, store| world.paygress_policy_images().call_admit(store, &order, &context));
        let image = tried(Slot::Images, image)?.unwrap_or_else(|| "example.invalid/image:1".to_owned());
        let offers = self.pricing.call_here(|world, store| world.paygress_policy_pricing().call_offers(store, &context));
        let offers = offers.and_then(v1_0::checked_offers).map_err(NotGrantedHere::Fault);
        tried(Slot::Pricing, offers)?;
        let quote =
            here(&self.pricing, v1_0::checked_quote, |world, store| world.paygress_policy_pricing().call_quote(store, &order, &context));
        let quote = tried(Slot::Pricing, quote)?.unwrap_or_else(|| Quote {
            tier: "sample".to_owned(),
            resources: Resources { cpu_millicores: 1_000, memory_mib: 1_024 },
            price: Price { msat: Msat(1_000), seconds: Seconds(60) },
            minimum: Sat(1),
        });
        let payment = Payment { mint: "https://mint.invalid".to_owned(), gross: Sat(1_000), fee: Sat(0), net: Sat(1_000) };
        let (wit_quote, payment) = (v1_0::quote(&quote), v1_0::payment(&payment));
        let grant = here(&self.duration, v1_0::checked_grant, |world, store| {
            world.paygress_policy_duration().call_grant(store, &order, &wit_quote, &payment, &context)
        });
        let grant = tried(Slot::Duration, grant)?.unwrap_or(Grant { seconds: Seconds(60), note: None });
        let placement = Placement {
            pod_name: "ssh-pod-sample".to_owned(),
            image,
            resources: quote.resources,
            host_port: 30_000,
            container_port: paygress_core::cluster::CONTAINER_PORT,
            secret_name: "ssh-pod-sample".to_owned(),
            secret_mount_path: paygress_core::cluster::LOGIN_MOUNT_PATH.to_owned(),
        };
        let (grant, placement) = (v1_0::grant(&grant), v1_0::placement(&placement));
        let rendered = here(&self.pod_template, v1_0::checked_rendered, |world, store| {
            world.paygress_policy_pod_template().call_render(store, &order, &grant, &placement)
        });
        tried(Slot::PodTemplate, rendered).map(drop)
    }
}

enum NotGrantedHere {
    Refused,
    Fault(FaultKind),
}

fn here<W: World, R, T>(
    filled: &Filled<W>,
    check: impl FnOnce(R) -> Result<T, FaultKind>,
    call: impl FnOnce(&W, &mut wasmtime::Store<crate::machine::Limits>) -> wasmtime::Result<Result<R, wit::Refusal>>,
) -> Result<T, NotGrantedHere> {
    match filled.call_here(call).map_err(NotGrantedHere::Fault)? {
        Ok(value) => check(value).map_err(NotGrantedHere::Fault),
        Err(refusal) => {
            v1_0::refusal(refusal).map_err(NotGrantedHere::Fault)?;
            Err(NotGrantedHere::Refused)
        }
    }
}

/// Calls, checks what came back, and tells a refusal from a fault. Faults are the operator's to know.
async fn ask<W: World, R: Send + 'static, T>(
    filled: &Filled<W>,
    check: impl FnOnce(R) -> Result<T, FaultKind>,
    call: impl FnOnce(&W, &mut wasmtime::Store<crate::machine::Limits>) -> wasmtime::Result<Result<R, wit::Refusal>> + Send + 'static,
) -> Result<T, NotGranted> {
    let fault = |kind| Fault { slot: W::SLOT, digest: filled.digest.clone(), kind };
    let begun = Instant::now();
    let answer = filled.call(call).await.and_then(|answer| match answer {
        Ok(value) => check(value).map(Ok).map_err(fault),
        Err(refusal) => v1_0::refusal(refusal).map(Err).map_err(fault),
    });
    filled.tally.note(begun.elapsed(), &answer);
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(refusal)) => Err(refusal.into()),
        Err(fault) => {
            tracing::error!(%fault, "a policy failed");
            Err(fault.into())
        }
    }
}

#[async_trait]
impl PolicySet for Set {
    fn digests(&self) -> Digests {
        Digests {
            images: self.images.digest.clone(),
            pricing: self.pricing.digest.clone(),
            duration: self.duration.digest.clone(),
            pod_template: self.pod_template.digest.clone(),
        }
    }

    async fn admit(&self, order: &OrderView, context: &Context) -> Result<String, NotGranted> {
        let (order, context) = (v1_0::order(order), v1_0::context(context));
        ask(&self.images, v1_0::checked_image, move |world, store| world.paygress_policy_images().call_admit(store, &order, &context)).await
    }

    async fn offers(&self, context: &Context) -> Result<Vec<Offer>, NotGranted> {
        let context = v1_0::context(context);
        ask(&self.pricing, v1_0::checked_offers, move |world, store| world.paygress_policy_pricing().call_offers(store, &context).map(Ok))
            .await
    }

    async fn quote(&self, order: &OrderView, context: &Context) -> Result<Quote, NotGranted> {
        let (order, context) = (v1_0::order(order), v1_0::context(context));
        ask(&self.pricing, v1_0::checked_quote, move |world, store| world.paygress_policy_pricing().call_quote(store, &order, &context))
            .await
    }

    async fn grant(&self, order: &OrderView, quote: &Quote, payment: &Payment, context: &Context) -> Result<Grant, NotGranted> {
        let (order, quote, payment, context) = (v1_0::order(order), v1_0::quote(quote), v1_0::payment(payment), v1_0::context(context));
        ask(&self.duration, v1_0::checked_grant, move |world, store| {
            world.paygress_policy_duration().call_grant(store, &order, &quote, &payment, &context)
        })
        .await
    }

    async fn render(&self, order: &OrderView, grant: &Grant, placement: &Placement) -> Result<Rendered, NotGranted> {
        let (order, grant, placement) = (v1_0::order(order), v1_0::grant(grant), v1_0::placement(placement));
        ask(&self.pod_template, v1_0::checked_rendered, move |world, store| {
            world.paygress_policy_pod_template().call_render(store, &order, &grant, &placement)
        })
        .await
    }
}
