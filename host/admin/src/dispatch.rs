//! What a request does.

use crate::protocol::{ComponentUpload, Reply, Request};
use crate::upload::Received;
use paygress_core::backend::policy::Slot;
use paygress_core::model::sales::Sales;
use paygress_core::orders::{OrderService, pod_named};
use paygress_core::{Policy, Refusal};
use paygress_policy::{
    ComponentRef, ComponentRefs, Publisher, Revision, Source, Sources, SwapError, Trigger,
};
use std::sync::Arc;
use tokio::runtime::Handle;

/// What requests are about.
#[derive(Clone)]
pub(crate) struct Subjects {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) orders: Arc<OrderService>,
}

/// Why a request was not carried out. The client is shown the text.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the slot {0} is named twice")]
    DuplicateSlot(Slot),
    #[error("name a slot and a component")]
    NoSlot,
    #[error(transparent)]
    Swap(#[from] SwapError),
    #[error("there is no shadow")]
    NoShadow,
    #[error(transparent)]
    Order(#[from] Refusal),
}

/// Carries out a request. Blocks: compiling takes seconds. On a thread of a runtime that is for this.
pub(crate) fn dispatch(subjects: &Subjects, received: Received) -> Reply {
    run(subjects, received).unwrap_or_else(|error| Reply::Refused(error.to_string()))
}

fn run(
    Subjects { publisher, orders }: &Subjects,
    Received { request, components }: Received,
) -> Result<Reply, RequestError> {
    let shadow = |report: Option<_>| report.map(Reply::Shadow).ok_or(RequestError::NoShadow);
    Ok(match request {
        Request::Swap(uploads) => {
            let sources = sources(publisher, uploads, components)?;
            Reply::Published(publisher.publish(&sources, Trigger::Operator)?)
        }
        Request::Rollback(to) => Reply::Published(publisher.rollback(to)?),
        Request::History => {
            Reply::History(publisher.history().into_iter().map(without_settings).collect())
        }
        Request::Report => Reply::Report(publisher.host().report()),
        Request::ShadowStart(uploads) => {
            publisher.host().start_shadow(sources(publisher, uploads, components)?)?;
            Reply::Done
        }
        Request::ShadowReport => shadow(publisher.host().shadow_report())?,
        Request::ShadowStop => shadow(publisher.host().stop_shadow())?,
        Request::Promote => Reply::Published(publisher.promote()?),
        Request::LeaseEnd(pod) => {
            Reply::LeaseEnded(Handle::current().block_on(orders.end_lease(&pod_named(pod)?))?)
        }
        Request::Sales(wanted) => Reply::Sales(Handle::current().block_on(sales(orders, wanted))?),
    })
}

/// What is sold, once this is.
async fn sales(orders: &OrderService, wanted: Option<Sales>) -> Result<Sales, Refusal> {
    match wanted {
        Some(sales) => orders.set_sales(sales).await.map(|()| sales),
        None => orders.sales().await,
    }
}

fn sources(
    publisher: &Publisher,
    uploads: Vec<ComponentUpload>,
    components: Vec<Vec<u8>>,
) -> Result<Sources, RequestError> {
    let mut sources = Sources::new();
    for (ComponentUpload { slot, settings, .. }, component) in uploads.into_iter().zip(components) {
        let settings = settings.map_or_else(
            || publisher.settings(slot),
            |settings| serde_json::Value::Object(settings).to_string(),
        );
        if sources.insert(slot, Source { component, settings }).is_some() {
            return Err(RequestError::DuplicateSlot(slot));
        }
    }
    if sources.is_empty() { Err(RequestError::NoSlot) } else { Ok(sources) }
}

/// A revision for the history: a thousand of them with their settings would be too large.
fn without_settings(revision: Revision) -> Revision {
    let without = |components: ComponentRefs| -> ComponentRefs {
        components
            .into_iter()
            .map(|(slot, component)| (slot, ComponentRef { settings: String::new(), ..component }))
            .collect()
    };
    Revision { set: without(revision.set), policy_dir: ComponentRefs::new(), ..revision }
}
