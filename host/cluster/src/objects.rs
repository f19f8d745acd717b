//! The Kubernetes objects of a lease.

use crate::check_plan::check_plan;
use crate::guard::{self, Checked, EGRESS_LABEL};
use crate::image_program::ImageProgram;
use crate::pod_reply::{self, ReplyStep};
use crate::service_contact::introduce;
use crate::ssh_server::SshServer;
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, Secret, Service};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::ResourceExt;
use paygress_core::backend::cluster::LeasePlan;
use paygress_core::model::ids::{LeaseId, PodName};
use paygress_core::model::login::Login;
use paygress_core::model::refusal::Refusal;
use paygress_core::model::run::Run;
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_pod_nostr::ServiceContact;
use paygress_sshd::{HOST_KEY_SECRET, HostKeySecret};
use std::collections::BTreeMap;

/// The label that existing tools select by.
pub(crate) const APP: (&str, &str) = ("app", "paygress-ssh-pod");
/// The label with the lease of an object.
pub(crate) const LEASE: &str = "paygress.dev/lease";
/// The label with the installation that created an object: two may share a namespace.
pub(crate) const INSTANCE: &str = "paygress.dev/instance";
/// Of what a probe has launched, beside that of a lease.
pub(crate) const PROBE: &str = "paygress.dev/probe";
/// The annotation with the latest expiry that a Job was given, in seconds since the Unix epoch. It
/// is never lowered.
pub(crate) const EXPIRES: &str = "paygress.dev/expires-at";

/// The annotation with the time at which a Job was resumed, in seconds since the Unix epoch, by the
/// clock of the service: the end that was sold is by that clock too.
pub(crate) const STARTED: &str = "paygress.dev/started-at";

/// What [`EGRESS_LABEL`] is in a pod that has a NetworkPolicy of its own.
const OWN_EGRESS: &str = "lease";

/// Some controllers read deadlines as 32 bits of seconds.
pub(crate) const MAX_DEADLINE_SECONDS: u64 = 2_000_000_000;

/// How long a finished Job is kept whose end is not recorded: the service may be down, and only the
/// Job says whether the customer or the cluster has ended the pod.
const UNRECORDED_TTL: Seconds = Seconds(86_400);

/// All objects of a lease. [`Objects::set_owner`] makes the Job own the others once it exists.
pub(crate) struct Objects {
    pub(crate) job: Job,
    pub(crate) secret: Secret,
    /// What the pod is to write to its customer.
    pub(crate) reply: Option<Secret>,
    pub(crate) services: Vec<Service>,
    /// What the pod may connect to besides DNS; none: what all pods may.
    pub(crate) egress: Option<NetworkPolicy>,
}

/// The operator's settings for Jobs.
pub(crate) struct JobSettings<'a> {
    pub(crate) instance: &'a str,
    pub(crate) ready_within: Seconds,
    pub(crate) ttl: Seconds,
    pub(crate) allowed: &'a guard::Allowed,
    /// None: the images bring their own.
    pub(crate) ssh_server: Option<SshServer<'a>>,
    /// What that proves its host keys by.
    pub(crate) host_key_secret: &'a HostKeySecret,
    /// None: pods know nothing of the service.
    pub(crate) contact: Option<&'a ServiceContact>,
    pub(crate) reply: ReplyStep,
}

/// Selects the Jobs of an installation, and their pods.
pub(crate) fn selector(instance: &str) -> String {
    format!("{}={},{INSTANCE}={instance}", APP.0, APP.1)
}

/// The name by which the ledger knows a pod: that of its Job.
pub(crate) fn pod_of_lease(pod: &Pod) -> Option<PodName> {
    let lease = pod.labels().get(LEASE)?;
    LeaseId::parse(lease.as_str()).ok().map(|lease| lease.pod_name())
}

fn labels(plan: &LeasePlan, instance: &str) -> BTreeMap<String, String> {
    [(APP.0, APP.1), (LEASE, plan.lease.as_str()), (INSTANCE, instance)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn seconds(seconds: Seconds) -> i64 {
    i64::try_from(seconds.0.min(MAX_DEADLINE_SECONDS)).unwrap_or(i64::MAX)
}

pub(crate) fn ttl(kept: Seconds) -> i32 {
    i32::try_from(kept.0).unwrap_or(i32::MAX)
}

/// The `activeDeadlineSeconds` that end a Job at this time; none before it has started. They count
/// from its start, which the cluster's clock says, and a clock may be wrong: a start by our own is
/// preferred. It is known as soon as the Job is resumed, where the cluster's may follow its first pod.
/// Jobs of earlier versions have none.
pub(crate) fn deadline(job: &Job, at: UnixTime) -> Option<u64> {
    let annotations = job.metadata.annotations.as_ref();
    let ours = annotations.and_then(|annotations| annotations.get(STARTED)?.parse().ok());
    let clusters = || {
        let start = job.status.as_ref()?.start_time.as_ref()?;
        u64::try_from(start.0.as_second()).ok()
    };
    let start = UnixTime(ours.or_else(clusters)?);
    Some(at.since(start).0.clamp(1, MAX_DEADLINE_SECONDS))
}

/// How much of its owner's id is in the name of a NetworkPolicy.
const UID_CHARS: usize = 8;

/// Egress alone: with both directions in one policy kube-router lets pods out to what they are let into.
fn policy_spec(
    selector: &BTreeMap<String, String>,
    rules: Vec<NetworkPolicyEgressRule>,
) -> NetworkPolicySpec {
    NetworkPolicySpec {
        pod_selector: Some(LabelSelector {
            match_labels: Some(selector.clone()),
            ..LabelSelector::default()
        }),
        policy_types: Some(vec!["Egress".to_owned()]),
        egress: Some(rules),
        ingress: None,
    }
}

fn job_spec(sold: Seconds, template: PodTemplateSpec, settings: &JobSettings<'_>) -> JobSpec {
    // A container that may be restarted is restarted a few times; any other ends the lease.
    let restarts = template
        .spec
        .as_ref()
        .is_some_and(|spec| spec.restart_policy.as_deref() == Some("OnFailure"));
    // A pod that the cluster evicts ends the lease with a reason of its own: the customer gets a
    // refund.
    let on_eviction = || PodFailurePolicy {
        rules: vec![PodFailurePolicyRule {
            action: "FailJob".to_owned(),
            on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                type_: "DisruptionTarget".to_owned(),
                status: "True".to_owned(),
            }]),
            on_exit_codes: None,
        }],
    };
    JobSpec {
        parallelism: Some(1),
        completions: Some(1),
        backoff_limit: Some(if restarts { 3 } else { 0 }),
        // Replaced by the time that was sold as soon as the pod is ready.
        active_deadline_seconds: Some(seconds(settings.ready_within.plus(sold))),
        ttl_seconds_after_finished: Some(ttl(settings.ttl.max(UNRECORDED_TTL))),
        // The deadline of a suspended Job does not run. It is resumed once its Secret exists.
        suspend: Some(true),
        pod_failure_policy: (!restarts).then(on_eviction),
        // Two pods at once would compete for the port.
        pod_replacement_policy: Some("Failed".to_owned()),
        template,
        ..JobSpec::default()
    }
}

/// The checked template, with what the host adds.
fn completed(plan: &LeasePlan, settings: &JobSettings<'_>) -> Result<Checked, Refusal> {
    let mut checked = check_plan(plan, settings.allowed)?;
    if let Some(server) = &settings.ssh_server {
        server.install(&mut checked.template, plan.placement.container_port);
        // Beside an image's own program there is no place for it.
        if settings.reply == ReplyStep::Present && plan.run == Run::Ssh {
            pod_reply::add(&mut checked.template, &plan.placement.pod_name);
        }
    }
    introduce(&mut checked.template, settings.contact, &plan.lease.pod_name());
    if plan.run == Run::Image {
        let program = ImageProgram {
            // Without one the template is refused: there is no server beside which to run it.
            server_image: settings.ssh_server.map_or("", |server| server.image),
            services: &checked.services,
            sold: plan.placement.resources,
            overcommit: settings.allowed.overcommit,
        };
        program.add(&mut checked.template)?;
    }
    Ok(checked)
}

fn login_data(login: &Login) -> BTreeMap<String, ByteString> {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    login.files().map(|(name, content)| (name.to_owned(), bytes(content))).collect()
}

/// The login, and what the host's server proves its host keys by. Of this pod, nothing else: its
/// customer may read it.
fn secret_data(login: &Login, settings: &JobSettings<'_>) -> BTreeMap<String, ByteString> {
    let mut data = login_data(login);
    if settings.ssh_server.is_some() {
        let secret = ByteString(settings.host_key_secret.to_bytes());
        data.insert(HOST_KEY_SECRET.to_owned(), secret);
    }
    data
}

impl Objects {
    /// The objects of this lease, if its template passes the guard.
    pub(crate) fn of(plan: &LeasePlan, settings: &JobSettings<'_>) -> Result<Self, Refusal> {
        let Checked { mut template, services, egress } = completed(plan, settings)?;
        let labels = labels(plan, settings.instance);
        let metadata = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.clone()),
            ..ObjectMeta::default()
        };
        let pod = template.metadata.get_or_insert_default();
        let pod_labels = pod.labels.get_or_insert_default();
        pod_labels.extend(labels.clone());
        if egress.is_some() {
            pod_labels.insert(EGRESS_LABEL.to_owned(), OWN_EGRESS.to_owned());
        }
        let selector = BTreeMap::from([(LEASE.to_owned(), plan.lease.as_str().to_owned())]);
        let egress = egress.map(|rules| NetworkPolicy {
            metadata: metadata(&plan.placement.pod_name),
            spec: Some(policy_spec(&selector, rules)),
        });
        let services = services
            .into_iter()
            .map(|mut service| {
                let name = service.metadata.name.take().unwrap_or_default();
                service.metadata = metadata(&name);
                if let Some(spec) = &mut service.spec {
                    spec.selector = Some(selector.clone());
                }
                service
            })
            .collect();
        let secret = |name: &str, data| Secret {
            metadata: metadata(name),
            data: Some(data),
            immutable: Some(true),
            ..Secret::default()
        };
        let reply_name = pod_reply::secret_name(&plan.placement.pod_name);
        let reply = plan.pod_reply.as_ref().map(pod_reply::secret_data);
        Ok(Self {
            job: Job {
                metadata: metadata(&plan.placement.pod_name),
                spec: Some(job_spec(plan.sold, template, settings)),
                status: None,
            },
            secret: secret(&plan.placement.secret_name, secret_data(&plan.login, settings)),
            reply: reply.map(|data| secret(&reply_name, data)),
            services,
            egress,
        })
    }

    /// The pod that the Job would create, for a dry run.
    pub(crate) fn pod(&self) -> Pod {
        let PodTemplateSpec { metadata, spec } =
            self.job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let name = self.job.metadata.name.as_ref().map(|name| format!("{name}-dry-run"));
        Pod { metadata: ObjectMeta { name, ..metadata.unwrap_or_default() }, spec, status: None }
    }

    /// Makes the Job the owner of the others.
    pub(crate) fn set_owner(&mut self, owner: &OwnerReference) {
        let owners = || Some(vec![owner.clone()]);
        self.secret.metadata.owner_references = owners();
        if let Some(reply) = &mut self.reply {
            reply.metadata.owner_references = owners();
        }
        for service in &mut self.services {
            service.metadata.owner_references = owners();
        }
        if let Some(policy) = &mut self.egress {
            policy.metadata.owner_references = owners();
            // The service may not delete NetworkPolicies: that of an earlier Job of the same name may
            // be there until it is collected.
            let of_owner: String = owner.uid.chars().take(UID_CHARS).collect();
            policy.metadata.name = Some(format!("{}-{of_owner}", owner.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::model::login::LoginFields;
    use serde_json::json;

    #[test]
    fn a_login_by_key_puts_no_password_into_the_cluster() {
        let key = Some("ssh-ed25519 AAAA");
        for (password, key, expected) in [
            (None, None, &["password", "username"][..]),
            (None, key, &["authorized_key", "username"]),
            (Some("a good password"), key, &["authorized_key", "password", "username"]),
        ] {
            let fields = LoginFields { username: None, password, public_key: key };
            let login = Login::check(fields).unwrap();
            let data = login_data(&login);
            assert_eq!(data.keys().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_deadline_is_counted_by_one_clock() {
        let job = |annotations| -> Job {
            // The cluster's clock is an hour ahead.
            let status = json!({"startTime": "1970-01-01T01:16:40Z"});
            let metadata = json!({"annotations": annotations});
            serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
        };
        let ours = job(json!({STARTED: "1000"}));
        assert_eq!(deadline(&ours, UnixTime(1_000 + 620)), Some(620));
        assert_eq!(deadline(&ours, UnixTime(1)), Some(1));
        let ready_at_once = Job { status: None, ..ours };
        assert_eq!(deadline(&ready_at_once, UnixTime(1_000 + 620)), Some(620));
        assert_eq!(deadline(&job(json!({})), UnixTime(4_600 + 620)), Some(620), "as before");
        assert_eq!(deadline(&Job::default(), UnixTime(1_620)), None, "it has not started");
    }
}
