//! The functions of the contract: each converts its arguments, calls a component, and checks what
//! it returns.
//!
//! Each returns a closure that blocks the thread that runs it; async callers move it to another.

use crate::bindings::common::paygress::policy::types as wit;
use crate::component::LoadedComponent;
use crate::contract::ContractVersion;
use crate::engine::Deadline;
use crate::limits::CallLimiter;
use crate::v1_0;
use crate::v1_3;
use crate::world::{Duration, Images, PodTemplate, Pricing, World};
use paygress_core::backend::policy::{
    Context, FaultKind, Grant, ImageOffer, Offer, Payment, Placement, Quote, RefundTerms, Rendered,
};
use paygress_core::model::ids::ImageRef;
use paygress_core::model::order::OrderView;
use paygress_core::model::refusal::{ErrorType, Refusal};
use wasmtime::Store;

/// The longest tier of an order in contracts before 1.3.
const TIER_BYTES_BEFORE_1_3: usize = 64;

/// A component returned a value, refused, or failed.
pub(crate) type Outcome<T> = Result<Result<T, Refusal>, FaultKind>;

fn checked<W: World, R, T>(
    component: &LoadedComponent<W>,
    deadline: Deadline,
    check: impl FnOnce(R) -> Result<T, FaultKind>,
    call: impl FnOnce(&W, &mut Store<CallLimiter>) -> wasmtime::Result<Result<R, wit::Refusal>>,
) -> Outcome<T> {
    match component.call(deadline, call)? {
        Ok(value) => check(value).map(Ok),
        Err(refusal) => v1_0::refusal(refusal).map(Err),
    }
}

/// As [`checked`], for an order. A component whose contract has no tier as long as the order's is not
/// called: it knows of none.
fn checked_for<W: World, R, T>(
    order: &wit::Order,
    component: &LoadedComponent<W>,
    deadline: Deadline,
    check: impl FnOnce(R) -> Result<T, FaultKind>,
    call: impl FnOnce(&W, &mut Store<CallLimiter>) -> wasmtime::Result<Result<R, wit::Refusal>>,
) -> Outcome<T> {
    let is_long = order.tier.as_ref().is_some_and(|tier| tier.len() > TIER_BYTES_BEFORE_1_3);
    if is_long && component.contract < ContractVersion::V1_3 {
        return Ok(Err(Refusal::new(
            ErrorType::InvalidSpec,
            "there is no tier of more than 64 bytes; choose one of the offer",
        )));
    }
    checked(component, deadline, check, call)
}

pub(crate) fn admit(
    order: &OrderView,
    context: &Context,
) -> impl Fn(&LoadedComponent<Images>, Deadline) -> Outcome<ImageRef> + Send + use<> {
    let (order, context) = (v1_0::order(order), v1_3::context(context));
    move |component, deadline| {
        checked_for(&order, component, deadline, v1_0::checked_image, |world, store| {
            world.call_admit(store, &order, &context)
        })
    }
}

/// Empty from a component before contract 1.2, which has no list.
pub(crate) fn catalog(
    context: &Context,
) -> impl Fn(&LoadedComponent<Images>, Deadline) -> Outcome<Vec<ImageOffer>> + Send + use<> {
    let context = v1_3::context(context);
    move |component, deadline| {
        checked(component, deadline, crate::v1_2::checked_images, |world, store| {
            world.call_catalog(store, &context).map(Ok)
        })
    }
}

pub(crate) fn offers(
    context: &Context,
) -> impl Fn(&LoadedComponent<Pricing>, Deadline) -> Outcome<Vec<Offer>> + Send + use<> {
    let context = v1_3::context(context);
    move |component, deadline| {
        checked(component, deadline, v1_0::checked_offers, |world, store| {
            world.call_offers(store, &context).map(Ok)
        })
    }
}

pub(crate) fn quote(
    order: &OrderView,
    context: &Context,
) -> impl Fn(&LoadedComponent<Pricing>, Deadline) -> Outcome<Quote> + Send + use<> {
    let (order, context) = (v1_0::order(order), v1_3::context(context));
    move |component, deadline| {
        checked_for(&order, component, deadline, v1_0::checked_quote, |world, store| {
            world.call_quote(store, &order, &context)
        })
    }
}

pub(crate) fn grant(
    order: &OrderView,
    quote: &Quote,
    payment: &Payment,
    context: &Context,
) -> impl Fn(&LoadedComponent<Duration>, Deadline) -> Outcome<Grant> + Send + use<> {
    let (order, quote, payment, context) =
        (v1_0::order(order), v1_0::quote(quote), v1_0::payment(payment), v1_3::context(context));
    move |component, deadline| {
        checked_for(&order, component, deadline, v1_0::checked_grant, |world, store| {
            world.call_grant(store, &order, &quote, &payment, &context)
        })
    }
}

/// `None` from a component of contract 1.0, which has no refund terms.
pub(crate) fn refund(
    order: &OrderView,
    quote: &Quote,
    payment: &Payment,
    grant: &Grant,
    context: &Context,
) -> impl Fn(&LoadedComponent<Duration>, Deadline) -> Outcome<Option<RefundTerms>> + Send + use<> {
    let (order, quote, payment) = (v1_0::order(order), v1_0::quote(quote), v1_0::payment(payment));
    let (grant, context) = (v1_0::grant(grant), v1_3::context(context));
    move |component, deadline| {
        let check = |terms: Option<_>| terms.map(crate::v1_1::checked_refund_terms).transpose();
        checked(component, deadline, check, |world, store| {
            world.call_refund(store, &order, &quote, &payment, &grant, &context).map(Ok)
        })
    }
}

pub(crate) fn render(
    order: &OrderView,
    quote: &Quote,
    grant: &Grant,
    placement: &Placement,
) -> impl Fn(&LoadedComponent<PodTemplate>, Deadline) -> Outcome<Rendered> + Send + use<> {
    let (wanted, access) = (placement.clone(), crate::v1_2::access(&placement.access));
    let tier = quote.tier.clone();
    let (order, grant, placement) =
        (v1_0::order(order), v1_0::grant(grant), v1_0::placement(placement));
    move |component, deadline| {
        let check = |rendered| {
            let rendered = crate::v1_2::checked_pod(rendered)?;
            component.engine.check_template(&rendered, &wanted).map(|()| rendered)
        };
        checked_for(&order, component, deadline, check, |world, store| {
            world.call_render(store, &order, &grant, &placement, &access, tier.as_str())
        })
    }
}
