//! One component in its slot.

use crate::bindings::{
    common::paygress::policy::types as wit, duration, duration_1_1, images, pod_template, pricing,
};
use crate::engine::{COMPONENT_BYTES, Limits, MemoryCap, PolicyEngine};
use crate::stats::CallStats;
use crate::v1_0;
use paygress_core::backend::policy::{FaultKind, Slot, SlotStats};
use paygress_core::sanitize::plain;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{FrameSymbol, Store, Trap, WasmBacktrace};

/// The only import of a good policy: the types, which are no functions.
const TYPES: &str = "paygress:policy/types@1.";
/// Every interface of the contract, whatever its version.
pub(crate) const CONTRACT: &str = "paygress:policy/";

/// The longest settings, as the contract says.
const SETTINGS_BYTES: usize = 65_536;

/// Why a component is not taken into its slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is none.
    #[error("there is no component for it")]
    Missing,
    /// The file is too large.
    #[error("it has {0} bytes, and a policy may have {COMPONENT_BYTES}")]
    TooLarge(usize),
    /// It is not a component, or one that this engine cannot compile.
    #[error("it is not a WebAssembly component that can be compiled: {0}")]
    NotAComponent(String),
    /// It wants or lacks something.
    #[error("it does not fit the contract paygress:policy: {}", .0.join("; "))]
    Skew(Vec<String>),
    /// It does not take its settings.
    #[error("it does not take its settings: {}", problems(.0))]
    Settings(Vec<(String, String)>),
    /// It failed when it was tried.
    #[error("it failed when it was tried: {0}")]
    Faulty(FaultKind),
}

fn problems(list: &[(String, String)]) -> String {
    let line = |(path, message): &(String, String)| {
        format!("{} {message}", if path.is_empty() { "the whole" } else { path })
    };
    list.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// A version of the contract that this host serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contract {
    V1_0,
    V1_1,
}

impl Contract {
    const ALL: [Self; 2] = [Self::V1_0, Self::V1_1];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0.0",
            Self::V1_1 => "1.1.0",
        }
    }
}

/// What the four worlds have in common.
pub(crate) trait World: Sized + Send + Sync + 'static {
    const SLOT: Slot;
    type Pre: Clone + Send + Sync + 'static;
    /// The functions that its interface must export.
    fn functions(contract: Contract) -> &'static [&'static str];
    fn pre(instance: InstancePre<Limits>, contract: Contract) -> wasmtime::Result<Self::Pre>;
    fn instantiate(pre: &Self::Pre, store: &mut Store<Limits>) -> wasmtime::Result<Self>;
    fn schema(&self, store: &mut Store<Limits>) -> wasmtime::Result<String>;
    fn configure(
        &self,
        store: &mut Store<Limits>,
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

            fn functions(_: Contract) -> &'static [&'static str] {
                $functions
            }

            fn pre(instance: InstancePre<Limits>, _: Contract) -> wasmtime::Result<Self::Pre> {
                Self::Pre::new(instance)
            }

            fn instantiate(pre: &Self::Pre, store: &mut Store<Limits>) -> wasmtime::Result<Self> {
                pre.instantiate(store)
            }

            fn schema(&self, store: &mut Store<Limits>) -> wasmtime::Result<String> {
                self.paygress_policy_settings().call_schema(store)
            }

            fn configure(
                &self,
                store: &mut Store<Limits>,
                json: &str,
            ) -> wasmtime::Result<Result<(), Vec<wit::Problem>>> {
                self.paygress_policy_settings().call_configure(store, json)
            }
        }
    };
}

world!(Images, &["admit"], images::ImagesPolicyPre<Limits>);
world!(Pricing, &["offers", "quote"], pricing::PricingPolicyPre<Limits>);
world!(PodTemplate, &["render"], pod_template::PodTemplatePolicyPre<Limits>);

/// The slot that differs between the versions.
pub(crate) enum Duration {
    V1_0(duration::DurationPolicy),
    V1_1(duration_1_1::DurationPolicy),
}

#[derive(Clone)]
pub(crate) enum DurationPre {
    V1_0(duration::DurationPolicyPre<Limits>),
    V1_1(duration_1_1::DurationPolicyPre<Limits>),
}

impl World for Duration {
    const SLOT: Slot = Slot::Duration;
    type Pre = DurationPre;

    fn functions(contract: Contract) -> &'static [&'static str] {
        match contract {
            Contract::V1_0 => &["grant"],
            Contract::V1_1 => &["grant", "refund"],
        }
    }

    fn pre(instance: InstancePre<Limits>, contract: Contract) -> wasmtime::Result<DurationPre> {
        match contract {
            Contract::V1_0 => duration::DurationPolicyPre::new(instance).map(DurationPre::V1_0),
            Contract::V1_1 => duration_1_1::DurationPolicyPre::new(instance).map(DurationPre::V1_1),
        }
    }

    fn instantiate(pre: &DurationPre, store: &mut Store<Limits>) -> wasmtime::Result<Self> {
        match pre {
            DurationPre::V1_0(pre) => pre.instantiate(store).map(Self::V1_0),
            DurationPre::V1_1(pre) => pre.instantiate(store).map(Self::V1_1),
        }
    }

    fn schema(&self, store: &mut Store<Limits>) -> wasmtime::Result<String> {
        match self {
            Self::V1_0(world) => world.paygress_policy_settings().call_schema(store),
            Self::V1_1(world) => world.paygress_policy_settings().call_schema(store),
        }
    }

    fn configure(
        &self,
        store: &mut Store<Limits>,
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
        store: &mut Store<Limits>,
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

    /// `None` from a component of 1.0, which knows no terms.
    pub(crate) fn call_refund(
        &self,
        store: &mut Store<Limits>,
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

impl LoadedComponent<Duration> {
    /// Whether it is of a version that has refund terms.
    pub(crate) fn knows_refunds(&self) -> bool {
        self.contract != Contract::V1_0
    }
}

/// A component that was compiled, checked and configured.
pub(crate) struct LoadedComponent<W: World> {
    pub(crate) machine: Arc<PolicyEngine>,
    pre: W::Pre,
    settings: Arc<str>,
    pub(crate) digest: String,
    pub(crate) schema: String,
    pub(crate) contract: Contract,
    pub(crate) tally: Arc<CallStats>,
}

impl<W: World> Clone for LoadedComponent<W> {
    fn clone(&self) -> Self {
        Self {
            machine: Arc::clone(&self.machine),
            pre: self.pre.clone(),
            settings: Arc::clone(&self.settings),
            digest: self.digest.clone(),
            schema: self.schema.clone(),
            contract: self.contract,
            tally: Arc::clone(&self.tally),
        }
    }
}

impl<W: World> LoadedComponent<W> {
    /// Compiles, checks and configures. Nothing of the component runs before it was found to fit.
    pub(crate) fn load(
        machine: &Arc<PolicyEngine>,
        bytes: &[u8],
        settings: &str,
    ) -> Result<Self, Rejected> {
        if bytes.len() > COMPONENT_BYTES {
            return Err(Rejected::TooLarge(bytes.len()));
        }
        if settings.len() > SETTINGS_BYTES {
            let problem = format!("have {} bytes, and may have {SETTINGS_BYTES}", settings.len());
            return Err(Rejected::Settings(vec![(String::new(), problem)]));
        }
        let digest = hex::encode(Sha256::digest(bytes));
        let component = machine.compile(bytes, &digest).map_err(Rejected::NotAComponent)?;
        let contract = contract::<W>(machine, &component).map_err(Rejected::Skew)?;
        let differs =
            |error: wasmtime::Error| Rejected::Skew(vec![plain(&format!("{error:#}"), 500)]);
        let instance = Linker::new(&machine.engine).instantiate_pre(&component).map_err(differs)?;
        let pre = W::pre(instance, contract).map_err(differs)?;
        let mut filled = Self {
            machine: Arc::clone(machine),
            pre,
            settings: settings.into(),
            digest,
            schema: String::new(),
            contract,
            tally: Arc::default(),
        };
        // A differing signature shows only here.
        let mut store = machine.store();
        let world =
            W::instantiate(&filled.pre, &mut store).map_err(|error| match classify(&error) {
                FaultKind::InvalidOutput(_) => differs(error),
                kind => Rejected::Faulty(kind),
            })?;
        filled.schema =
            world.schema(&mut store).map_err(|error| Rejected::Faulty(classify(&error)))?;
        v1_0::check_schema(&filled.schema)
            .map_err(|why| Rejected::Faulty(FaultKind::InvalidOutput(why)))?;
        drop(store);
        let mut store = machine.store();
        let world = W::instantiate(&filled.pre, &mut store).map_err(differs)?;
        match world
            .configure(&mut store, settings)
            .map_err(|error| Rejected::Faulty(classify(&error)))?
        {
            Ok(()) => Ok(filled),
            Err(problems) => Err(Rejected::Settings(
                problems
                    .into_iter()
                    .take(64)
                    .map(|problem| (plain(&problem.path, 200), plain(&problem.message, 500)))
                    .collect(),
            )),
        }
    }

    /// How it does.
    pub(crate) fn report(&self) -> SlotStats {
        self.tally.report(W::SLOT, &self.digest)
    }

    /// Asks on a thread that may be held.
    pub(crate) async fn call_blocking<R: Send + 'static>(
        &self,
        question: impl FnOnce(&Self) -> Result<R, FaultKind> + Send + 'static,
    ) -> Result<R, FaultKind> {
        let trap = |error: &dyn std::fmt::Display| FaultKind::Trap(error.to_string());
        let place =
            Arc::clone(&self.machine.calls).acquire_owned().await.map_err(|error| trap(&error))?;
        let filled = self.clone();
        let job = move || {
            let done = question(&filled);
            drop(place);
            done
        };
        tokio::task::spawn_blocking(job).await.unwrap_or_else(|error| Err(trap(&error)))
    }

    /// One call in a fresh instance, on this thread.
    pub(crate) fn call<R>(
        &self,
        function: impl FnOnce(&W, &mut Store<Limits>) -> wasmtime::Result<R>,
    ) -> Result<R, FaultKind> {
        let mut store = self.machine.store();
        let run = || {
            let world = W::instantiate(&self.pre, &mut store)?;
            if let Err(problems) = world.configure(&mut store, &self.settings)? {
                let first = problems
                    .into_iter()
                    .next()
                    .map(|problem| plain(&problem.message, 500))
                    .unwrap_or_default();
                return Ok(Err(FaultKind::Settings(first)));
            }
            function(&world, &mut store).map(Ok)
        };
        let answer = run().unwrap_or_else(|error| Err(classify(&error)));
        self.tally.note_usage(store.data().memory_bytes, self.machine.fuel(&store));
        answer
    }
}

/// The version of the contract that a component keeps to; else what it wants or lacks, in words.
fn contract<W: World>(
    machine: &PolicyEngine,
    component: &Component,
) -> Result<Contract, Vec<String>> {
    let mut skew = Vec::new();
    let ty = component.component_type();
    for (name, import) in ty.imports(&machine.engine) {
        let only_types = match &import.ty {
            ComponentItem::ComponentInstance(instance) => instance
                .exports(&machine.engine)
                .all(|(_, item)| matches!(item.ty, ComponentItem::Type(_))),
            _ => false,
        };
        if !(name.starts_with(TYPES) && only_types) {
            skew.push(format!(
                "it imports {}, and a policy may import nothing but types",
                plain(name, 200)
            ));
        }
    }
    let exported: Vec<(String, String)> = ty
        .exports(&machine.engine)
        .filter_map(|(name, _)| name.strip_prefix(CONTRACT)?.split_once('@'))
        .map(|(interface, version)| (plain(interface, 200), plain(version, 40)))
        .collect();
    let slot = W::SLOT.as_str();
    let version = exported
        .iter()
        .find(|(interface, _)| interface == slot)
        .map(|(_, version)| version.as_str());
    let served = Contract::ALL.map(Contract::as_str).join(" and ");
    let found = version.and_then(|version| {
        Contract::ALL.into_iter().find(|contract| contract.as_str() == version)
    });
    let contract = match (found, version) {
        (Some(contract), _) => contract,
        (None, Some(version)) => {
            skew.push(format!(
                "it is written for version {version}, and this host serves {served}"
            ));
            return Err(skew);
        }
        (None, None) => {
            let others = exported.iter().filter(|(interface, _)| Slot::named(interface).is_some());
            let told: Vec<String> = others
                .map(|(interface, _)| format!("it is a component for the slot {interface}"))
                .collect();
            skew.extend(told);
            skew.push(format!("it does not export {CONTRACT}{slot}@{}", Contract::V1_0.as_str()));
            return Err(skew);
        }
    };
    for (interface, functions) in
        [("settings", &["schema", "configure"][..]), (slot, W::functions(contract))]
    {
        let name = format!("{CONTRACT}{interface}@{}", contract.as_str());
        let Some((_, instance)) = component.get_export(None, &name) else {
            skew.push(format!("it does not export {name}"));
            continue;
        };
        for function in functions {
            match component.get_export(Some(&instance), function) {
                Some((ComponentItem::ComponentFunc(_), _)) => {}
                _ => skew.push(format!("its {name} does not export {function}")),
            }
        }
    }
    if skew.is_empty() { Ok(contract) } else { Err(skew) }
}

/// Where in the source it happened, as far as the component says; nothing unless the machine is an
/// author's.
fn frames(error: &wasmtime::Error) -> String {
    let symbols = error
        .downcast_ref::<WasmBacktrace>()
        .into_iter()
        .flat_map(|trace| trace.frames())
        .flat_map(|frame| frame.symbols());
    let line = |symbol: &FrameSymbol| {
        // The author's lines, not those of the language's own library.
        let (file, line) =
            (symbol.file().filter(|file| !file.starts_with("/rustc/"))?, symbol.line()?);
        Some(format!(
            "\n    at {} ({}:{line})",
            plain(symbol.name().unwrap_or("?"), 200),
            plain(file, 200)
        ))
    };
    symbols.filter_map(line).collect()
}

/// What an error of the engine means.
fn classify(error: &wasmtime::Error) -> FaultKind {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::Interrupt => FaultKind::Deadline(
                u64::try_from(crate::engine::DEADLINE.as_millis()).unwrap_or(u64::MAX),
            ),
            Trap::StackOverflow => FaultKind::Stack,
            trap => FaultKind::Trap(format!("{trap}{}", frames(error))),
        };
    }
    if error.is::<MemoryCap>() {
        return FaultKind::Memory(error.root_cause().to_string());
    }
    let cause = error.root_cause().to_string();
    match cause.contains("fuel allocated for hostcalls") {
        true => {
            FaultKind::InvalidOutput(format!("more than {} bytes", crate::engine::OUTPUT_BYTES))
        }
        false => FaultKind::InvalidOutput(plain(&cause, 500)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::DEADLINE;

    #[test]
    fn a_call_that_was_kept_from_running_is_not_ended() {
        let component =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/plugins/images.wasm"))
                .unwrap();
        let filled =
            LoadedComponent::<Images>::load(&PolicyEngine::start(None).unwrap(), &component, "{}")
                .unwrap();
        let schema = filled.call(|world, store| {
            // As if others had the processor.
            std::thread::sleep(DEADLINE.saturating_mul(2));
            world.schema(store)
        });
        assert_eq!(schema.unwrap(), filled.schema);
    }
}
