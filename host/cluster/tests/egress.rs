//! The NetworkPolicy of a pod with egress rules, of an API server that notes what it is requested.
#![cfg(test)]

mod support;

use paygress_cluster::Kubernetes;
use paygress_core::backend::cluster::{
    CONTAINER_PORT, ClusterError, LOGIN_MOUNT_PATH, LeasePlan, PodLauncher, PodValidator,
};
use paygress_core::backend::policy::{
    EgressRule, Placement, PortRange, Protocol, Rendered, Resources,
};
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::{ImageRef, LeaseId, OrderId, TierId};
use paygress_core::model::login::{Login, LoginFields};
use paygress_core::model::run::Run;
use paygress_core::model::units::Seconds;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use support::{kubeconfig, settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const UID: &str = "0a1b2c3d-0000-4000-8000-000000000000";
const JOBS: &str = "/apis/batch/v1/namespaces/user-workloads/jobs";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/user-workloads/networkpolicies";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rights {
    All,
    /// As where `k8s/overlays/egress` is not applied.
    NoNetworkPolicies,
}

struct ApiServer {
    rights: Rights,
    /// By their paths.
    objects: Mutex<BTreeMap<String, Value>>,
    /// Methods and paths of what was changed.
    changes: Mutex<Vec<(String, String)>>,
}

fn status(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code});
    (code, status)
}

impl ApiServer {
    async fn start(rights: Rights) -> (Arc<Self>, Kubernetes) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (objects, changes) = (Mutex::default(), Mutex::default());
        let server = Arc::new(Self { rights, objects, changes });
        let accepting = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&accepting).serve(stream));
            }
        });
        (server, connected(&format!("http://{address}")).await)
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
        let mut line = head.split(' ');
        let (method, target) = (line.next().unwrap(), line.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let (code, answer) = self.answer(method, path, query, body);
        let answer = format!(
            "HTTP/1.1 {code} -\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{answer}"
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    fn answer(&self, method: &str, path: &str, query: &str, mut body: Value) -> (u16, Value) {
        if self.rights == Rights::NoNetworkPolicies && path == POLICIES {
            return status(403, "Forbidden");
        }
        let mut objects = self.objects.lock().unwrap();
        let note = || self.changes.lock().unwrap().push((method.to_owned(), path.to_owned()));
        match method {
            "post" => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let of_object = format!("{path}/{name}");
                body["metadata"]["uid"] = json!(UID);
                if query.contains("dryrun=all") {
                    return (201, body);
                }
                if objects.contains_key(&of_object) {
                    return status(409, "AlreadyExists");
                }
                note();
                objects.insert(of_object, body.clone());
                (201, body)
            }
            "patch" => {
                let Some(job) = objects.get_mut(path) else { return status(404, "NotFound") };
                note();
                job["spec"]["suspend"] = body["spec"]["suspend"].clone();
                (200, job.clone())
            }
            _ => match objects.get(path) {
                Some(object) => (200, object.clone()),
                None => status(404, "NotFound"),
            },
        }
    }

    /// What was made of this kind.
    fn made(&self, kind: &str) -> Vec<Value> {
        let objects = self.objects.lock().unwrap();
        let of_kind = objects.iter().filter(|(path, _)| path.starts_with(kind));
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    /// When something was first changed there.
    fn first(&self, method: &str, path: &str) -> Option<usize> {
        let changes = self.changes.lock().unwrap();
        changes.iter().position(|(m, p)| m == method && p.starts_with(path))
    }
}

async fn connected(url: &str) -> Kubernetes {
    let file = kubeconfig(&format!("server: \"{url}\""));
    let settings = settings("test", AccessModes::gateway());
    Kubernetes::connect(Some(file.path()), settings).await.unwrap()
}

fn plan(egress: Option<Vec<EgressRule>>) -> LeasePlan {
    let lease = LeaseId::of(&OrderId::random());
    let pod = lease.pod_name().to_string();
    let template = json!({"spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 1000},
        "containers": [{"name": "ssh", "image": "example.com/ssh:1"}],
    }});
    let pod_template_json = template.to_string();
    LeasePlan {
        lease,
        tier: TierId::parse("basic").unwrap(),
        placement: Placement {
            pod_name: pod.clone(),
            image: ImageRef::parse("example.com/ssh:1").unwrap(),
            resources: Resources { cpu_millicores: 100, memory_mib: 64 },
            host_port: None,
            access: AccessModes::gateway(),
            container_port: CONTAINER_PORT,
            secret_name: pod,
            secret_mount_path: LOGIN_MOUNT_PATH.to_owned(),
        },
        rendered: Rendered { pod_template_json, services_json: Vec::new(), egress },
        login: Login::check(LoginFields { username: Some("alice"), ..LoginFields::default() })
            .unwrap(),
        sold: Seconds(60),
        pod_reply: None,
        run: Run::Ssh,
    }
}

fn mirror() -> Vec<EgressRule> {
    let ports = vec![PortRange { protocol: Protocol::Tcp, first: 443, last: 443 }];
    vec![EgressRule { cidrs: vec!["192.0.2.0/24".to_owned()], ports }]
}

#[tokio::test]
async fn a_pod_with_egress_rules_has_its_policy_before_it_may_start() {
    let (server, cluster) = ApiServer::start(Rights::All).await;
    let sold = plan(Some(mirror()));
    let pod = sold.lease.pod_name().to_string();
    cluster.launch(&sold).await.unwrap();
    cluster.launch(&sold).await.unwrap();

    let policies = server.made(POLICIES);
    assert_eq!(policies.len(), 1, "{policies:?}");
    let metadata = &policies[0]["metadata"];
    assert_eq!(metadata["name"], format!("{pod}-0a1b2c3d"));
    let owner = &metadata["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("Job"), &json!(pod)));
    assert_eq!((&owner["uid"], &owner["controller"]), (&json!(UID), &json!(true)));
    let lease = metadata["labels"]["paygress.dev/lease"].clone();
    assert_eq!(
        policies[0]["spec"],
        json!({
            "podSelector": {"matchLabels": {"paygress.dev/lease": lease}},
            "policyTypes": ["Egress"],
            "egress": [{
                "ports": [{"protocol": "TCP", "port": 443}],
                "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
            }],
        })
    );
    let job = &server.made(JOBS)[0];
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    assert_eq!(
        (&labels["paygress-egress"], &labels["paygress.dev/lease"]),
        (&json!("lease"), &lease)
    );
    assert_eq!(job["spec"]["suspend"], false);
    assert!(server.first("post", POLICIES).unwrap() < server.first("patch", JOBS).unwrap());
}

#[tokio::test]
async fn any_other_pod_has_none() {
    let (server, cluster) = ApiServer::start(Rights::NoNetworkPolicies).await;
    cluster.launch(&plan(None)).await.unwrap();
    assert!(server.made(POLICIES).is_empty());
    let job = &server.made(JOBS)[0];
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["paygress-egress"], Value::Null);
    assert_eq!(job["spec"]["suspend"], false);
}

/// The dry run comes before the payment. A pod without its policy would reach what all pods do.
#[tokio::test]
async fn without_the_right_to_make_policies_nothing_with_egress_rules_is_sold() {
    let (server, cluster) = ApiServer::start(Rights::NoNetworkPolicies).await;
    for rules in [mirror(), vec![]] {
        let refused = cluster.dry_run(&plan(Some(rules.clone()))).await;
        assert!(matches!(refused, Err(ClusterError::Refused(_))), "{refused:?}");
        let refused = cluster.launch(&plan(Some(rules))).await;
        assert!(matches!(refused, Err(ClusterError::Refused(_))), "{refused:?}");
    }
    assert!(server.made(JOBS).iter().all(|job| job["spec"]["suspend"] == true));
}
