//! The questions that a set is asked, one function each: what goes to the component, and what of
//! its answer is believed.
//!
//! Each gives a closure that asks a component on the thread that calls it; whoever may not be held
//! sends it to another.

use crate::bindings::common::paygress::policy::types as wit;
use crate::engine::Limits;
use crate::slot::{Duration, Images, LoadedComponent, PodTemplate, Pricing, World};
use crate::v1_0;
use paygress_core::backend::policy::{
    Context, FaultKind, Grant, Offer, Payment, Placement, Quote, RefundTerms, Rendered,
};
use paygress_core::model::order::OrderView;
use paygress_core::model::refusal::Refusal;
use wasmtime::Store;

/// What a component says: yes, no, or that it failed.
pub(crate) type Answer<T> = Result<Result<T, Refusal>, FaultKind>;

fn asked<W: World, R, T>(
    filled: &LoadedComponent<W>,
    check: impl FnOnce(R) -> Result<T, FaultKind>,
    call: impl FnOnce(&W, &mut Store<Limits>) -> wasmtime::Result<Result<R, wit::Refusal>>,
) -> Answer<T> {
    match filled.call(call)? {
        Ok(value) => check(value).map(Ok),
        Err(refusal) => v1_0::refusal(refusal).map(Err),
    }
}

pub(crate) fn admit(
    order: &OrderView,
    context: &Context,
) -> impl FnOnce(&LoadedComponent<Images>) -> Answer<String> + Send + use<> {
    let (order, context) = (v1_0::order(order), v1_0::context(context));
    move |filled| {
        asked(filled, v1_0::checked_image, |world, store| {
            world.paygress_policy_images().call_admit(store, &order, &context)
        })
    }
}

pub(crate) fn offers(
    context: &Context,
) -> impl FnOnce(&LoadedComponent<Pricing>) -> Answer<Vec<Offer>> + Send + use<> {
    let context = v1_0::context(context);
    move |filled| {
        asked(filled, v1_0::checked_offers, |world, store| {
            world.paygress_policy_pricing().call_offers(store, &context).map(Ok)
        })
    }
}

pub(crate) fn quote(
    order: &OrderView,
    context: &Context,
) -> impl FnOnce(&LoadedComponent<Pricing>) -> Answer<Quote> + Send + use<> {
    let (order, context) = (v1_0::order(order), v1_0::context(context));
    move |filled| {
        asked(filled, v1_0::checked_quote, |world, store| {
            world.paygress_policy_pricing().call_quote(store, &order, &context)
        })
    }
}

pub(crate) fn grant(
    order: &OrderView,
    quote: &Quote,
    payment: &Payment,
    context: &Context,
) -> impl FnOnce(&LoadedComponent<Duration>) -> Answer<Grant> + Send + use<> {
    let (order, quote, payment, context) =
        (v1_0::order(order), v1_0::quote(quote), v1_0::payment(payment), v1_0::context(context));
    move |filled| {
        asked(filled, v1_0::checked_grant, |world, store| {
            world.call_grant(store, &order, &quote, &payment, &context)
        })
    }
}

/// `None` from a component of 1.0, which knows no terms.
pub(crate) fn refund(
    order: &OrderView,
    quote: &Quote,
    payment: &Payment,
    grant: &Grant,
    context: &Context,
) -> impl FnOnce(&LoadedComponent<Duration>) -> Answer<Option<RefundTerms>> + Send + use<> {
    let (order, quote, payment) = (v1_0::order(order), v1_0::quote(quote), v1_0::payment(payment));
    let (grant, context) = (v1_0::grant(grant), v1_0::context(context));
    move |filled| {
        let check = |terms: Option<_>| terms.map(crate::v1_1::checked_refund_terms).transpose();
        asked(filled, check, |world, store| {
            world.call_refund(store, &order, &quote, &payment, &grant, &context).map(Ok)
        })
    }
}

pub(crate) fn render(
    order: &OrderView,
    grant: &Grant,
    placement: &Placement,
) -> impl FnOnce(&LoadedComponent<PodTemplate>) -> Answer<Rendered> + Send + use<> {
    let place = placement.clone();
    let (order, grant, placement) =
        (v1_0::order(order), v1_0::grant(grant), v1_0::placement(placement));
    move |filled| {
        let check = |rendered| {
            let rendered = v1_0::checked_rendered(rendered)?;
            filled.machine.allows(&rendered, &place).map(|()| rendered)
        };
        asked(filled, check, |world, store| {
            world.paygress_policy_pod_template().call_render(store, &order, &grant, &placement)
        })
    }
}
