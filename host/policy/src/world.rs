//! The WIT worlds of the four slots behind one trait, in each version of the contract.

use crate::bindings::{
    common::paygress::policy::types as wit, duration, duration_1_1, images, pod_template, pricing,
};
use crate::contract::ContractVersion;
use crate::limits::CallLimiter;
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

pub(crate) use images::ImagesPolicy as Images;
pub(crate) use pod_template::PodTemplatePolicy as PodTemplate;
pub(crate) use pricing::PricingPolicy as Pricing;

macro_rules! world {
    ($slot:ident, $functions:expr, $pre:path) => {
        impl World for $slot {
            const SLOT: Slot = Slot::$slot;
            type Pre = $pre;

            fn functions(_: ContractVersion) -> &'static [&'static str] {
                $functions
            }

            fn pre(
                instance: InstancePre<CallLimiter>,
                _: ContractVersion,
            ) -> wasmtime::Result<Self::Pre> {
                Self::Pre::new(instance)
            }

            fn instantiate(
                pre: &Self::Pre,
                store: &mut Store<CallLimiter>,
            ) -> wasmtime::Result<Self> {
                pre.instantiate(store)
            }

            fn schema(&self, store: &mut Store<CallLimiter>) -> wasmtime::Result<String> {
                self.paygress_policy_settings().call_schema(store)
            }

            fn configure(
                &self,
                store: &mut Store<CallLimiter>,
                json: &str,
            ) -> wasmtime::Result<Result<(), Vec<wit::Problem>>> {
                self.paygress_policy_settings().call_configure(store, json)
            }
        }
    };
}

world!(Images, &["admit"], images::ImagesPolicyPre<CallLimiter>);
world!(Pricing, &["offers", "quote"], pricing::PricingPolicyPre<CallLimiter>);
world!(PodTemplate, &["render"], pod_template::PodTemplatePolicyPre<CallLimiter>);

/// The slot whose world differs between the versions.
pub(crate) enum Duration {
    V1_0(duration::DurationPolicy),
    V1_1(duration_1_1::DurationPolicy),
}

#[derive(Clone)]
pub(crate) enum DurationPre {
    V1_0(duration::DurationPolicyPre<CallLimiter>),
    V1_1(duration_1_1::DurationPolicyPre<CallLimiter>),
}

impl World for Duration {
    const SLOT: Slot = Slot::Duration;
    type Pre = DurationPre;

    fn functions(contract: ContractVersion) -> &'static [&'static str] {
        match contract {
            ContractVersion::V1_0 => &["grant"],
            ContractVersion::V1_1 => &["grant", "refund"],
        }
    }

    fn pre(
        instance: InstancePre<CallLimiter>,
        contract: ContractVersion,
    ) -> wasmtime::Result<DurationPre> {
        match contract {
            ContractVersion::V1_0 => {
                duration::DurationPolicyPre::new(instance).map(DurationPre::V1_0)
            }
            ContractVersion::V1_1 => {
                duration_1_1::DurationPolicyPre::new(instance).map(DurationPre::V1_1)
            }
        }
    }

    fn instantiate(pre: &DurationPre, store: &mut Store<CallLimiter>) -> wasmtime::Result<Self> {
        match pre {
            DurationPre::V1_0(pre) => pre.instantiate(store).map(Self::V1_0),
            DurationPre::V1_1(pre) => pre.instantiate(store).map(Self::V1_1),
        }
    }

    fn schema(&self, store: &mut Store<CallLimiter>) -> wasmtime::Result<String> {
        match self {
            Self::V1_0(world) => world.paygress_policy_settings().call_schema(store),
            Self::V1_1(world) => world.paygress_policy_settings().call_schema(store),
        }
    }

    fn configure(
        &self,
        store: &mut Store<CallLimiter>,
        json: &str,
    ) -> wasmtime::Result<Result<(), Vec<wit::Problem>>> {
        match self {
            Self::V1_0(world) => world.paygress_policy_settings().call_configure(store, json),
            Self::V1_1(world) => world.paygress_policy_settings().call_configure(store, json),
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
        context: &wit::Context,
    ) -> wasmtime::Result<Result<wit::Grant, wit::Refusal>> {
        match self {
            Self::V1_0(world) => {
                world.paygress_policy_duration().call_grant(store, order, quote, payment, context)
            }
            Self::V1_1(world) => {
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
        context: &wit::Context,
    ) -> wasmtime::Result<Option<duration_1_1::exports::paygress::policy::duration::RefundTerms>>
    {
        match self {
            Self::V1_0(_) => Ok(None),
            Self::V1_1(world) => world
                .paygress_policy_duration()
                .call_refund(store, order, quote, payment, grant, context)
                .map(Some),
        }
    }
}
