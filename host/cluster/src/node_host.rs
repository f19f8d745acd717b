//! Where customers reach the node of a pod. A node's annotations and addresses come from the cluster,
//! and are checked before anybody is given them.

use k8s_openapi::api::core::v1::{Node, Pod};
use paygress_core::model::ssh_host::SshHost;

/// The annotation with which an operator names a node's host for customers.
pub(crate) const ANNOTATION: &str = "paygress.dev/ssh-host";

/// The name of the node that has the pod.
pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Where customers reach this pod: by the annotation of its node, its node's external address, or the
/// address at which the cluster has the node. Without the node, which may not be readable, the last.
pub(crate) fn ssh_host(pod: &Pod, node: Option<&Node>) -> Option<SshHost> {
    let annotations = node.and_then(|node| node.metadata.annotations.as_ref());
    let named = annotations.and_then(|annotations| annotations.get(ANNOTATION)).map(String::as_str);
    let host_ip = pod.status.as_ref().and_then(|status| status.host_ip.as_deref());
    // The kubelet reports the host's address a moment after it has the pod: it is the node's own.
    let found = named
        .into_iter()
        .chain(addresses(node, "ExternalIP"))
        .chain(host_ip)
        .chain(addresses(node, "InternalIP"));
    found.map(str::trim).find_map(|text| match SshHost::parse(text) {
        Ok(host) => Some(host),
        Err(error) => {
            let node = node_name(pod);
            tracing::warn!(%error, node, "a node's annotation or address is not used");
            None
        }
    })
}

fn addresses<'a>(node: Option<&'a Node>, kind: &'static str) -> impl Iterator<Item = &'a str> {
    let status = node.and_then(|node| node.status.as_ref());
    let addresses = status.into_iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.filter(move |address| address.type_ == kind).map(|address| address.address.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// With this annotation and these addresses.
    fn node(annotation: Option<&str>, addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<Value> = addresses
            .iter()
            .map(|(kind, address)| json!({"type": kind, "address": address}))
            .collect();
        let annotations = annotation.map(|text| json!({ANNOTATION: text}));
        let metadata = json!({"name": "node-1", "annotations": annotations});
        let status = json!({"addresses": addresses});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    fn pod(host_ip: Option<&str>) -> Pod {
        let spec = json!({"containers": [], "nodeName": "node-1"});
        serde_json::from_value(json!({"spec": spec, "status": {"hostIP": host_ip}})).unwrap()
    }

    const HOST_IP: Option<&str> = Some("10.0.0.1");

    #[test]
    fn the_annotation_comes_first_then_the_external_address_then_that_of_the_host() {
        let external = [("InternalIP", "10.0.0.1"), ("ExternalIP", "203.0.113.7")];
        let internal = [("Hostname", "node-1"), ("InternalIP", "10.0.0.2")];
        for (node, host_ip, expected) in [
            (Some(node(Some("Eu1.example.com"), &external)), HOST_IP, Some("eu1.example.com")),
            (Some(node(Some(" [2001:db8::1] "), &external)), HOST_IP, Some("2001:db8::1")),
            (Some(node(None, &external)), HOST_IP, Some("203.0.113.7")),
            (Some(node(None, &internal)), HOST_IP, Some("10.0.0.1")),
            (Some(node(None, &internal)), None, Some("10.0.0.2")),
            (Some(node(None, &[])), None, None),
            (None, HOST_IP, Some("10.0.0.1")),
            (None, Some("2001:db8::2"), Some("2001:db8::2")),
            (None, None, None),
        ] {
            let host = ssh_host(&pod(host_ip), node.as_ref());
            assert_eq!(host.as_ref().map(SshHost::as_str), expected);
        }
        assert_eq!(ssh_host(&Pod::default(), None), None);
    }

    #[test]
    fn what_is_no_host_is_passed_over() {
        for annotation in ["", "-oProxyCommand=x", "a b", "node:22", "a\n@cert-authority *"] {
            let external = node(Some(annotation), &[("ExternalIP", "203.0.113.7")]);
            let host = ssh_host(&pod(HOST_IP), Some(&external));
            assert_eq!(host.unwrap().as_str(), "203.0.113.7", "{annotation}");
            let broken = node(Some(annotation), &[("ExternalIP", annotation)]);
            let host = ssh_host(&pod(HOST_IP), Some(&broken));
            assert_eq!(host.unwrap().as_str(), "10.0.0.1", "{annotation}");
            assert_eq!(ssh_host(&pod(Some(annotation)), None), None, "{annotation}");
        }
    }

    #[test]
    fn a_pod_without_a_node_has_none() {
        assert_eq!(node_name(&pod(None)), Some("node-1"));
        assert_eq!(node_name(&Pod::default()), None);
        let unbound = json!({"spec": {"containers": [], "nodeName": ""}});
        assert_eq!(node_name(&serde_json::from_value(unbound).unwrap()), None);
    }
}
