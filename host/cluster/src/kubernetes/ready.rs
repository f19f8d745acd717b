//! Waiting until a pod takes logins: its server proves itself, or the kubelet reports the pod as
//! ready. One whose server has to prove its host keys is not ready before it has.

use super::Kubernetes;
use crate::pod_names::PodNames;
use crate::pod_reply::ready_pod;
use crate::pod_server::{PROOF_TIMEOUT, PodServer, Portless, answering};
use crate::pod_watch::{Sight, is_of_job};
use crate::requests::Result;
use crate::status::{has_mounted_server, readiness, unready};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use paygress_core::backend::cluster::{ClusterError, ReadyPod};
use paygress_core::backoff::doubling;
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::PodName;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How soon a pod's Job is looked at while the watch shows no pod of it…
const JOB_POLL: Duration = Duration::from_secs(5);
/// …and how rarely at last, or where it shows nothing new: the cluster may have much to do.
const LONGEST_POLL: Duration = Duration::from_secs(60);
/// How long a watch that shows no pod is believed: its connection may be dead without an error.
const TRUSTED: Duration = Duration::from_secs(30);

impl Kubernetes {
    pub(super) async fn wait_ready(&self, name: &PodName) -> Result<ReadyPod> {
        let mut awaited = self.pod_watch.awaited().follow(name);
        let start = Instant::now();
        let deadline = after(start, Duration::from_secs(self.settings.ready_within.0));
        let limit = self.unschedulable_within();
        let secret = self.host_key_secret(name);
        let (mut latest, mut server): (Option<Arc<Pod>>, _) = (None, ServerSearch::new());
        let mut reply = self.held_reply(name);
        let first = if awaited.may_be_there() { Duration::ZERO } else { JOB_POLL };
        let first_tick = after(start, first);
        let mut tick = tokio::time::interval_at(first_tick, JOB_POLL);
        let (mut pauses, mut next_poll) = (doubling(JOB_POLL, LONGEST_POLL), first_tick);
        let mut make_room_at = start;
        loop {
            tokio::select! {
                () = server.find() => {}
                sight = awaited.next() => match sight {
                    Some(Sight::Seen(pod)) => {
                        latest = Some(pod);
                        next_poll = after(Instant::now(), LONGEST_POLL);
                    }
                    Some(Sight::Unseen) => {
                        next_poll = next_poll.min(after(Instant::now(), JOB_POLL));
                    }
                    Some(Sight::Gone) => return Err(ClusterError::NotFound),
                    None => return Err(ClusterError::unavailable("its Job is another one now")),
                },
                // A Job that has failed without a pod sends no event of one. With a pod, that fails
                // or is deleted. It also becomes unschedulable by the passing of time alone.
                now = tick.tick() => if now >= next_poll {
                    latest = self.poll(name, start.elapsed()).await?.or(latest);
                    next_poll = after(now, pauses.next().unwrap_or(LONGEST_POLL));
                },
                () = tokio::time::sleep_until(deadline) => return Err(unready(latest.as_deref())),
            }
            let Some(pod) = &latest else { continue };
            self.make_room(name, pod, &mut make_room_at).await;
            self.release_reply(&mut reply, name, pod).await;
            server.begin(pod);
            server.follow(PodServer::of(pod, &secret, Portless::from(&self.settings.access)));
            let is_ready =
                server.is_ready() || readiness(pod, start.elapsed(), limit).transpose()?.is_some();
            if is_ready && server.is_proved(pod) {
                self.forget_reply(name, pod).await;
                return self.describe(server, name, pod).await;
            }
        }
    }

    /// The pod of a Job that goes on, if it has one, after so long a wait. An API server that does not
    /// answer now is no reason to launch the pod again.
    async fn poll(&self, name: &PodName, waited: Duration) -> Result<Option<Arc<Pod>>> {
        let polled = async {
            let job = self.running(name).await?.uid().unwrap_or_default();
            let latest = |pods: Vec<Pod>| {
                let pods = pods.into_iter().filter(|pod| is_of_job(pod, &job));
                pods.max_by_key(ResourceExt::creation_timestamp)
            };
            let named = latest(self.named_pods(name).await?);
            if named.is_some() || is_believed(self.pod_watch.names(), waited) {
                return Ok(named);
            }
            Ok(latest(self.pods_of(name).await?))
        };
        match polled.await {
            Err(ClusterError::Unavailable(error)) => {
                if let Some(error) = self.pod_failures.admit(error.to_string()) {
                    tracing::warn!(error, "it is not known whether a pod is there");
                }
                Ok(None)
            }
            polled => Ok(polled?.map(Arc::new)),
        }
    }

    async fn describe(&self, server: ServerSearch, name: &PodName, pod: &Pod) -> Result<ReadyPod> {
        let ssh_host = self.ssh_host(pod).await?;
        Ok(ReadyPod { ssh_host, ..server.describe(name, pod) })
    }

    /// What is known of a pod that the kubelet reports as ready, and that has replaced the one of this
    /// name: its customer has it already, so that its proof is not waited for long.
    pub(super) async fn ready_pod(&self, name: &PodName, pod: &Pod) -> Result<ReadyPod> {
        let mut server = ServerSearch::new();
        let portless = Portless::from(&self.settings.access);
        server.follow(PodServer::of(pod, &self.host_key_secret(name), portless));
        if !server.is_proved(pod)
            && tokio::time::timeout(PROOF_TIMEOUT, server.find()).await.is_err()
        {
            tracing::warn!(pod = %name, "a running pod has not proved its host keys: they are not known");
        }
        self.describe(server, name, pod).await
    }
}

/// Whether a pod whose name is not known is not there: it is not listed at once in a cluster that takes
/// long to make it.
fn is_believed(names: &PodNames, waited: Duration) -> bool {
    names.are_current() && waited < TRUSTED
}

fn after(instant: Instant, time: Duration) -> Instant {
    instant.checked_add(time).unwrap_or(instant)
}

/// The search for the server of a pod at the addresses where it may be.
struct ServerSearch {
    /// The uid of the pod.
    pod: Option<String>,
    server: Option<PodServer>,
    /// Ends when it has proved itself.
    answer: BoxFuture<'static, Vec<HostKey>>,
    host_keys: Option<Vec<HostKey>>,
}

impl ServerSearch {
    fn new() -> Self {
        Self { pod: None, server: None, answer: Box::pin(answering(None)), host_keys: None }
    }

    /// Begins anew if this is another pod than the one before: what that has proved is not its own.
    fn begin(&mut self, pod: &Pod) {
        if pod.metadata.uid != self.pod {
            *self = Self { pod: pod.metadata.uid.clone(), ..Self::new() };
        }
    }

    /// Goes on with what is known of the server now. An attempt under way is not given up for nothing.
    fn follow(&mut self, server: Option<PodServer>) {
        if server != self.server {
            self.answer = Box::pin(answering(server.clone()));
            self.server = server;
        }
    }

    /// Waits until the server has proved itself. Never ends once it has.
    async fn find(&mut self) {
        if self.host_keys.is_some() {
            return std::future::pending().await;
        }
        self.host_keys = Some(self.answer.as_mut().await);
    }

    /// Whether the answer of the server makes the pod ready.
    fn is_ready(&self) -> bool {
        self.host_keys.is_some() && self.server.as_ref().is_some_and(PodServer::makes_ready)
    }

    /// Whether the server of this pod has proved its host keys, if it has to.
    fn is_proved(&self, pod: &Pod) -> bool {
        self.host_keys.is_some() || !has_mounted_server(pod)
    }

    /// What is known of this pod, which takes logins.
    fn describe(self, name: &PodName, pod: &Pod) -> ReadyPod {
        let mut ready = ready_pod(name, pod);
        if let Some(host_keys) = self.host_keys {
            ready.host_keys = host_keys;
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod_server::tests::{free_address, start};
    use kube::runtime::watcher::{self, Event};
    use paygress_core::model::ids::PodUid;
    use paygress_sshd::{HostKeySecret, HostKeys};
    use serde_json::{Value, json};

    const SOON: Duration = Duration::from_secs(30);

    /// With the image with the server mounted, whose container has this beside its port.
    fn pod(port: u16, ports: &Value, status: &Value) -> Pod {
        let volume = json!({"name": "paygress", "image": {"reference": "server:1"}});
        let command = ["/.paygress/paygress-sshd", "--listen", &format!("[::]:{port}")];
        let container = json!({"name": "ssh", "command": command, "ports": ports});
        let spec = json!({"containers": [container], "volumes": [volume]});
        let metadata = json!({"uid": "a"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status}))
            .unwrap()
    }

    #[test]
    fn a_watch_that_shows_no_pod_for_long_may_be_dead() {
        let names = PodNames::default();
        let [soon, long] = [Duration::from_secs(29), TRUSTED];
        let believed = |names: &PodNames| [soon, long].map(|waited| is_believed(names, waited));
        assert_eq!(believed(&names), [false, false], "nothing was listed");
        names.note(&Ok(Event::InitDone));
        assert_eq!(believed(&names), [true, false]);
        names.note(&Err(watcher::Error::NoResourceVersion));
        assert_eq!(believed(&names), [false, false]);
    }

    /// A pod is ready by the answer at its node, and one behind a Service is known by it.
    #[tokio::test]
    async fn the_answer_of_a_mounted_server_brings_its_host_keys() {
        let secret = HostKeySecret::derive(b"a test", "a pod");
        let address = free_address();
        let port = address.port();
        let keys = tempfile::tempdir().unwrap();
        let host_keys = HostKeys::proved(keys.path(), secret.clone()).unwrap();
        let _stop = start(address, host_keys).await;

        let name = PodName::parse("ssh-pod-abcdefghij").unwrap();
        let on_node = json!([{"containerPort": 2222, "hostPort": port}]);
        let [on_node, of_service] = [
            pod(2_222, &on_node, &json!({"hostIP": "127.0.0.1"})),
            pod(port, &Value::Null, &json!({"podIP": "127.0.0.1"})),
        ];
        let mut described = Vec::new();
        for (pod, makes_ready) in [(&on_node, true), (&of_service, false)] {
            let mut search = ServerSearch::new();
            search.begin(pod);
            search.follow(None);
            search.follow(PodServer::of(pod, &secret, Portless::Service));
            assert!(!search.is_proved(pod), "the kubelet alone does not make it ready");
            tokio::time::timeout(SOON, search.find()).await.expect("it answers");
            // Again, with what is known already.
            search.follow(PodServer::of(pod, &secret, Portless::Service));
            assert_eq!((search.is_ready(), search.is_proved(pod)), (makes_ready, true));
            search.begin(pod);
            assert!(search.is_proved(pod), "it is the same pod");
            described.push(search.describe(&name, pod));
        }
        for ready in &described {
            let kinds: Vec<&str> = ready.host_keys.iter().map(HostKey::kind).collect();
            assert_eq!(kinds, ["ssh-ed25519", "ecdsa-sha2-nistp256"]);
            assert_eq!(ready, &described[0], "the same, whenever they are requested");
            assert_eq!(ready.uid, PodUid::parse("a").ok());
        }
    }

    #[test]
    fn what_a_pod_has_proved_is_not_proved_by_the_one_in_its_place() {
        let first = pod(2_222, &Value::Null, &json!({"podIP": "127.0.0.1"}));
        let mut next = first.clone();
        next.metadata.uid = Some("b".to_owned());
        let mut search = ServerSearch::new();
        search.begin(&first);
        search.host_keys = Some(Vec::new());
        search.begin(&first);
        assert!(search.is_proved(&first));
        search.begin(&next);
        assert!(!search.is_proved(&next));
    }
}
