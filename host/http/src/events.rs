//! Progress of a pod as server-sent events: from the order to the end.

use crate::extract::{ApiRequest, PathParam};
use crate::limits;
use crate::problem::{Problem, ProblemBody, ProblemType};
use crate::state::App;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream};
use paygress_core::keyed_limit::Permit;
use paygress_core::model::ids::{Customer, PodName};
use paygress_core::model::lease::EndReason;
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_core::orders::pod_named;
use paygress_core::orders::{Progress, Stage};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval};
use utoipa::ToSchema;

/// One event's data; its name is the stage.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct StageEvent {
    /// The pod.
    pod_name: String,
    /// How far it is.
    stage: Stage,
    /// Until when it lives (RFC 3339).
    expires_at: Option<String>,
    /// What is left.
    time_remaining_seconds: u64,
    /// The latest notice: it ends within so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice_seconds: Option<u64>,
    /// Why it is over, or never ran, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<EndReason>,
    /// Why it did not go through.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

struct ProgressStream {
    app: Arc<App>,
    pod: PodName,
    customer: Customer,
    tick: Interval,
    until: Instant,
    sent: Option<Progress>,
    _permits: (OwnedSemaphorePermit, Permit<Customer>),
}

impl ProgressStream {
    fn event(&self, progress: &Progress) -> Event {
        let data = StageEvent {
            pod_name: self.pod.to_string(),
            stage: progress.stage,
            expires_at: progress.expires_at.map(UnixTime::rfc3339),
            time_remaining_seconds: progress
                .expires_at
                .map_or(Seconds(0), |at| at.since(UnixTime::now()))
                .0,
            notice_seconds: progress.notice.map(|before| before.0),
            end_reason: progress.end_reason,
            message: progress.refusal.as_ref().map(|refusal| refusal.message.clone()),
        };
        let name = serde_json::to_value(data.stage)
            .ok()
            .and_then(|name| name.as_str().map(str::to_owned))
            .unwrap_or_default();
        Event::default().event(name).json_data(data).unwrap_or_default()
    }

    /// Waits until there is something new; `None` when nothing more comes.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.sent.as_ref().is_some_and(|sent| sent.stage.is_last()) {
            return None;
        }
        while Instant::now() < self.until {
            tokio::select! {
                _ = self.tick.tick() => {}
                // Its reader opens it again, at another process.
                _ = self.app.stopping.begun() => return None,
            }
            // A ledger that fails for a moment is not the pod's end.
            let Ok(progress) = self.app.orders.progress(&self.pod, &self.customer).await else {
                continue;
            };
            if self.sent.as_ref() != Some(&progress) {
                let event = self.event(&progress);
                self.sent = Some(progress);
                return Some((Ok(event), self));
            }
        }
        None
    }
}

/// Watch a pod
///
/// Server-sent events from the order to the end: `received`, `redeemed`, `scheduled`, `pulling`,
/// `ready`, `expiring`, `ended`, or
/// `refused` and `refunded`. A stage that passes quickly may be left out; a top-up sends the stage
/// again, with the new end, and so does a notice before it, with `notice_seconds`.
#[utoipa::path(get, path = "/pods/{name}/events", tag = "customer", params(("name" = String, Path, description = "The pod's name")),
    responses((status = 200, description = "One event a stage", body = StageEvent, content_type = "text/event-stream"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json")),
    security(("bearer" = []), ("nip98" = [])))]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    PathParam(name): PathParam,
    request: ApiRequest,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let (pod, customer) = (pod_named(name)?, request.customer()?.clone());
    app.orders.progress(&pod, &customer).await?;
    let full = || {
        Problem::new(
            ProblemType::TooManyRequests,
            "too many streams are open; poll the pod's status instead",
        )
    };
    let own =
        app.streams_of.try_acquire(customer.clone(), limits::STREAMS_OF_ONE).ok_or_else(full)?;
    let permit = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| full())?;
    let until = Instant::now().checked_add(limits::STREAM_LIFE).unwrap_or_else(Instant::now);
    let mut tick = tokio::time::interval(limits::STREAM_TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let events =
        ProgressStream { app, pod, customer, tick, until, sent: None, _permits: (permit, own) };
    Ok(Sse::new(stream::unfold(events, ProgressStream::next)).keep_alive(KeepAlive::default()))
}
