//! The controller: watches the resources, and reconciles them as one set.

use crate::conditions::Progress;
use crate::desired::{Completeness, DesiredPolicy, FetchError, Reconcile, UntrustedComponent};
use crate::resource::{ComponentSource, Policy, PolicySpec, PolicyStatus};
use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use paygress_cluster::connection::{ConnectError, RequestError, client, with_timeout};
use paygress_cluster::watches::watch;
use paygress_core::error_chain;
use paygress_core::logged_failures::LoggedFailures;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Resources that are applied together arrive within this time of each other.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// Events that a reconciliation may wait for.
const MAX_DEBOUNCED: usize = 100;
/// Reconciliation without an event: a ConfigMap may have changed, or a registry be reachable again.
const RESYNC: Duration = Duration::from_secs(30);

/// A reconciliation that was not completed.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error("the Policy resources cannot be listed: {0}")]
    List(#[source] RequestError),
    #[error("the status of the Policy {name} cannot be written: {source}")]
    Status { name: String, source: RequestError },
}

/// What a reconciliation works with.
struct Context {
    /// Untyped: one resource with an invalid spec must not hide the others.
    policies: Api<DynamicObject>,
    config_maps: Api<ConfigMap>,
    reconciler: Arc<dyn Reconcile>,
}

/// The controller of the `Policy` resources of one namespace.
pub struct Controller {
    context: Context,
}

impl Controller {
    /// Connects with this kubeconfig, or `$KUBECONFIG`, or as a pod of the cluster. Sends nothing
    /// yet.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(
        kubeconfig: Option<&Path>,
        namespace: &str,
        reconciler: Arc<dyn Reconcile>,
    ) -> Result<Self, ConnectError> {
        Ok(Self::new(client(kubeconfig).await?, namespace, reconciler))
    }

    /// With a client that is connected already.
    #[must_use]
    pub fn new(client: Client, namespace: &str, reconciler: Arc<dyn Reconcile>) -> Self {
        let policies =
            Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<Policy>(&()));
        let config_maps = Api::namespaced(client, namespace);
        Self { context: Context { policies, config_maps, reconciler } }
    }

    /// Reconciles the resources as they are now.
    pub async fn reconcile_once(&self) {
        if let Err(error) = reconcile(&self.context).await {
            error_policy(&error);
        }
    }

    /// Reconciles whenever a resource changes, until it is dropped.
    pub async fn run(self) {
        let policies = watch(self.context.policies.clone(), watcher::Config::default());
        let mut events = std::pin::pin!(policies);
        let (mut observed, failures) = (ObservedGenerations::default(), LoggedFailures::default());
        let mut resync = interval(RESYNC);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first reconciliation is due once the watch has listed the resources: the tick that is
        // due at once is not it.
        resync.tick().await;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    None => return,
                    Some(Err(error)) => {
                        log(&failures, &error);
                        continue;
                    }
                    Some(Ok(event)) if !observed.is_due(&event) => continue,
                    Some(Ok(_)) => {}
                },
                _ = resync.tick() => {}
            }
            for _ in 0..MAX_DEBOUNCED {
                match timeout(DEBOUNCE, events.next()).await {
                    Ok(Some(Ok(event))) => drop(observed.is_due(&event)),
                    Ok(Some(Err(error))) => {
                        log(&failures, &error);
                        break;
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            self.reconcile_once().await;
        }
    }
}

/// The generations that events have shown. A status that was written, by this replica or another
/// one, does not change the generation, and must not trigger a reconciliation.
#[derive(Default)]
struct ObservedGenerations(HashMap<Option<String>, Option<i64>>);

impl ObservedGenerations {
    /// Whether a reconciliation is due after this event.
    fn is_due(&mut self, event: &Event<DynamicObject>) -> bool {
        match event {
            Event::Init => {
                self.0.clear();
                false
            }
            Event::InitApply(resource) => {
                self.0.insert(resource.uid(), resource.metadata.generation);
                false
            }
            Event::InitDone => true,
            Event::Apply(resource) => {
                let generation = resource.metadata.generation;
                self.0.insert(resource.uid(), generation) != Some(generation)
            }
            Event::Delete(resource) => {
                self.0.remove(&resource.uid());
                true
            }
        }
    }
}

fn log(failures: &LoggedFailures, error: &watcher::Error) {
    if let Some(error) = failures.admit(error_chain(error)) {
        tracing::warn!(
            error,
            "Policy resources cannot be watched; apply k8s/base, or unset POLICY_NAMESPACE"
        );
    }
}

/// Every error may pass: the next resync tries again.
fn error_policy(error: &ReconcileError) {
    tracing::warn!(%error, retry_seconds = RESYNC.as_secs(), "Policy resources are not reconciled");
}

/// Applies all resources of the namespace together, and writes their statuses.
async fn reconcile(context: &Context) -> Result<(), ReconcileError> {
    let list = with_timeout(context.policies.list(&ListParams::default())).await;
    let mut resources = list.map_err(ReconcileError::List)?.items;
    // The oldest resource has the slot.
    resources.sort_by_key(|resource| (resource.creation_timestamp(), resource.name_any()));
    let mut taken = BTreeSet::new();
    let mut completeness = Completeness::Complete;
    let (mut accepted, mut statuses) = (Vec::new(), Vec::new());
    for resource in &resources {
        match spec(resource) {
            Ok(spec) if taken.insert((spec.slot, spec.mode)) => accepted.push((resource, spec)),
            Ok(spec) => statuses.push((resource, Progress::slot_taken(spec.slot))),
            Err(error) => {
                completeness = Completeness::Partial;
                statuses.push((resource, Progress::invalid_spec(&error)));
            }
        }
    }
    // Concurrently: one unreachable registry must not delay the others.
    let fetches = accepted.into_iter().map(async |(resource, spec)| {
        let (progress, policy) = fetch(context, resource, spec).await;
        ((resource, progress), policy)
    });
    let (fetched, desired): (Vec<_>, Vec<_>) = join_all(fetches).await.into_iter().unzip();
    let applied = context.reconciler.reconcile(desired, completeness).await;
    for ((resource, mut progress), status) in fetched.into_iter().zip(applied) {
        progress.set_applied(status);
        statuses.push((resource, progress));
    }
    let mut result = Ok(());
    for (resource, progress) in statuses {
        // A status that cannot be written must not keep the others from being written.
        result = write_status(context, resource, progress).await.and(result);
    }
    result
}

fn spec(resource: &DynamicObject) -> Result<PolicySpec, serde_json::Error> {
    serde_json::from_value(resource.data.get("spec").cloned().unwrap_or_default())
}

/// What a resource asks for, with its component if that can be fetched and verified.
async fn fetch(
    context: &Context,
    resource: &DynamicObject,
    spec: PolicySpec,
) -> (Progress, DesiredPolicy) {
    let PolicySpec { slot, mode, source, digest, settings } = spec;
    // Kept in the history of policies, which tells by it what was superseded.
    let version = format!(
        "{} {}",
        resource.uid().unwrap_or_default(),
        resource.metadata.generation.unwrap_or_default()
    );
    let component = match locate(context, source).await {
        Ok(component) => context.reconciler.fetch(&version, component, digest.as_deref()).await,
        Err(error) => Err(error),
    };
    let progress = Progress::fetched(component.as_ref().map(drop));
    let settings = Value::Object(settings).to_string();
    (progress, DesiredPolicy { slot, mode, component: component.ok(), settings, version })
}

async fn locate(
    context: &Context,
    source: ComponentSource,
) -> Result<UntrustedComponent, FetchError> {
    let (name, key) = match source {
        ComponentSource::Oci(reference) => return Ok(UntrustedComponent::Oci(reference)),
        ComponentSource::ConfigMap { name, key } => (name, key),
    };
    let map = with_timeout(context.config_maps.get_opt(&name)).await?;
    let Some(map) = map else { return Err(FetchError::NoConfigMap(name)) };
    let Some(component) = map.binary_data.and_then(|mut data| data.remove(&key)) else {
        return Err(FetchError::NoKey { name, key });
    };
    let signature = map.data.and_then(|mut data| data.remove(&format!("{key}.sig")));
    Ok(UntrustedComponent::Inline { component: component.0, signature })
}

/// Writes the status, if it has changed.
async fn write_status(
    context: &Context,
    resource: &DynamicObject,
    progress: Progress,
) -> Result<(), ReconcileError> {
    let old = resource.data.get("status").cloned().unwrap_or_default();
    let old = serde_json::from_value(old).unwrap_or_default();
    let new: PolicyStatus =
        progress.into_status(resource.metadata.generation, &old, &Time(Timestamp::now()));
    if new == old {
        return Ok(());
    }
    // With the uid, a later resource of the same name is a conflict.
    let patch = Patch::Merge(json!({"metadata": {"uid": resource.uid()}, "status": new}));
    let name = resource.name_any();
    let params = PatchParams::default();
    match with_timeout(context.policies.patch_status(&name, &params, &patch)).await {
        // It was deleted in the meantime.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(source) => Err(ReconcileError::Status { name, source }),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(uid: &str, generation: i64) -> DynamicObject {
        let mut resource = DynamicObject::new("pricing", &ApiResource::erase::<Policy>(&()));
        resource.metadata.uid = Some(uid.to_owned());
        resource.metadata.generation = Some(generation);
        resource
    }

    #[test]
    fn writing_a_status_triggers_nothing() {
        let mut observed = ObservedGenerations::default();
        for (event, is_due, case) in [
            (Event::Init, false, "the list has begun"),
            (Event::InitApply(resource("a", 1)), false, "the list is not complete"),
            (Event::InitDone, true, "all is listed"),
            (Event::Apply(resource("a", 1)), false, "a status was written"),
            (Event::Apply(resource("a", 2)), true, "the spec has changed"),
            (Event::Apply(resource("a", 2)), false, "a status was written"),
            (Event::Apply(resource("b", 1)), true, "another resource"),
            (Event::Delete(resource("a", 2)), true, "deleted"),
            (Event::Apply(resource("c", 2)), true, "created again"),
        ] {
            assert_eq!(observed.is_due(&event), is_due, "{case}");
        }
    }
}
