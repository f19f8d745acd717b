//! The policy host, as the service uses it: compiled components are cached, calls start from
//! snapshots of configured ones, and quick calls stay on the thread that makes them.

use crate::files::{Files, Prices};
use crate::runtime::{Runtime, failed};
use anyhow::{Context as _, Result, bail};
use paygress_core::Policy;
use paygress_core::backend::policy::{
    CallFault, Configured, Context, FaultKind, PolicyError, Slot,
};
use paygress_core::model::order::OrderView;
use paygress_core::model::units::UnixTime;
use paygress_policy::{Call, CallResult, Harness, Host, PolicyEngine, Source, Sources, SwapError};
use std::path::Path;
use std::sync::Arc;

pub(crate) struct Ours {
    tokio: tokio::runtime::Runtime,
    host: Arc<Host>,
    spinning: Arc<Host>,
    pricing: Vec<u8>,
    order: OrderView,
    context: Context,
}

impl Ours {
    pub(crate) fn start(files: &Files, cache: &Path) -> Result<Self> {
        let engine = PolicyEngine::start(Some(cache)).map_err(failed)?.with_snapshots();
        let load = |sources: &Sources| {
            Host::load(Arc::clone(&engine), sources).map_err(|e| failed(SwapError::Rejected(e)))
        };
        let sources = files.policies()?;
        let pricing = sources.get(&Slot::Pricing).context("no pricing policy")?.component.clone();
        let host = load(&sources)?;
        if host.report().iter().any(|stats| stats.configured != Configured::Snapshot) {
            bail!("a default policy has no snapshot");
        }
        let mut spinning = sources;
        spinning.insert(Slot::Pricing, files.spinning()?);
        Ok(Self {
            tokio: tokio::runtime::Runtime::new()?,
            spinning: load(&spinning)?,
            host,
            pricing,
            order: order(None),
            context: context(),
        })
    }
}

fn order(tier: Option<&str>) -> OrderView {
    OrderView {
        id: "a".to_owned(),
        customer: "c".repeat(64),
        tier: tier.map(str::to_owned),
        username: "user".to_owned(),
        ..OrderView::default()
    }
}

fn context() -> Context {
    Context { now: UnixTime::now(), capacity_leases: 100, ..Context::default() }
}

impl Runtime for Ours {
    fn name(&self) -> String {
        "paygress".to_owned()
    }

    fn quote(&self) -> Result<u64> {
        let set = self.host.current();
        let quote = self.tokio.block_on(set.quote(&self.order, &self.context)).map_err(failed)?;
        Ok(quote.price.msat.0)
    }

    fn spin(&self) -> Result<()> {
        let set = self.spinning.current();
        match self.tokio.block_on(set.quote(&order(Some(beside_decision::SPIN)), &self.context)) {
            Err(PolicyError::Fault(CallFault { kind: FaultKind::Deadline(_), .. })) => Ok(()),
            other => bail!("the spinning policy was not stopped: {other:?}"),
        }
    }

    fn publish(&self, prices: Prices) -> Result<()> {
        let source =
            Source { component: self.pricing.clone(), settings: prices.settings().to_owned() };
        self.host.swap(&Sources::from([(Slot::Pricing, source)]), || Ok(())).map_err(failed)
    }
}

/// That many policies, each with other settings; each has been called once.
pub(crate) fn policies(files: &Files, count: usize, cache: &Path) -> Result<Vec<Harness>> {
    let engine = PolicyEngine::start(Some(cache)).map_err(failed)?.with_snapshots();
    let sources = files.policies()?;
    let component = &sources.get(&Slot::Pricing).context("no pricing policy")?.component;
    let (order, context) = (order(None), context());
    let mut policies = Vec::new();
    for index in 0..count {
        let settings = format!(r#"{{"sats_per_hour": {}}}"#, index + 1);
        let policy = Harness::load(&engine, Slot::Pricing, component, &settings).map_err(failed)?;
        let call = Call::Quote { order: &order, context: &context };
        match policy.call(call).map_err(failed)?.result {
            CallResult::Returned(_) => policies.push(policy),
            other => bail!("policy {index}: {other:?}"),
        }
    }
    Ok(policies)
}
