//! The Kubernetes objects of a lease.

use crate::guard::{self, Checked};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use paygress_core::backend::cluster::LeasePlan;
use paygress_core::model::refusal::Refusal;
use paygress_core::model::units::Seconds;
use std::collections::BTreeMap;

/// What existing tools select by.
pub(crate) const APP: (&str, &str) = ("app", "paygress-ssh-pod");
/// The lease that an object belongs to.
pub(crate) const LEASE: &str = "paygress.dev/lease";
/// The paygress that made it: two may share a namespace.
pub(crate) const INSTANCE: &str = "paygress.dev/instance";
/// When a Job was last told to end, in seconds since the Unix epoch: a later one is never taken
/// back.
pub(crate) const EXPIRES: &str = "paygress.dev/expires-at";

/// Job deadlines are 32 bits of seconds for some controllers.
pub(crate) const LONGEST: u64 = 2_000_000_000;

/// All objects of a lease; the owner of the others is filled in when the Job is made.
pub(crate) struct Objects {
    pub(crate) job: Job,
    pub(crate) secret: Secret,
    pub(crate) services: Vec<Service>,
}

/// What the operator decides about Jobs.
pub(crate) struct JobSettings<'a> {
    pub(crate) instance: &'a str,
    pub(crate) ready_within: Seconds,
    pub(crate) ttl: Seconds,
    pub(crate) allowed: &'a guard::Allowed,
}

fn labels(plan: &LeasePlan, instance: &str) -> BTreeMap<String, String> {
    [(APP.0, APP.1), (LEASE, plan.lease.as_str()), (INSTANCE, instance)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn small(seconds: Seconds) -> i64 {
    i64::try_from(seconds.0.min(LONGEST)).unwrap_or(i64::MAX)
}

impl Objects {
    /// The objects of this lease, if its template passes the guard.
    pub(crate) fn of(plan: &LeasePlan, settings: &JobSettings<'_>) -> Result<Self, Refusal> {
        let Checked { mut template, services } = crate::checked(plan, settings.allowed)?;
        let labels = labels(plan, settings.instance);
        let metadata = template.metadata.get_or_insert_default();
        metadata.labels.get_or_insert_default().extend(labels.clone());
        // A container that may be restarted is, a few times; one that may not, ends the lease.
        let restarts = template
            .spec
            .as_ref()
            .is_some_and(|spec| spec.restart_policy.as_deref() == Some("OnFailure"));
        let named = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.clone()),
            ..ObjectMeta::default()
        };
        let job = Job {
            metadata: named(&plan.placement.pod_name),
            spec: Some(JobSpec {
                parallelism: Some(1),
                completions: Some(1),
                backoff_limit: Some(if restarts { 3 } else { 0 }),
                // Until readiness is known; then it is set to what was sold.
                active_deadline_seconds: Some(small(settings.ready_within.plus(plan.sold))),
                ttl_seconds_after_finished: Some(i32::try_from(settings.ttl.0).unwrap_or(i32::MAX)),
                // The clock of a suspended Job stands still, and its pod waits for its Secret.
                suspend: Some(true),
                // A pod that the cluster takes away ends the lease under a name of its own: the
                // customer is paid back.
                pod_failure_policy: (!restarts).then(|| PodFailurePolicy {
                    rules: vec![PodFailurePolicyRule {
                        action: "FailJob".to_owned(),
                        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                            type_: "DisruptionTarget".to_owned(),
                            status: "True".to_owned(),
                        }]),
                        on_exit_codes: None,
                    }],
                }),
                // Two pods at once would fight over the port.
                pod_replacement_policy: Some("Failed".to_owned()),
                template,
                ..JobSpec::default()
            }),
            status: None,
        };
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let mut data = BTreeMap::from([
            ("username".to_owned(), bytes(&plan.login.username)),
            ("password".to_owned(), bytes(plan.login.password.expose())),
        ]);
        if let Some(key) = &plan.login.public_key {
            data.insert("authorized_key".to_owned(), bytes(key));
        }
        let secret = Secret {
            metadata: named(&plan.placement.secret_name),
            data: Some(data),
            immutable: Some(true),
            ..Secret::default()
        };
        let services = services
            .into_iter()
            .map(|mut service| {
                let name = service.metadata.name.take().unwrap_or_default();
                service.metadata = named(&name);
                if let Some(spec) = &mut service.spec {
                    spec.selector =
                        Some(BTreeMap::from([(LEASE.to_owned(), plan.lease.0.clone())]));
                }
                service
            })
            .collect();
        Ok(Self { job, secret, services })
    }

    /// The pod that the Job would make, for a rehearsal.
    pub(crate) fn pod(&self) -> Pod {
        let PodTemplateSpec { metadata, spec } =
            self.job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let name = self.job.metadata.name.as_ref().map(|name| format!("{name}-rehearsal"));
        Pod { metadata: ObjectMeta { name, ..metadata.unwrap_or_default() }, spec, status: None }
    }

    /// Makes the Job the owner of the rest.
    pub(crate) fn own(&mut self, owner: &OwnerReference) {
        let owners = || Some(vec![owner.clone()]);
        self.secret.metadata.owner_references = owners();
        for service in &mut self.services {
            service.metadata.owner_references = owners();
        }
    }
}
