//! How a policy becomes a component.

use crate::contract::types::paygress::policy::types::{
    Context, Grant, ImageRef, Offer, Order, Payment, Placement, Problem, Quote, Refusal,
};
use crate::contract::{duration, images, pod_template, pricing, settings};
use crate::policy::{Duration, Images, PodTemplate, Pricing};
use crate::refusal::{RefusalCode, refuse};
use crate::schema::schema;
use crate::settings::{Configured, parse};
use duration::exports::paygress::policy::duration::RefundTerms;
use images::exports::paygress::policy::images::ImageOffer;
use pod_template::exports::paygress::policy::pod_template::{AccessMode, RenderedPod};
use std::marker::PhantomData;

/// The exports of the policy with these settings.
pub struct Exported<S>(PhantomData<S>);

impl<S: Configured> settings::exports::paygress::policy::settings::Guest for Exported<S> {
    fn schema() -> String {
        format!("{:#}", schema::<S>())
    }

    fn configure(json: String) -> Result<(), Vec<Problem>> {
        let settings = parse::<S>(&json)?;
        S::cell().set(Some(settings));
        Ok(())
    }
}

impl<S: Configured + Images> images::exports::paygress::policy::images::Guest for Exported<S> {
    fn admit(order: Order, context: Context) -> Result<ImageRef, Refusal> {
        decide::<S, _>(RefusalCode::ImageNotAllowed, |policy| policy.admit(&order, &context))
    }

    fn catalog(context: Context) -> Vec<ImageOffer> {
        configured::<S, _>(|policy| policy.catalog(&context)).unwrap_or_default()
    }
}

impl<S: Configured + Pricing> pricing::exports::paygress::policy::pricing::Guest for Exported<S> {
    fn offers(context: Context) -> Vec<Offer> {
        configured::<S, _>(|policy| policy.offers(&context)).unwrap_or_default()
    }

    fn quote(order: Order, context: Context) -> Result<Quote, Refusal> {
        decide::<S, _>(RefusalCode::ResourceUnavailable, |policy| policy.quote(&order, &context))
    }
}

impl<S: Configured + Duration> duration::exports::paygress::policy::duration::Guest
    for Exported<S>
{
    fn grant(
        order: Order,
        quote: Quote,
        payment: Payment,
        context: Context,
    ) -> Result<Grant, Refusal> {
        decide::<S, _>(RefusalCode::ResourceUnavailable, |policy| {
            policy.grant(&order, &quote, &payment, &context)
        })
    }

    fn refund(
        order: Order,
        quote: Quote,
        payment: Payment,
        granted: Grant,
        context: Context,
    ) -> RefundTerms {
        configured::<S, _>(|policy| policy.refund(&order, &quote, &payment, &granted, &context))
            .unwrap_or(RefundTerms { step_seconds: 60, percent: 100 })
    }
}

impl<S: Configured + PodTemplate> pod_template::exports::paygress::policy::pod_template::Guest
    for Exported<S>
{
    fn render(
        order: Order,
        grant: Grant,
        placement: Placement,
        access: Vec<AccessMode>,
        tier: String,
    ) -> Result<RenderedPod, Refusal> {
        decide::<S, _>(RefusalCode::ResourceUnavailable, |policy| {
            policy.render(&order, &grant, &placement, &access, &tier)
        })
    }
}

/// `None` before `configure`, which the host calls first.
fn configured<S: Configured, T>(call: impl FnOnce(&S) -> T) -> Option<T> {
    S::cell().with_borrow(|settings| settings.as_ref().map(call))
}

fn decide<S: Configured, T>(
    code: RefusalCode,
    call: impl FnOnce(&S) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    configured::<S, _>(call).unwrap_or_else(|| Err(refuse(code, "the policy is not configured")))
}

/// Makes a component of the policy with these settings, for the slot whose trait they implement:
/// `export!(Pricing for Settings);`. Once in a crate.
#[macro_export]
macro_rules! export {
    (Images for $settings:ty) => {
        $crate::export!(@ Images images $settings);
    };
    (Pricing for $settings:ty) => {
        $crate::export!(@ Pricing pricing $settings);
    };
    (Duration for $settings:ty) => {
        $crate::export!(@ Duration duration $settings);
    };
    (PodTemplate for $settings:ty) => {
        $crate::export!(@ PodTemplate pod_template $settings);
    };
    (@ $slot:ident $interface:ident $settings:ty) => {
        impl $crate::Configured for $settings {
            fn cell() -> &'static ::std::thread::LocalKey<::std::cell::RefCell<Option<Self>>> {
                ::std::thread_local! {
                    static SETTINGS: ::std::cell::RefCell<Option<$settings>> =
                        const { ::std::cell::RefCell::new(None) };
                }
                &SETTINGS
            }

            fn check(&self, problems: &mut $crate::Problems) {
                <$settings as $crate::$slot>::check(self, problems);
            }
        }

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            type Component = $crate::Exported<$settings>;
            $crate::contract::settings::export!(
                Component with_types_in $crate::contract::settings
            );
            $crate::contract::$interface::export!(
                Component with_types_in $crate::contract::$interface
            );
        };
    };
}
