//! What a customer asks about their orders and pods. Nothing here changes state.

use super::notices::latest;
use super::{OrderService, unreadable};
use crate::backend::cluster::StartupPhase;
use crate::limits;
use crate::model::host_key::HostKey;
use crate::model::ids::{Customer, LeaseId, OrderId, PodName, PublicKey};
use crate::model::lease::EndReason;
use crate::model::login::Login;
use crate::model::order::{Lease, LeaseState, Order, State};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::run::{ProgramState, Run};
use crate::model::units::{Seconds, UnixTime};
use crate::protocol::{AccessDetails, Response, StatusResponse};
use serde::Serialize;

/// How far an order is.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderStatus {
    pub id: OrderId,
    pub state: State,
    /// The pod that it makes or extends.
    pub pod: PodName,
    /// The response, once there is one.
    pub response: Option<Response>,
}

/// How far a pod is, for the customer who waits for it or uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The order is written down; nothing is taken yet.
    Received,
    /// The token is ours.
    Redeemed,
    /// A node has the pod.
    Scheduled,
    /// The node fetches its image.
    Pulling,
    /// It takes logins.
    Ready,
    /// It ends soon.
    Expiring,
    /// It is over.
    Ended,
    /// The order did not go through; nothing was taken.
    Refused,
    /// The order did not go through; the money goes back.
    Refunded,
}

impl Stage {
    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_last(self) -> bool {
        matches!(self, Self::Ended | Self::Refused | Self::Refunded)
    }
}

/// How to log in to a running pod.
#[derive(Clone, Debug)]
pub struct RunningLogin {
    pub host: String,
    pub port: u16,
    pub login: Login,
    /// The keys of the pod's SSH server; none where they are not known.
    pub host_keys: Vec<HostKey>,
}

/// How far a pod is, and how long it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How far.
    pub stage: Stage,
    /// Until when it lives.
    pub expires_at: Option<UnixTime>,
    /// Why it did not go through.
    pub refusal: Option<Refusal>,
    /// Why it is over, or never ran.
    pub end_reason: Option<EndReason>,
    /// The latest notice: it ends within so many seconds.
    pub notice: Option<Seconds>,
}

impl OrderService {
    /// The lease of this pod, if it is this customer's.
    pub(super) async fn own_lease(
        &self,
        pod: &PodName,
        customer: &Customer,
    ) -> Result<Lease, Refusal> {
        let lease = self.find_lease(pod).await?;
        match lease.customer.as_ref() == Some(customer) {
            true => Ok(lease),
            false => Err(not_owner()),
        }
    }

    /// The lease of the pod of this name, or of this key.
    pub(super) async fn find_lease(&self, pod: &PodName) -> Result<Lease, Refusal> {
        let found = match PublicKey::from_npub(pod.as_str()) {
            Some(key) => self.backends.ledger.lease_of_key(&key).await,
            None => self.backends.ledger.lease(pod).await,
        };
        found.map_err(|error| unreadable(&error))?.ok_or_else(no_such_pod)
    }

    /// All orders of a lease: the one that made its pod, and those that have added time.
    pub(super) async fn orders_of(&self, lease: &Lease) -> Result<Vec<Order>, Refusal> {
        self.backends.ledger.orders_of(&lease.id).await.map_err(|error| unreadable(&error))
    }

    /// The order that made the pod of a lease.
    async fn spawn_order(&self, lease: &LeaseId) -> Result<Option<Order>, Refusal> {
        self.backends.ledger.spawn_order(lease).await.map_err(|error| unreadable(&error))
    }

    /// Whether the order that makes its pod may still come to nothing, though the pod may take logins
    /// already.
    pub(super) async fn is_being_made(&self, lease: &Lease) -> Result<bool, Refusal> {
        match lease.state {
            LeaseState::Reserved => Ok(true),
            LeaseState::Ended => Ok(false),
            LeaseState::Live => {
                let order = self.spawn_order(&lease.id).await?;
                Ok(order.as_ref().is_some_and(Order::is_making_pod))
            }
        }
    }

    /// The name of the pod of this key; any other name stays as it is, also that of no pod.
    pub(super) async fn pod_of(&self, pod: PodName) -> Result<PodName, Refusal> {
        let Some(key) = PublicKey::from_npub(pod.as_str()) else { return Ok(pod) };
        let lease = self.backends.ledger.lease_of_key(&key).await;
        Ok(lease.map_err(|error| unreadable(&error))?.map_or(pod, |lease| lease.pod()))
    }

    /// How a pod is, for the customer who bought it: also the refunds that are not redeemed yet.
    ///
    /// # Errors
    /// `not_found`, `not_owner`, `internal_error`.
    pub async fn status(
        &self,
        pod: &PodName,
        customer: &Customer,
    ) -> Result<StatusResponse, Refusal> {
        let lease = self.own_lease(pod, customer).await?;
        let orders = self.orders_of(&lease).await?;
        let refunds: Vec<&Order> =
            orders.iter().filter(|order| order.customer() == Some(customer)).collect();
        let mut status = self.status_of(&lease, &refunds);
        status.http.http_login_url = self.http_login_url(&lease);
        status.image_program = self.image_program(&lease, &orders).await;
        Ok(status)
    }

    /// How the image's own program is, if these orders bought it.
    async fn image_program(&self, lease: &Lease, orders: &[Order]) -> Option<ProgramState> {
        let is_bought = orders.iter().any(|order| order.purchase.run() == Run::Image);
        if lease.state != LeaseState::Live || !is_bought {
            return None;
        }
        let pod = lease.pod();
        let request = async {
            match self.backends.cluster.progress.image_program(&pod).await {
                Ok(state) => state,
                Err(error) => {
                    tracing::debug!(%error, "how an image's program is cannot be found out");
                    None
                }
            }
        };
        self.program_states.of(&pod, request).await
    }

    /// How far an order is, for the customer who placed it.
    ///
    /// # Errors
    /// `not_found`, `not_owner`, `internal_error`.
    pub async fn order(&self, id: &OrderId, customer: &Customer) -> Result<OrderStatus, Refusal> {
        let order = self.backends.ledger.order(id).await.map_err(|error| unreadable(&error))?;
        let order = order.ok_or_else(no_such_order)?;
        if order.customer() != Some(customer) {
            return Err(Refusal::new(ErrorType::NotOwner, "this order is another customer's"));
        }
        let response = self.answer(&order).await;
        Ok(OrderStatus { id: order.id.clone(), state: order.state(), pod: order.pod(), response })
    }

    /// Waits until it is known whether the order's token was taken.
    ///
    /// # Errors
    /// As [`OrderService::order`].
    pub async fn wait_settled(
        &self,
        id: &OrderId,
        customer: &Customer,
    ) -> Result<OrderStatus, Refusal> {
        loop {
            let status = self.order(id, customer).await?;
            if !status.state.is_awaiting_payment() {
                return Ok(status);
            }
            tokio::time::sleep(limits::ORDER_POLL).await;
        }
    }

    /// Waits for the answer of an order that another process works.
    ///
    /// # Errors
    /// As [`OrderService::order`].
    pub async fn wait_response(
        &self,
        id: &OrderId,
        customer: &Customer,
    ) -> Result<Response, Refusal> {
        loop {
            if let Some(response) = self.order(id, customer).await?.response {
                return Ok(response);
            }
            tokio::time::sleep(limits::ORDER_POLL).await;
        }
    }

    /// Whether this customer has a pod that runs.
    ///
    /// # Errors
    /// `internal_error`.
    pub async fn has_pods(&self, customer: &Customer) -> Result<bool, Refusal> {
        let leases = self
            .backends
            .ledger
            .live_leases(Some(customer))
            .await
            .map_err(|error| unreadable(&error))?;
        Ok(leases.iter().any(|lease| lease.state == LeaseState::Live))
    }

    /// The pods of this customer that are not over, and those that are and have a refund that is
    /// being made or that nobody has redeemed.
    ///
    /// # Errors
    /// `internal_error`.
    pub async fn pods(&self, customer: &Customer) -> Result<Vec<StatusResponse>, Refusal> {
        let failed = |error| unreadable(&error);
        let mut leases = self.backends.ledger.live_leases(Some(customer)).await.map_err(failed)?;
        let refunds = self.backends.ledger.pending_refunds(Some(customer)).await.map_err(failed)?;
        for pod in refunds.iter().map(Order::pod) {
            let known = leases.iter().any(|lease| lease.pod() == pod);
            let lease = if known {
                None
            } else {
                self.backends.ledger.lease(&pod).await.map_err(failed)?
            };
            leases.extend(lease.filter(|lease| lease.customer.as_ref() == Some(customer)));
        }
        let status = |lease: &Lease| {
            let own: Vec<&Order> =
                refunds.iter().filter(|order| order.lease().as_ref() == Some(&lease.id)).collect();
            self.status_of(lease, &own)
        };
        Ok(leases.iter().map(status).collect())
    }

    /// How far a pod is, from the order on that makes it.
    ///
    /// # Errors
    /// `not_found`, `not_owner`, `internal_error`.
    pub async fn progress(&self, pod: &PodName, customer: &Customer) -> Result<Progress, Refusal> {
        let failed = |error| unreadable(&error);
        let pod = &self.pod_of(pod.clone()).await?;
        let lease = self.backends.ledger.lease(pod).await.map_err(failed)?;
        let spawn = match pod.lease() {
            Some(lease) => self.spawn_order(&lease).await?,
            None => None,
        };
        let owner = match (&lease, &spawn) {
            (Some(lease), _) => lease.customer.as_ref(),
            (None, Some(order)) => order.customer(),
            (None, None) => return Err(no_such_pod()),
        };
        if owner != Some(customer) {
            return Err(not_owner());
        }
        let (state, now) = (spawn.as_ref().map(Order::state), UnixTime::now());
        let expires_at = lease.as_ref().and_then(|lease| lease.expires_at);
        let stage = match (lease.as_ref().map(|lease| lease.state), state) {
            (_, Some(State::Refused)) => Stage::Refused,
            (_, Some(state)) if state.is_awaiting_payment() => Stage::Received,
            (_, Some(State::Paid)) => Stage::Redeemed,
            (Some(LeaseState::Reserved) | None, Some(State::Provisioning)) => {
                match self.backends.cluster.progress.startup_phase(pod).await {
                    Ok(StartupPhase::Scheduled) => Stage::Scheduled,
                    Ok(StartupPhase::Pulling | StartupPhase::Starting) => Stage::Pulling,
                    Ok(StartupPhase::Waiting) | Err(_) => Stage::Redeemed,
                }
            }
            (Some(LeaseState::Live), _) => running(lease.as_ref(), now),
            (_, Some(State::Refunded)) if expires_at.is_none() => Stage::Refunded,
            // The money is on its way back, and still with us.
            (_, Some(State::RefundPending)) if expires_at.is_none() => Stage::Redeemed,
            _ => Stage::Ended,
        };
        let refusal = spawn.and_then(|order| order.state.refusal().cloned());
        let notices = &self.settings.end_notices;
        let end = lease.as_ref().and_then(|lease| lease.end);
        let end_reason = end.or_else(|| refusal.as_ref().and_then(|refusal| refusal.end_reason));
        Ok(Progress {
            stage,
            expires_at,
            end_reason: end_reason.filter(|_| stage.is_last()),
            notice: lease.as_ref().and_then(|lease| latest(lease, notices, now)),
            refusal,
        })
    }

    /// The access details of a running pod again, for the customer who bought it.
    ///
    /// # Errors
    /// As [`OrderService::login`].
    pub async fn access(
        &self,
        pod: &PodName,
        customer: &Customer,
    ) -> Result<AccessDetails, Refusal> {
        let (lease, order) = self.running_lease(pod, customer).await?;
        let password = order.as_ref().and_then(|order| order.state.password());
        let expires_at = lease.expires_at.unwrap_or_default();
        let details = self.access_details(&lease, password, expires_at, None);
        Ok(self.add_access_receipt(details, order.as_slice(), &lease))
    }

    /// The login of a running pod, for the customer who bought it.
    ///
    /// # Errors
    /// `not_found`, `not_owner`, `lease_expired`, `resource_unavailable` while it is being made,
    /// `invalid_request` if it has no port.
    pub async fn login(&self, pod: &PodName, customer: &Customer) -> Result<RunningLogin, Refusal> {
        let (lease, order) = self.running_lease(pod, customer).await?;
        let login = order.and_then(|order| order.state.login().cloned());
        let login = login.ok_or_else(|| {
            Refusal::new(ErrorType::LeaseExpired, "the login of this pod is not kept any more")
        })?;
        let Some(port) = lease.port else {
            return Err(Refusal::new(
                ErrorType::InvalidRequest,
                "this pod has no port for a terminal here; log in with ssh, by the service's gateway",
            ));
        };
        let host = lease.login_host(&self.settings.ssh_host);
        Ok(RunningLogin { host, port, login, host_keys: lease.host_keys })
    }

    /// With the order that made its pod.
    async fn running_lease(
        &self,
        pod: &PodName,
        customer: &Customer,
    ) -> Result<(Lease, Option<Order>), Refusal> {
        let lease = self.own_lease(pod, customer).await?;
        match lease.state {
            LeaseState::Live => {}
            LeaseState::Reserved => {
                return Err(not_ready());
            }
            LeaseState::Ended => {
                return Err(Refusal::new(
                    ErrorType::LeaseExpired,
                    "this pod has ended; order a new one",
                ));
            }
        }
        let order = self.spawn_order(&lease.id).await?;
        Ok((lease, order))
    }
}

/// The pod of this name, as a customer writes it.
///
/// # Errors
/// `not_found`: no pod can have it.
pub fn pod_named(name: String) -> Result<PodName, Refusal> {
    PodName::parse(name).map_err(|_| no_such_pod())
}

/// The order of this id, as a customer writes it.
///
/// # Errors
/// `not_found`: no order can have it.
pub fn order_named(id: String) -> Result<OrderId, Refusal> {
    OrderId::parse(id).map_err(|_| no_such_order())
}

fn no_such_order() -> Refusal {
    Refusal::new(ErrorType::NotFound, "there is no order of that id")
}

pub(super) fn no_such_pod() -> Refusal {
    Refusal::new(
        ErrorType::NotFound,
        "there is no pod of that name; use pod_name as it was given to you",
    )
}

pub(super) fn not_ready() -> Refusal {
    let message = "this pod is not ready yet; try again in a minute";
    Refusal::new(ErrorType::ResourceUnavailable, message)
}

pub(super) fn not_owner() -> Refusal {
    Refusal::new(
        ErrorType::NotOwner,
        "this pod is another customer's; ask with the key or the bearer token that bought it",
    )
}

/// Ready, or about to end: in its last fifth, and five minutes at most.
fn running(lease: Option<&Lease>, now: UnixTime) -> Stage {
    let Some((made, ends)) = lease.and_then(|lease| Some((lease.created_at, lease.expires_at?)))
    else {
        return Stage::Ready;
    };
    let fifth = Seconds(ends.since(made).0.checked_div(5).unwrap_or(0));
    if ends.since(now) <= fifth.min(limits::EXPIRING) { Stage::Expiring } else { Stage::Ready }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn lease(created_at: u64, expires_at: u64) -> Lease {
        testing::lease(LeaseId::of(&OrderId::random()), created_at, expires_at)
    }

    #[test]
    fn a_pod_is_reported_as_expiring_in_its_last_fifth_and_five_minutes_at_most() {
        let stage = |lease: &Lease, now| running(Some(lease), UnixTime(now));
        let (short, long) = (lease(0, 100), lease(0, 100_000));
        assert_eq!((stage(&short, 79), stage(&short, 80)), (Stage::Ready, Stage::Expiring));
        assert_eq!((stage(&long, 99_699), stage(&long, 99_700)), (Stage::Ready, Stage::Expiring));
    }
}
