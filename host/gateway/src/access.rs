//! The trait by which the gateway learns of leases. It needs nothing else but a way to the pods
//! ([`PodStreams`](crate::PodStreams)).

use async_trait::async_trait;
use paygress_core::model::ids::PodName;
use paygress_core::model::secret::Secret;
use russh::keys::PublicKey;
use std::error::Error;
use std::fmt;
use subtle::ConstantTimeEq;

/// The leases whose pods customers may reach.
#[async_trait]
pub trait LeaseAccess: Send + Sync {
    /// The login of this pod's lease; none if there is no such pod, or its lease is not live. The
    /// gateway compares credentials itself.
    ///
    /// # Errors
    /// [`LookupError`]: it cannot be known now. The client is refused, and may try again.
    async fn login(&self, pod: &PodName) -> Result<Option<LeaseLogin>, LookupError>;

    /// Whether the lease of this pod is live. Anybody may cause this call, some times a second for
    /// one address: it should cost less than [`login`](Self::login).
    ///
    /// # Errors
    /// As [`login`](Self::login).
    async fn is_live(&self, pod: &PodName) -> Result<bool, LookupError> {
        Ok(self.login(pod).await?.is_some())
    }

    /// Returns when the lease of this pod has ended, at once if it is not live: its sessions are cut
    /// then, and only those. It is called once for each session, and dropped with it. A lease that
    /// is extended has not ended, and neither has one of which nothing is known for a while.
    async fn ended(&self, pod: &PodName);
}

/// Whose a pod is, for the jump host. Secrets are compared in constant time and never printed.
#[derive(Clone)]
pub struct LeaseLogin {
    ssh_port: u16,
    keys: Vec<PublicKey>,
    secret: Option<Secret>,
}

impl LeaseLogin {
    /// The port is the one that customers know, besides 22. Keys are parsed by
    /// [`paygress_sshd::parse_keys`]. An empty secret is none.
    #[must_use]
    pub fn new(ssh_port: u16, keys: Vec<PublicKey>, secret: Option<Secret>) -> Self {
        let secret = secret.filter(|secret| !secret.expose().is_empty());
        Self { ssh_port, keys, secret }
    }

    pub(crate) fn accepts_port(&self, port: u32) -> bool {
        port == SSH_PORT || port == u32::from(self.ssh_port)
    }

    /// Public keys are no secrets.
    pub(crate) fn accepts_key(&self, key: &PublicKey) -> bool {
        self.keys.iter().any(|own| own.key_data() == key.key_data())
    }

    pub(crate) fn accepts_secret(&self, attempt: &str) -> bool {
        let matches = |own: &[u8]| bool::from(own.ct_eq(attempt.as_bytes()));
        self.secret.as_ref().is_some_and(|own| matches(own.expose().as_bytes()))
    }
}

/// What `ssh` connects to if it is given no port.
const SSH_PORT: u32 = 22;

impl fmt::Debug for LeaseLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseLogin(…)")
    }
}

/// The store or the cluster does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the lease cannot be looked up: try again")]
pub struct LookupError(#[source] Box<dyn Error + Send + Sync>);

impl LookupError {
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }

    /// Its code, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "lease-lookup"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_sshd::new_host_key;

    fn login(secret: Option<&str>) -> LeaseLogin {
        LeaseLogin::new(20_427, Vec::new(), secret.map(Secret::new))
    }

    #[test]
    fn a_lease_without_a_secret_accepts_none() {
        for attempt in ["", "correct horse"] {
            assert!(!login(None).accepts_secret(attempt));
            assert!(!login(Some("")).accepts_secret(attempt));
        }
        assert!(login(Some("correct horse")).accepts_secret("correct horse"));
        assert!(!login(Some("correct horse")).accepts_secret("correct hors"));
    }

    #[test]
    fn a_key_is_accepted_whatever_its_comment() {
        let (own, other) = (new_host_key().unwrap(), new_host_key().unwrap());
        let mut key = own.public_key().clone();
        let login = LeaseLogin::new(20_427, vec![key.clone()], None);
        key.set_comment("me@home");
        assert!(login.accepts_key(&key) && !login.accepts_key(other.public_key()));
    }

    #[test]
    fn the_ports_are_those_of_the_lease() {
        let login = login(None);
        assert!(login.accepts_port(22) && login.accepts_port(20_427));
        assert!(!login.accepts_port(80) && !login.accepts_port(20_427 + 65_536));
    }

    #[test]
    fn nothing_of_a_login_is_printed() {
        assert_eq!(format!("{:?}", login(Some("correct horse"))), "LeaseLogin(…)");
    }
}
