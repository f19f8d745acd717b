//! What a request does.

use crate::protocol::{ComponentUpload, Reply, Request};
use crate::upload::Received;
use paygress_core::Policy;
use paygress_core::backend::policy::Slot;
use paygress_policy::{
    ComponentRef, ComponentRefs, Publisher, Revision, Source, Sources, SwapError, Trigger,
};

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
}

/// Carries out a request. Blocks: compiling takes seconds.
pub(crate) fn dispatch(publisher: &Publisher, received: Received) -> Reply {
    run(publisher, received).unwrap_or_else(|error| Reply::Refused(error.to_string()))
}

fn run(
    publisher: &Publisher,
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
    })
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
