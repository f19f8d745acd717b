//! `Policy` resources: which policies the operator wishes for, and what became of it.
//!
//! ```text
//! kubectl apply ─▶ watch ─▶ list ─▶ fetch each (ConfigMap here, a registry by the keeper) ─▶ Keeper::keep ─▶ status
//! ```
//!
//! All resources of a namespace are one wish: the `Enforce` ones are put in force together, or none
//! of them is.

use crate::kubernetes::{ConnectError, client, timely, timely_raw, translate};
use async_trait::async_trait;
use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use paygress_core::backend::cluster::ClusterError;
use paygress_core::backend::policy::Slot;
use paygress_core::model::units::UnixTime;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Resources that are applied together come a moment apart.
const SETTLE: Duration = Duration::from_millis(500);
/// Looks without an event: a ConfigMap may have changed, a registry may be back.
const LOOK: Duration = Duration::from_secs(30);
/// Events that are waited for to settle; then a look is due whatever comes.
const BURST: usize = 100;
/// The longest message in a condition.
const MESSAGE_CHARS: usize = 4_000;

/// What a resource's policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Mode {
    /// It decides.
    #[default]
    Enforce,
    /// It decides beside the one in force, and nothing that it says is used.
    Shadow,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    slot: Slot,
    #[serde(default)]
    mode: Mode,
    source: Source,
    /// SHA-256 of the component.
    digest: Option<String>,
    #[serde(default)]
    settings: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Source {
    ConfigMap { name: String, key: String },
    Oci(String),
}

/// A component as a resource names it, not yet trusted.
#[derive(Debug)]
pub enum Fetched {
    /// What a ConfigMap held, and the signature beside it.
    Bytes(Vec<u8>, Option<String>),
    /// It is in a registry.
    Oci(String),
}

/// Why there is no component.
#[derive(Debug)]
pub enum FetchError {
    /// It is not there.
    Unavailable(String),
    /// It is not what it should be.
    Unverified(String),
}

/// A policy that is wished for.
#[derive(Debug)]
pub struct DesiredPolicy {
    /// The slot.
    pub slot: Slot,
    /// What for.
    pub mode: Mode,
    /// The component, if it could be had.
    pub component: Option<Vec<u8>>,
    /// A JSON object.
    pub settings: String,
    /// Another one for each resource and each change of it.
    pub version: String,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyStatus {
    /// It is in force.
    InForce,
    /// It decides beside the one in force.
    Beside,
    /// It is not good.
    Refused(String),
    /// It is good as far as is known, and not in force.
    Waiting(String),
    /// It was in force, and the operator has put something else there.
    Superseded(String),
}

/// Who puts policies in force.
#[async_trait]
pub trait Reconcile: Send + Sync {
    /// The component, verified: its signature, and its digest where one is given. `version` is
    /// another one when the resource is.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn obtain(
        &self,
        version: &str,
        fetched: Fetched,
        digest: Option<&str>,
    ) -> Result<Vec<u8>, FetchError>;
    /// Puts wishes in force, all or none; tells what became of each. When not all of them are
    /// known, or one has no component, nothing is exchanged.
    async fn keep(&self, wishes: Vec<DesiredPolicy>, all: bool) -> Vec<ApplyStatus>;
}

/// The resources of a namespace.
pub struct Policies {
    policies: Api<DynamicObject>,
    config_maps: Api<ConfigMap>,
}

/// How a resource fares: the four conditions of its status.
#[derive(Debug, Default)]
struct Progress {
    fetched: ConditionState,
    verified: ConditionState,
    valid: ConditionState,
    active: ConditionState,
}

#[derive(Debug, Default)]
struct ConditionState {
    status: Option<bool>,
    reason: &'static str,
    message: String,
}

impl ConditionState {
    fn yes(reason: &'static str) -> Self {
        Self { status: Some(true), reason, message: String::new() }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: Some(false), reason, message: message.into() }
    }
}

impl Policies {
    /// The resources of this namespace. Asks nothing yet.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(kubeconfig: Option<&Path>, namespace: &str) -> Result<Self, ConnectError> {
        let client = client(kubeconfig).await?;
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("paygress.dev", "v1", "Policy"));
        Ok(Self {
            policies: Api::namespaced_with(
                client.clone(),
                namespace,
                &ApiResource { plural: "policies".to_owned(), ..kind },
            ),
            config_maps: Api::namespaced(client, namespace),
        })
    }

    /// Looks once; what keeps it from that is logged, and a later look may do better.
    pub async fn look(&self, keeper: &dyn Reconcile) {
        if let Err(error) = self.keep(keeper).await {
            tracing::warn!(%error, "Policy resources cannot be read, or their status not be written");
        }
    }

    /// Looks whenever something changes, until it is dropped.
    pub async fn watch(self, keeper: Arc<dyn Reconcile>) {
        let mut events = std::pin::pin!(
            watcher(self.policies.clone(), watcher::Config::default()).default_backoff()
        );
        // A status that was written, here or by another replica, is no news.
        let mut generations = HashMap::new();
        // The first look is due when the watch has begun.
        let mut looks = interval_at(Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = events.next() => Ok(event),
                tick = looks.tick() => Err(tick),
            };
            match event {
                Ok(Some(Err(error))) => {
                    tracing::warn!(%error, "Policy resources cannot be watched; apply k8s/base, or unset POLICY_NAMESPACE");
                    continue;
                }
                Ok(Some(Ok(Event::Init | Event::InitApply(_)))) => continue,
                Ok(Some(Ok(Event::Apply(resource)))) => {
                    let generation = resource.metadata.generation;
                    if generations.insert(resource.uid(), generation) == Some(generation) {
                        continue;
                    }
                }
                Ok(None) => return,
                Ok(Some(Ok(Event::Delete(resource)))) => drop(generations.remove(&resource.uid())),
                Ok(Some(Ok(Event::InitDone))) | Err(_) => {}
            }
            for _ in 0..BURST {
                if !matches!(tokio::time::timeout(SETTLE, events.next()).await, Ok(Some(Ok(_)))) {
                    break;
                }
            }
            self.look(&*keeper).await;
        }
    }

    async fn keep(&self, keeper: &dyn Reconcile) -> Result<(), ClusterError> {
        let mut resources = timely(self.policies.list(&ListParams::default())).await?.items;
        // Who was first has the slot.
        resources.sort_by_key(|resource| (resource.creation_timestamp(), resource.name_any()));
        let mut progress: Vec<Progress> = resources.iter().map(|_| Progress::default()).collect();
        let (mut specs, mut all) = (Vec::new(), true);
        let mut taken = BTreeSet::new();
        for (resource, progress) in resources.iter().zip(&mut progress) {
            match serde_json::from_value::<Spec>(
                resource.data.get("spec").cloned().unwrap_or_default(),
            ) {
                Ok(spec) if taken.insert((spec.slot, spec.mode)) => {
                    specs.push((resource, spec, progress))
                }
                Ok(Spec { slot, .. }) => {
                    progress.active = ConditionState::no(
                        "SlotTaken",
                        format!("another Policy for the slot {slot} was there first"),
                    );
                }
                Err(error) => {
                    all = false;
                    progress.valid = ConditionState::no("InvalidSpec", error.to_string());
                }
            }
        }
        // At the same time: a registry that is away does not keep the others' from being had.
        let wishes = specs
            .into_iter()
            .map(|(resource, spec, progress)| self.wish(resource, spec, progress, keeper));
        let (told, wishes): (Vec<&mut Progress>, Vec<DesiredPolicy>) =
            join_all(wishes).await.into_iter().unzip();
        for (progress, fate) in told.into_iter().zip(keeper.keep(wishes, all).await) {
            (progress.valid, progress.active) = verdicts(fate);
        }
        let mut told = Ok(());
        for (resource, progress) in resources.iter().zip(progress) {
            // One that cannot be told does not keep the others from it.
            told = self.tell(resource, progress).await.and(told);
        }
        told
    }

    /// What a resource wishes for, with its component if that can be had.
    async fn wish<'a>(
        &self,
        resource: &DynamicObject,
        spec: Spec,
        progress: &'a mut Progress,
        keeper: &dyn Reconcile,
    ) -> (&'a mut Progress, DesiredPolicy) {
        let Spec { slot, mode, source, digest, settings } = spec;
        let version = format!(
            "{} {}",
            resource.uid().unwrap_or_default(),
            resource.metadata.generation.unwrap_or_default()
        );
        let obtained = match self.fetch(source).await {
            Ok(fetched) => keeper.obtain(&version, fetched, digest.as_deref()).await,
            Err(why) => Err(FetchError::Unavailable(why)),
        };
        (progress.fetched, progress.verified) = match &obtained {
            Ok(_) => (ConditionState::yes("Fetched"), ConditionState::yes("Verified")),
            Err(FetchError::Unavailable(why)) => {
                (ConditionState::no("Unavailable", why), ConditionState::default())
            }
            Err(FetchError::Unverified(why)) => {
                (ConditionState::yes("Fetched"), ConditionState::no("Refused", why))
            }
        };
        (
            progress,
            DesiredPolicy {
                slot,
                mode,
                component: obtained.ok(),
                settings: Value::Object(settings).to_string(),
                version,
            },
        )
    }

    async fn fetch(&self, source: Source) -> Result<Fetched, String> {
        match source {
            Source::Oci(reference) => Ok(Fetched::Oci(reference)),
            Source::ConfigMap { name, key } => {
                let map = timely(self.config_maps.get_opt(&name))
                    .await
                    .map_err(|error| error.to_string())?;
                let map =
                    map.ok_or_else(|| format!("there is no ConfigMap {name} in this namespace"))?;
                let component = map.binary_data.and_then(|mut data| data.remove(&key));
                let component = component.ok_or_else(|| {
                    format!(
                        "the ConfigMap {name} has no binaryData {key}; make it by `kubectl create configmap {name} --from-file={key}=…`"
                    )
                })?;
                let signature = map.data.and_then(|mut data| data.remove(&format!("{key}.sig")));
                Ok(Fetched::Bytes(component.0, signature))
            }
        }
    }

    /// Writes the status, if it is another one.
    async fn tell(&self, resource: &DynamicObject, progress: Progress) -> Result<(), ClusterError> {
        let old = resource.data.get("status").cloned().unwrap_or_default();
        let Progress { fetched, verified, valid, active } = progress;
        let conditions: Vec<Value> =
            [("Fetched", fetched), ("Verified", verified), ("Valid", valid), ("Active", active)]
                .into_iter()
                .map(|(kind, verdict)| condition(kind, verdict, &old))
                .collect();
        let new =
            json!({"observedGeneration": resource.metadata.generation, "conditions": conditions});
        if new == old {
            return Ok(());
        }
        // Of this one, and not of another that has its name by now.
        let status = Patch::Merge(json!({"metadata": {"uid": resource.uid()}, "status": new}));
        match timely_raw(self.policies.patch_status(
            &resource.name_any(),
            &PatchParams::default(),
            &status,
        ))
        .await?
        {
            // It was removed in the meantime.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(())
            }
            told => told.map(drop).map_err(translate),
        }
    }
}

/// A condition; its time is that of its last change.
fn condition(kind: &str, verdict: ConditionState, old: &Value) -> Value {
    let status = match verdict.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let reason = if verdict.reason.is_empty() { "Pending" } else { verdict.reason };
    let message: String = verdict.message.chars().take(MESSAGE_CHARS).collect();
    let found = old
        .get("conditions")
        .and_then(Value::as_array)
        .and_then(|all| all.iter().find(|condition| condition["type"] == kind));
    let since =
        found.filter(|old| old["status"] == status).map(|old| old["lastTransitionTime"].clone());
    let since = since.unwrap_or_else(|| Value::from(UnixTime::now().rfc3339()));
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
}

fn verdicts(fate: ApplyStatus) -> (ConditionState, ConditionState) {
    match fate {
        ApplyStatus::InForce => (ConditionState::yes("Valid"), ConditionState::yes("InForce")),
        ApplyStatus::Beside => (
            ConditionState::yes("Valid"),
            ConditionState::no(
                "Shadow",
                "it decides beside the one in force; see `paygress policy shadow report`",
            ),
        ),
        ApplyStatus::Refused(why) => (
            ConditionState::no("Refused", why),
            ConditionState::no("Refused", "the one that was in force goes on"),
        ),
        ApplyStatus::Waiting(why) => {
            (ConditionState::default(), ConditionState::no("Waiting", why))
        }
        ApplyStatus::Superseded(why) => {
            (ConditionState::yes("Valid"), ConditionState::no("Superseded", why))
        }
    }
}
