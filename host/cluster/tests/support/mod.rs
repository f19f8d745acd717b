//! What several tests of the crate connect with.

use paygress_cluster::guard::Allowed;
use paygress_cluster::{PodRoot, PodRoute, RunImage, Settings, SshHostFrom, SshServerVolume};
use paygress_core::model::access::AccessModes;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Seconds;

/// A kubeconfig with this cluster, and a user without rights.
pub(crate) fn kubeconfig(cluster: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{{cluster}}}}}]\nusers: [{{name: a, user: {{}}}}]\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\ncurrent-context: a\n",
    );
    std::fs::write(file.path(), text).unwrap();
    file
}

/// Of a service that adds nothing to its pods.
pub(crate) fn settings(instance: &str, access: AccessModes) -> Settings {
    Settings {
        namespace: "user-workloads".to_owned(),
        instance: instance.to_owned(),
        ready_within: Seconds(60),
        ttl: Seconds(5),
        allowed: Allowed::default(),
        extra_capacity: None,
        ssh_server_image: None,
        ssh_server_volume: SshServerVolume::Auto,
        host_key_seed: Secret::new("of a test"),
        contact: None,
        root: PodRoot::Never,
        run_image: RunImage::Never,
        probe: false,
        reply_from_pod: false,
        ssh_host_from: SshHostFrom::Setting,
        node_lost_after: Seconds(300),
        route: PodRoute::Auto,
        access,
    }
}
