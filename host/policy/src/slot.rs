//! One component in its slot.

use crate::bindings::{common::paygress::policy::types as wit, duration, images, pod_template, pricing};
use crate::machine::{COMPONENT_BYTES, Limits, Machine, MemoryCap};
use crate::tally::Tally;
use crate::v1_0;
use paygress_core::policy::{Fault, FaultKind, Slot, SlotReport};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Store, Trap};

/// The only import of a good policy: the types, which are no functions.
const TYPES: &str = "paygress:policy/types@1.";
const SETTINGS: &str = "paygress:policy/settings@1.0.0";

/// Why a component is not taken into its slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The file is too large.
    #[error("it has {0} bytes, and a policy may have {COMPONENT_BYTES}")]
    TooLarge(usize),
    /// It is not a component, or one that this engine cannot compile.
    #[error("it is not a WebAssembly component that can be compiled: {0}")]
    NotAComponent(String),
    /// It wants or lacks something.
    #[error("it does not fit the contract paygress:policy@1.0.0: {}", .0.join("; "))]
    Skew(Vec<String>),
    /// It does not take its settings.
    #[error("it does not take its settings: {}", problems(.0))]
    Settings(Vec<(String, String)>),
    /// It failed when it was tried.
    #[error("it failed when it was tried: {0}")]
    Faulty(FaultKind),
}

fn problems(list: &[(String, String)]) -> String {
    let line = |(path, message): &(String, String)| format!("{} {message}", if path.is_empty() { "the whole" } else { path });
    list.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// What the four worlds have in common.
pub(crate) trait World: Sized + Send + Sync + 'static {
    const SLOT: Slot;
    /// The functions that its interface must export.
    const FUNCTIONS: &'static [&'static str];
    type Pre: Clone + Send + Sync + 'static;
    fn pre(instance: InstancePre<Limits>) -> wasmtime::Result<Self::Pre>;
    fn instantiate(pre: &Self::Pre, store: &mut Store<Limits>) -> wasmtime::Result<Self>;
    fn schema(&self, store: &mut Store<Limits>) -> wasmtime::Result<String>;
    fn configure(&self, store: &mut Store<Limits>, json: &str) -> wasmtime::Result<Result<(), Vec<wit::Problem>>>;
}

macro_rules! world {
    ($slot:ident, $functions:expr, $world:path, $pre:path) => {
        impl World for $world {
            const SLOT: Slot = Slot::$slot;
            const FUNCTIONS: &'static [&'static str] = $functions;
            type Pre = $pre;

            fn pre(instance: InstancePre<Limits>) -> wasmtime::Result<Self::Pre> {
                Self::Pre::new(instance)
            }

            fn instantiate(pre: &Self::Pre, store: &mut Store<Limits>) -> wasmtime::Result<Self> {
                pre.instantiate(store)
            }

            fn schema(&self, store: &mut Store<Limits>) -> wasmtime::Result<String> {
                self.paygress_policy_settings().call_schema(store)
            }

            fn configure(&self, store: &mut Store<Limits>, json: &str) -> wasmtime::Result<Result<(), Vec<wit::Problem>>> {
                self.paygress_policy_settings().call_configure(store, json)
            }
        }
    };
}

world!(Images, &["admit"], images::ImagesPolicy, images::ImagesPolicyPre<Limits>);
world!(Pricing, &["offers", "quote"], pricing::PricingPolicy, pricing::PricingPolicyPre<Limits>);
world!(Duration, &["grant"], duration::DurationPolicy, duration::DurationPolicyPre<Limits>);
world!(PodTemplate, &["render"], pod_template::PodTemplatePolicy, pod_template::PodTemplatePolicyPre<Limits>);

/// A component that was compiled, checked and configured.
pub(crate) struct Filled<W: World> {
    machine: Arc<Machine>,
    pre: W::Pre,
    settings: Arc<str>,
    pub(crate) digest: String,
    pub(crate) schema: String,
    pub(crate) tally: Arc<Tally>,
}

impl<W: World> Clone for Filled<W> {
    fn clone(&self) -> Self {
        Self {
            machine: Arc::clone(&self.machine),
            pre: self.pre.clone(),
            settings: Arc::clone(&self.settings),
            digest: self.digest.clone(),
            schema: self.schema.clone(),
            tally: Arc::clone(&self.tally),
        }
    }
}

impl<W: World> Filled<W> {
    /// Compiles, checks and configures. Nothing of the component runs before it was found to fit.
    pub(crate) fn load(machine: &Arc<Machine>, bytes: &[u8], settings: &str) -> Result<Self, Rejected> {
        if bytes.len() > COMPONENT_BYTES {
            return Err(Rejected::TooLarge(bytes.len()));
        }
        let digest = hex::encode(Sha256::digest(bytes));
        let component = machine.compile(bytes, &digest).map_err(Rejected::NotAComponent)?;
        let skew = skew::<W>(machine, &component);
        if !skew.is_empty() {
            return Err(Rejected::Skew(skew));
        }
        let differs = |error: wasmtime::Error| Rejected::Skew(vec![format!("{error:#}")]);
        let instance = Linker::new(&machine.engine).instantiate_pre(&component).map_err(differs)?;
        let pre = W::pre(instance).map_err(differs)?;
        let mut filled =
            Self { machine: Arc::clone(machine), pre, settings: settings.into(), digest, schema: String::new(), tally: Arc::default() };
        // A differing signature shows only here.
        let mut store = machine.store();
        let world = W::instantiate(&filled.pre, &mut store).map_err(|error| match classify(&error) {
            FaultKind::Absurd(_) => differs(error),
            kind => Rejected::Faulty(kind),
        })?;
        filled.schema = world.schema(&mut store).map_err(|error| Rejected::Faulty(classify(&error)))?;
        v1_0::check_schema(&filled.schema).map_err(|why| Rejected::Faulty(FaultKind::Absurd(why)))?;
        let mut store = machine.store();
        let world = W::instantiate(&filled.pre, &mut store).map_err(differs)?;
        match world.configure(&mut store, settings).map_err(|error| Rejected::Faulty(classify(&error)))? {
            Ok(()) => Ok(filled),
            Err(problems) => {
                Err(Rejected::Settings(problems.into_iter().take(64).map(|problem| (problem.path, problem.message)).collect()))
            }
        }
    }

    /// How it does.
    pub(crate) fn report(&self) -> SlotReport {
        self.tally.report(W::SLOT, &self.digest)
    }

    /// One call in a fresh instance, on a thread that may be held.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        function: impl FnOnce(&W, &mut Store<Limits>) -> wasmtime::Result<R> + Send + 'static,
    ) -> Result<R, Fault> {
        let fault = |kind| Fault { slot: W::SLOT, digest: self.digest.clone(), kind };
        let place = Arc::clone(&self.machine.calls).acquire_owned().await.map_err(|error| fault(FaultKind::Trap(error.to_string())))?;
        let filled = self.clone();
        let job = move || {
            let done = filled.call_here(function);
            drop(place);
            done
        };
        tokio::task::spawn_blocking(job).await.unwrap_or_else(|error| Err(FaultKind::Trap(error.to_string()))).map_err(fault)
    }

    /// One call in a fresh instance, on this thread.
    pub(crate) fn call_here<R>(&self, function: impl FnOnce(&W, &mut Store<Limits>) -> wasmtime::Result<R>) -> Result<R, FaultKind> {
        let mut store = self.machine.store();
        let run = || {
            let world = W::instantiate(&self.pre, &mut store)?;
            if let Err(problems) = world.configure(&mut store, &self.settings)? {
                let first = problems.into_iter().next().map(|problem| problem.message).unwrap_or_default();
                return Ok(Err(FaultKind::Settings(first)));
            }
            function(&world, &mut store).map(Ok)
        };
        run().unwrap_or_else(|error| Err(classify(&error)))
    }
}

/// What a component wants or lacks, in words.
fn skew<W: World>(machine: &Machine, component: &Component) -> Vec<String> {
    let mut skew = Vec::new();
    let ty = component.component_type();
    for (name, import) in ty.imports(&machine.engine) {
        let only_types = match &import.ty {
            ComponentItem::ComponentInstance(instance) => {
                instance.exports(&machine.engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
            }
            _ => false,
        };
        if !(name.starts_with(TYPES) && only_types) {
            skew.push(format!("it imports {name}, and a policy may import nothing but types"));
        }
    }
    let slot = format!("paygress:policy/{}@1.0.0", W::SLOT);
    for (interface, functions) in [(SETTINGS, &["schema", "configure"][..]), (&slot, W::FUNCTIONS)] {
        let Some((_, instance)) = component.get_export(None, interface) else {
            skew.push(format!("it does not export {interface}"));
            continue;
        };
        for function in functions {
            match component.get_export(Some(&instance), function) {
                Some((ComponentItem::ComponentFunc(_), _)) => {}
                _ => skew.push(format!("its {interface} does not export {function}")),
            }
        }
    }
    skew
}

/// What an error of the engine means.
fn classify(error: &wasmtime::Error) -> FaultKind {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::Interrupt => FaultKind::Deadline(u64::try_from(crate::machine::DEADLINE.as_millis()).unwrap_or(u64::MAX)),
            Trap::StackOverflow => FaultKind::Stack,
            trap => FaultKind::Trap(trap.to_string()),
        };
    }
    if error.is::<MemoryCap>() {
        return FaultKind::Memory(error.root_cause().to_string());
    }
    let cause = error.root_cause().to_string();
    match cause.contains("fuel allocated for hostcalls") {
        true => FaultKind::Absurd(format!("more than {} bytes", crate::machine::OUTPUT_BYTES)),
        false => FaultKind::Absurd(cause),
    }
}
