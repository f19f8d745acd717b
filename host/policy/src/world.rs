//! The WIT worlds of the four slots behind one trait, in each version of the contract.

use crate::bindings::duration_1_1::exports::paygress::policy::duration::RefundTerms;
use crate::bindings::images_1_2::exports::paygress::policy::images::ImageOffer;
use crate::bindings::pod_template_1_2::exports::paygress::policy::pod_template as v1_2;
use crate::bindings::{
    common::paygress::policy::types as wit, duration, duration_1_1, duration_1_3, images,
    images_1_2, images_1_3, pod_template, pod_template_1_2, pricing, pricing_1_3, types_1_3,
};
use crate::contract::ContractVersion;
use crate::limits::CallLimiter;
use crate::v1_3::before_1_3;
use paygress_core::backend::policy::Slot;
use wasmtime::Store;
use wasmtime::component::InstancePre;

/// What the worlds of the four slots have in common.
pub(crate) trait World: Sized + Send + Sync + 'static {
    const SLOT: Slot;
    type Pre: Clone + Send + Sync + 'static;
    /// The functions that its interface must export.
    fn functions(contract: ContractVersion) -> &'static [&'static str];
    fn pre(
        instance: InstancePre<CallLimiter>,
        contract: ContractVersion,
    ) -> wasmtime::Result<Self::Pre>;
    fn instantiate(pre: &Self::Pre, store: &mut Store<CallLimiter>) -> wasmtime::Result<Self>;
    fn schema(&self, store: &mut Store<CallLimiter>) -> wasmtime::Result<String>;
    fn configure(
        &self,
        store: &mut Store<CallLimiter>,
        json: &str,
    ) -> wasmtime::Result<Result<(), Vec<wit::Problem>>>;
}

/// A slot whose world gained a function, or an argument: components of the version `$new` and later have another
/// world than those before it. The newest version is the first of them.
macro_rules! versioned_world {
    (
        $slot:ident, $pre:ident, $world:ident, $world_pre:ident,
        $old:ident: $old_module:ident $old_functions:expr
        $(, $new:ident: $new_module:ident $new_functions:expr)+
    ) => {
        pub(crate) enum $slot {
            $old($old_module::$world),
            $($new($new_module::$world),)+
        }

        #[derive(Clone)]
        pub(crate) enum $pre {
            $old($old_module::$world_pre<CallLimiter>),
            $($new($new_module::$world_pre<CallLimiter>),)+
        }

        impl World for $slot {
            const SLOT: Slot = Slot::$slot;
            type Pre = $pre;

            fn functions(contract: ContractVersion) -> &'static [&'static str] {
                $(if contract >= ContractVersion::$new {
                    return $new_functions;
                })+
                $old_functions
            }

            fn pre(
                instance: InstancePre<CallLimiter>,
                contract: ContractVersion,
            ) -> wasmtime::Result<$pre> {
                $(if contract >= ContractVersion::$new {
                    return $new_module::$world_pre::new(instance).map($pre::$new);
                })+
                $old_module::$world_pre::new(instance).map($pre::$old)
            }

            fn instantiate(pre: &$pre, store: &mut Store<CallLimiter>) -> wasmtime::Result<Self> {
                match pre {
                    $pre::$old(pre) => pre.instantiate(store).map(Self::$old),
                    $($pre::$new(pre) => pre.instantiate(store).map(Self::$new),)+
                }
            }

            fn schema(&self, store: &mut Store<CallLimiter>) -> wasmtime::Result<String> {
                match self {
                    Self::$old(world) => world.paygress_policy_settings().call_schema(store),
                    $(Self::$new(world) => world.paygress_policy_settings().call_schema(store),)+
                }
            }

            fn configure(
                &self,
                store: &mut Store<CallLimiter>,
                json: &str,
            ) -> wasmtime::Result<Result<(), Vec<wit::Problem>>> {
                match self {
                    Self::$old(world) => {
                        world.paygress_policy_settings().call_configure(store, json)
                    }
                    $(Self::$new(world) => {
                        world.paygress_policy_settings().call_configure(store, json)
                    })+
                }
            }
        }
    };
}

versioned_world!(
    Images, ImagesPre, ImagesPolicy, ImagesPolicyPre,
    V1_0: images &["admit"],
    V1_3: images_1_3 &["admit", "catalog"],
    V1_2: images_1_2 &["admit", "catalog"]
);
versioned_world!(
    Pricing, PricingPre, PricingPolicy, PricingPolicyPre,
    V1_0: pricing &["offers", "quote"],
    V1_3: pricing_1_3 &["offers", "quote"]
);
versioned_world!(
    Duration, DurationPre, DurationPolicy, DurationPolicyPre,
    V1_0: duration &["grant"],
    V1_3: duration_1_3 &["grant", "refund"],
    V1_1: duration_1_1 &["grant", "refund"]
);
versioned_world!(
    PodTemplate, PodTemplatePre, PodTemplatePolicy, PodTemplatePolicyPre,
    V1_0: pod_template &["render"],
    V1_2: pod_template_1_2 &["render"]
);

impl Images {
    pub(crate) fn call_admit(
        &self,
        store: &mut Store<CallLimiter>,
        order: &wit::Order,
        context: &types_1_3::Context,
    ) -> wasmtime::Result<Result<wit::ImageRef, wit::Refusal>> {
        let before = || before_1_3(context);
        match self {
            Self::V1_0(world) => world.paygress_policy_images().call_admit(store, order, &before()),
            Self::V1_2(world) => world.paygress_policy_images().call_admit(store, order, &before()),
            Self::V1_3(world) => world.paygress_policy_images().call_admit(store, order, context),
        }
    }

    /// Empty from a component before contract 1.2, which has no list.
    pub(crate) fn call_catalog(
        &self,
        store: &mut Store<CallLimiter>,
        context: &types_1_3::Context,
    ) -> wasmtime::Result<Vec<ImageOffer>> {
        match self {
            Self::V1_0(_) => Ok(Vec::new()),
            Self::V1_2(world) => {
                world.paygress_policy_images().call_catalog(store, &before_1_3(context))
            }
            Self::V1_3(world) => {
                let images = world.paygress_policy_images().call_catalog(store, context)?;
                let offer = |image: images_1_3::exports::paygress::policy::images::ImageOffer| {
                    ImageOffer { reference: image.reference, description: image.description }
                };
                Ok(images.into_iter().map(offer).collect())
            }
        }
    }
}

impl Pricing {
    pub(crate) fn call_offers(
        &self,
        store: &mut Store<CallLimiter>,
        context: &types_1_3::Context,
    ) -> wasmtime::Result<Vec<wit::Offer>> {
        match self {
            Self::V1_0(world) => {
                world.paygress_policy_pricing().call_offers(store, &before_1_3(context))
            }
            Self::V1_3(world) => world.paygress_policy_pricing().call_offers(store, context),
        }
    }

    pub(crate) fn call_quote(
        &self,
        store: &mut Store<CallLimiter>,
        order: &wit::Order,
        context: &types_1_3::Context,
    ) -> wasmtime::Result<Result<wit::Quote, wit::Refusal>> {
        match self {
            Self::V1_0(world) => {
                world.paygress_policy_pricing().call_quote(store, order, &before_1_3(context))
            }
            Self::V1_3(world) => world.paygress_policy_pricing().call_quote(store, order, context),
        }
    }
}

impl Duration {
    pub(crate) fn call_grant(
        &self,
        store: &mut Store<CallLimiter>,
        order: &wit::Order,
        quote: &wit::Quote,
        payment: &wit::Payment,
        context: &types_1_3::Context,
    ) -> wasmtime::Result<Result<wit::Grant, wit::Refusal>> {
        let before = || before_1_3(context);
        match self {
            Self::V1_0(world) => {
                world.paygress_policy_duration().call_grant(store, order, quote, payment, &before())
            }
            Self::V1_1(world) => {
                world.paygress_policy_duration().call_grant(store, order, quote, payment, &before())
            }
            Self::V1_3(world) => {
                world.paygress_policy_duration().call_grant(store, order, quote, payment, context)
            }
        }
    }

    /// `None` from a component of contract 1.0, which has no refund terms.
    pub(crate) fn call_refund(
        &self,
        store: &mut Store<CallLimiter>,
        order: &wit::Order,
        quote: &wit::Quote,
        payment: &wit::Payment,
        grant: &wit::Grant,
        context: &types_1_3::Context,
    ) -> wasmtime::Result<Option<RefundTerms>> {
        match self {
            Self::V1_0(_) => Ok(None),
            Self::V1_1(world) => world
                .paygress_policy_duration()
                .call_refund(store, order, quote, payment, grant, &before_1_3(context))
                .map(Some),
            Self::V1_3(world) => {
                let terms = world
                    .paygress_policy_duration()
                    .call_refund(store, order, quote, payment, grant, context)?;
                let (step_seconds, percent) = (terms.step_seconds, terms.percent);
                Ok(Some(RefundTerms { step_seconds, percent }))
            }
        }
    }
}

impl PodTemplate {
    /// A component before contract 1.2 learns neither how the pod is reached nor which tier was
    /// quoted, and has no egress rules; without a port of the nodes its placement has the port 0.
    pub(crate) fn call_render(
        &self,
        store: &mut Store<CallLimiter>,
        order: &wit::Order,
        grant: &wit::Grant,
        placement: &wit::Placement,
        access: &[v1_2::AccessMode],
        tier: &str,
    ) -> wasmtime::Result<Result<v1_2::RenderedPod, wit::Refusal>> {
        match self {
            Self::V1_0(world) => world
                .paygress_policy_pod_template()
                .call_render(store, order, grant, placement)
                .map(|result| result.map(|objects| v1_2::RenderedPod { objects, egress: None })),
            Self::V1_2(world) => world
                .paygress_policy_pod_template()
                .call_render(store, order, grant, placement, access, tier),
        }
    }
}
