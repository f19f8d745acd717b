//! What the images that the Dockerfile builds too say of themselves.

use super::architecture::Architecture;

/// The user of the service, and of the pods: `user_id` of the pod-template policy.
pub(super) const USER: u32 = 1000;

pub(crate) struct Settings {
    /// For the archive.
    pub(super) name: &'static str,
    /// The Dockerfile's stage.
    pub(crate) stage: &'static str,
    pub(crate) entrypoint: &'static str,
    /// The arguments, if a container has none.
    pub(crate) arguments: &'static [&'static str],
    pub(crate) port: u16,
    /// What its files may have: a quarter more than they do.
    pub(super) most_mib: u64,
}

pub(crate) const SERVICE: Settings = Settings {
    name: "paygress.local/paygress:1",
    stage: "paygress",
    entrypoint: "/usr/local/bin/paygress",
    arguments: &["serve"],
    port: 8080,
    most_mib: 72,
};

pub(crate) const SSH: Settings = Settings {
    name: "paygress.local/ssh:1",
    stage: "paygress-ssh",
    entrypoint: "/bin/paygress-sshd",
    arguments: &[],
    port: 2222,
    most_mib: 23,
};

impl Settings {
    pub(crate) fn user() -> String {
        format!("{USER}:{USER}")
    }

    /// Of `k8s/testbed/oci-image`.
    pub(super) fn options(&self, architecture: Architecture) -> Vec<String> {
        let json = |values: &[&str]| serde_json::Value::from(values.to_vec()).to_string();
        let options = [
            ("--entrypoint", json(&[self.entrypoint])),
            ("--cmd", json(self.arguments)),
            ("--user", Self::user()),
            ("--port", self.port.to_string()),
            ("--arch", architecture.name().to_owned()),
        ];
        options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect()
    }
}
