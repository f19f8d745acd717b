//! The HTTP ports of pods, as orders ask for them and answers name them.

use super::OrderService;
use crate::backend::apps::AppLinks;
use crate::model::http_port::HttpPort;
use crate::model::order::{Lease, LeaseState, Purchase};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::secret::Secret;
use std::sync::Arc;

impl OrderService {
    /// Sells HTTP ports of pods, and has answers name these links. The first ones stay.
    pub fn set_apps(&self, apps: Arc<dyn AppLinks>) {
        let _ = self.apps.set(apps);
    }

    /// Whether orders may have an HTTP port.
    pub(super) fn serves_apps(&self) -> bool {
        self.apps.get().is_some()
    }

    /// Refuses a port that is not served here.
    pub(super) fn check_http(&self, purchase: &Purchase) -> Result<(), Refusal> {
        let Some(http) = purchase.http() else { return Ok(()) };
        if !self.serves_apps() {
            return Err(Refusal::new(
                ErrorType::InvalidRequest,
                "HTTP ports of pods are not served here; leave http_port out, and forward the port with ssh -L",
            ));
        }
        check_is_not_ssh(http, self.settings.container_port)
    }

    /// Where browsers reach the pod's port; none where it has none, or is over.
    pub(super) fn http_url(&self, lease: &Lease) -> Option<String> {
        let is_over = lease.state == LeaseState::Ended;
        lease.http.filter(|_| !is_over)?;
        Some(self.apps.get()?.url(&lease.pod()))
    }

    /// For the customer of the lease alone: none where the port is public, or not reached now.
    pub(super) fn http_login_url(&self, lease: &Lease) -> Option<Secret> {
        let is_live = lease.state == LeaseState::Live;
        lease.http.filter(|http| is_live && !http.is_public())?;
        Some(self.apps.get()?.login_url(&lease.pod()))
    }
}

fn check_is_not_ssh(http: HttpPort, ssh: u16) -> Result<(), Refusal> {
    match http.port().get() == ssh {
        true => Err(Refusal::new(
            ErrorType::InvalidRequest,
            format!("http_port must not be {ssh}, the port of the pod's SSH server"),
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::http_port::HttpAccess;

    #[test]
    fn the_port_of_ssh_is_not_one_of_http() {
        for (port, is_free) in [(8_080, true), (2_222, false)] {
            let http = HttpPort::new(port, HttpAccess::Owner).unwrap();
            assert_eq!(check_is_not_ssh(http, 2_222).is_ok(), is_free, "{port}");
        }
    }
}
