//! What doors ask besides orders. Nothing here moves anything.

use super::{OrderService, unreadable};
use crate::backend::cluster::StartupPhase;
use crate::backend::policy::{
    Context, Payment, PolicyError, PolicySet, Price, Quote, Resources, SlotStats,
};
use crate::backend::store::{HourlyRevenue, StateCount};
use crate::backend::wallet::{MintReport, PaymentRequest};
use crate::limits;
use crate::model::login::Login;
use crate::model::order::{Lease, LeaseState, Order, OrderView, Purchase, State};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::secret::Secret;
use crate::model::units::{Customer, MintUrl, OrderId, PodName, Sat, Seconds, UnixTime};
use crate::protocol::{self, AccessDetails, Response, StatusResponse};
use serde::Serialize;

/// How often a price is doubled until the duration policy takes it.
const PRICE_STEPS: u32 = 16;

/// What an order would cost, by the policies in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceEstimate {
    /// The tier.
    pub tier: String,
    /// What the pod may use.
    pub resources: Resources,
    /// What it costs.
    pub price: Price,
    /// How long it would live.
    pub seconds: Seconds,
    /// What must be left of the payment after the mint's fee.
    pub amount: Sat,
}

/// How far an order is.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderStatus {
    /// The order.
    pub id: OrderId,
    /// Its state.
    pub state: State,
    /// The pod that it makes or extends.
    pub pod: PodName,
    /// The response, once there is one.
    pub response: Option<Response>,
}

/// How far a pod is, for who waits for it or has it.
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

/// How far a pod is, and how long it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How far.
    pub stage: Stage,
    /// Until when it lives.
    pub expires_at: Option<UnixTime>,
    /// Why it did not go through.
    pub refusal: Option<Refusal>,
}

/// The operator's view of everything at once. No secret is in it.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The pods that can be leased at the same time.
    pub capacity: u32,
    /// The ports that are taken.
    pub ports_in_use: u32,
    /// The leases that are not over.
    pub leases: Vec<Lease>,
    /// What was taken, hour by hour.
    pub revenue: Vec<HourlyRevenue>,
    /// The orders in each state.
    pub count_by_state: Vec<StateCount>,
    /// How the policies do.
    pub policies: Vec<SlotStats>,
    /// How the mints are.
    pub mints: Vec<MintReport>,
}

/// What is asked of the duration policy before anybody pays.
struct PriceProbe<'a> {
    set: &'a dyn PolicySet,
    view: &'a OrderView,
    quote: &'a Quote,
    context: &'a Context,
    mint: Option<MintUrl>,
}

impl PriceProbe<'_> {
    /// The time that this amount would buy, or why not; none: it is too little.
    async fn buys(&self, amount: Sat) -> Result<Option<Result<Seconds, Refusal>>, Refusal> {
        let mint = self.mint.as_ref().map(|mint| mint.0.clone()).unwrap_or_default();
        let payment = Payment { mint, gross: amount, fee: Sat(0), net: amount };
        match self.set.grant(self.view, self.quote, &payment, self.context).await {
            Ok(grant) => Ok(Some(Ok(grant.seconds))),
            Err(PolicyError::Refused(refusal))
                if refusal.code == ErrorType::InsufficientPayment =>
            {
                Ok(None)
            }
            Err(PolicyError::Refused(refusal)) => Ok(Some(Err(refusal))),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The least amount from this one on that is not too little, and what it buys: nobody is asked
    /// to pay what he would be refused with.
    async fn enough(&self, amount: Sat) -> Result<(Sat, Seconds), Refusal> {
        let (mut little, mut much) = (None, amount);
        let mut bought = self.buys(much).await?;
        for _ in 0..PRICE_STEPS {
            if bought.is_some() {
                break;
            }
            (little, much) = (Some(much), Sat(much.0.saturating_mul(2)));
            bought = self.buys(much).await?;
        }
        let none = || {
            Refusal::new(
                ErrorType::ResourceUnavailable,
                "the operator's policies take no payment for this now",
            )
        };
        let mut bought = bought.ok_or_else(none)?;
        // It is enough at once nearly always: then there is nothing to narrow.
        while let Some(less) = little
            && much.minus(less) > Sat(1)
        {
            let middle = Sat(less.0.midpoint(much.0));
            match self.buys(middle).await? {
                Some(there) => (much, bought) = (middle, there),
                None => little = Some(middle),
            }
        }
        Ok((much, bought?))
    }
}

impl OrderService {
    /// What this purchase would cost this customer now: for the wanted time, or the one that is
    /// suggested.
    ///
    /// # Errors
    /// What an order of it would be refused with, before its token is looked at.
    pub async fn price(
        &self,
        purchase: &Purchase,
        wanted: Option<Seconds>,
        customer: &Customer,
    ) -> Result<PriceEstimate, Refusal> {
        let set = self.backends.policy.current();
        let context = self.context(customer).await?;
        let mut order = Order::blank(purchase.clone());
        order.reply_to.customer = customer.clone();
        let view = match purchase {
            Purchase::Spawn { .. } => {
                let view = order.view(None);
                set.admit(&view, &context).await?;
                view
            }
            Purchase::TopUp { pod } => {
                let lease = self.find_lease(pod).await?;
                if lease.state == LeaseState::Ended {
                    return Err(Refusal::new(
                        ErrorType::LeaseExpired,
                        "this pod has ended; order a new one",
                    ));
                }
                order.view(Some(lease.view(customer, UnixTime::now())))
            }
        };
        let quote = set.quote(&view, &context).await?;
        let asked = PriceProbe {
            set: &*set,
            view: &view,
            quote: &quote,
            context: &context,
            mint: self.backends.wallet.mints().first().cloned(),
        };
        let least = quote.minimum.max(Sat(1));
        let amount = quote.price.costs(wanted.unwrap_or(self.settings.suggested)).max(least);
        let (amount, seconds) = match asked.enough(amount).await {
            // What is suggested is more than there may be: the least that there is.
            Err(refusal) if wanted.is_none() && refusal.code == ErrorType::InvalidRequest => {
                asked.enough(least).await?
            }
            priced => priced?,
        };
        Ok(PriceEstimate {
            tier: quote.tier,
            resources: quote.resources,
            price: quote.price,
            seconds,
            amount,
        })
    }

    /// Whether a token would buy so much time of a pod now. Takes nothing.
    ///
    /// # Errors
    /// What an order with it would be refused with.
    pub async fn verify_payment(
        &self,
        token: &Secret,
        wanted: Option<Seconds>,
        customer: &Customer,
    ) -> Result<Payment, Refusal> {
        let token_info = self.backends.wallet.decode(token).await?;
        let turn =
            tokio::time::timeout(limits::VOUCH_WAIT, self.verify_slots.acquire(&token_info.mint))
                .await;
        let busy = || {
            Refusal::new(
                ErrorType::ResourceUnavailable,
                "too many tokens are being looked at; try again in a moment",
            )
        };
        let _turn = turn.ok().flatten().ok_or_else(busy)?;
        let payment = self.backends.wallet.verify_dleq(token, &token_info).await?;
        let login = Login::check(None, None, None)?;
        let purchase = Purchase::Spawn {
            image: None,
            tier: None,
            username: login.username,
            public_key: None,
            wanted,
        };
        let mut order = Order::blank(purchase);
        order.reply_to.customer = customer.clone();
        let (set, context, view) =
            (self.backends.policy.current(), self.context(customer).await?, order.view(None));
        let quote = set.quote(&view, &context).await?;
        set.grant(&view, &quote, &payment, &context).await?;
        super::decide::check_minimum(&payment, &quote)?;
        Ok(payment)
    }

    /// The mints whose tokens are accepted.
    #[must_use]
    pub fn mints(&self) -> Vec<MintUrl> {
        self.backends.wallet.mints()
    }

    /// A payment request for a wallet.
    #[must_use]
    pub fn payment_request(&self, asked: &PaymentRequest) -> String {
        self.backends.wallet.payment_request(asked)
    }

    /// The token of what a wallet posts for a payment request.
    ///
    /// # Errors
    /// `invalid_token`.
    pub async fn token_from_payload(&self, payload: &str) -> Result<Secret, Refusal> {
        self.backends.wallet.token_from_payload(payload).await
    }

    /// How far an order is, for the customer who gave it.
    ///
    /// # Errors
    /// `not_found`, `not_owner`, `internal_error`.
    pub async fn order(&self, id: &OrderId, customer: &Customer) -> Result<OrderStatus, Refusal> {
        let order = self.backends.ledger.order(id).await.map_err(|error| unreadable(&error))?;
        let order = order
            .ok_or_else(|| Refusal::new(ErrorType::NotFound, "there is no order of that id"))?;
        if customer.0.is_empty() || order.customer() != customer {
            return Err(Refusal::new(ErrorType::NotOwner, "this order is another customer's"));
        }
        let response = if order.state.is_final() { Some(self.answer(&order).await) } else { None };
        Ok(OrderStatus { id: order.id.clone(), state: order.state, pod: order.pod(), response })
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
        Ok(!customer.0.is_empty() && leases.iter().any(|lease| lease.state == LeaseState::Live))
    }

    /// The pods of this customer that are not over, and those that are and have a refund that is
    /// being made or that nobody has redeemed.
    ///
    /// # Errors
    /// `internal_error`.
    pub async fn pods(&self, customer: &Customer) -> Result<Vec<StatusResponse>, Refusal> {
        if customer.0.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error| unreadable(&error);
        let mut leases = self.backends.ledger.live_leases(Some(customer)).await.map_err(failed)?;
        let refunds = self.backends.ledger.pending_refunds(Some(customer)).await.map_err(failed)?;
        for pod in refunds
            .iter()
            .filter_map(|order| order.lease.as_ref())
            .map(crate::model::units::LeaseId::pod_name)
        {
            let known = leases.iter().any(|lease| lease.pod() == pod);
            let lease = if known {
                None
            } else {
                self.backends.ledger.lease(&pod).await.map_err(failed)?
            };
            leases.extend(lease.filter(|lease| lease.customer == *customer));
        }
        let told = |lease: &Lease| {
            let own: Vec<&Order> =
                refunds.iter().filter(|order| order.lease.as_ref() == Some(&lease.id)).collect();
            protocol::status(lease, &own, &self.settings.ssh_host, UnixTime::now())
        };
        Ok(leases.iter().map(told).collect())
    }

    /// How far a pod is, from the order on that makes it.
    ///
    /// # Errors
    /// `not_found`, `not_owner`, `internal_error`.
    pub async fn progress(&self, pod: &PodName, customer: &Customer) -> Result<Progress, Refusal> {
        let failed = |error| unreadable(&error);
        let lease = self.backends.ledger.lease(pod).await.map_err(failed)?;
        let orders = self.backends.ledger.orders_of(&pod.lease()).await.map_err(failed)?;
        let spawn =
            orders.into_iter().find(|order| matches!(order.purchase, Purchase::Spawn { .. }));
        let owner =
            lease.as_ref().map(|lease| &lease.customer).or(spawn.as_ref().map(Order::customer));
        match owner {
            None => return Err(no_such_pod()),
            Some(owner) if customer.0.is_empty() || owner != customer => return Err(not_owner()),
            Some(_) => {}
        }
        let state = spawn.as_ref().map(|order| order.state);
        let expires_at = lease.as_ref().and_then(|lease| lease.expires_at);
        let stage = match (lease.as_ref().map(|lease| lease.state), state) {
            (_, Some(State::Refused)) => Stage::Refused,
            (_, Some(state)) if state.is_awaiting_payment() => Stage::Received,
            (_, Some(State::Paid)) => Stage::Redeemed,
            (Some(LeaseState::Reserved) | None, Some(State::Provisioning)) => {
                match self.backends.cluster.startup_phase(pod).await {
                    Ok(StartupPhase::Scheduled) => Stage::Scheduled,
                    Ok(StartupPhase::Pulling | StartupPhase::Starting) => Stage::Pulling,
                    Ok(StartupPhase::Waiting) | Err(_) => Stage::Redeemed,
                }
            }
            (Some(LeaseState::Live), _) => running(lease.as_ref(), UnixTime::now()),
            (_, Some(State::Refunded)) if expires_at.is_none() => Stage::Refunded,
            // The money is on its way back, and still with us.
            (_, Some(State::RefundPending)) if expires_at.is_none() => Stage::Redeemed,
            _ => Stage::Ended,
        };
        Ok(Progress { stage, expires_at, refusal: spawn.and_then(|order| order.refusal) })
    }

    /// What the customer who bought a running pod was told when it was ready, again.
    ///
    /// # Errors
    /// As [`OrderService::login`].
    pub async fn access(
        &self,
        pod: &PodName,
        customer: &Customer,
    ) -> Result<AccessDetails, Refusal> {
        let (lease, orders) = self.running_lease(pod, customer).await?;
        let spawn = orders.iter().find(|order| matches!(order.purchase, Purchase::Spawn { .. }));
        let spawn = spawn.ok_or_else(|| {
            Refusal::new(ErrorType::InternalError, "the order of this pod is missing")
        })?;
        let now = Order { expires_at: lease.expires_at, ..spawn.clone() };
        Ok(protocol::access(&now, &lease, &self.settings.ssh_host, None))
    }

    /// The login of a running pod, for the customer who bought it: its host and port, and how to
    /// get in.
    ///
    /// # Errors
    /// `not_found`, `not_owner`, `lease_expired`, `resource_unavailable` while it is being made.
    pub async fn login(
        &self,
        pod: &PodName,
        customer: &Customer,
    ) -> Result<(String, u16, Login), Refusal> {
        let (lease, orders) = self.running_lease(pod, customer).await?;
        let login = orders.iter().find_map(Order::login);
        let login = login.ok_or_else(|| {
            Refusal::new(ErrorType::LeaseExpired, "the login of this pod is not kept any more")
        })?;
        Ok((self.settings.ssh_host.clone(), lease.port, login))
    }

    async fn running_lease(
        &self,
        pod: &PodName,
        customer: &Customer,
    ) -> Result<(Lease, Vec<Order>), Refusal> {
        let lease = self.own_lease(pod, customer).await?;
        match lease.state {
            LeaseState::Live => {}
            LeaseState::Reserved => {
                return Err(Refusal::new(
                    ErrorType::ResourceUnavailable,
                    "this pod is not ready yet; try again in a minute",
                ));
            }
            LeaseState::Ended => {
                return Err(Refusal::new(
                    ErrorType::LeaseExpired,
                    "this pod has ended; order a new one",
                ));
            }
        }
        let orders =
            self.backends.ledger.orders_of(&lease.id).await.map_err(|error| unreadable(&error))?;
        Ok((lease, orders))
    }

    /// The leases that are not over, for the operator.
    ///
    /// # Errors
    /// `internal_error`.
    pub async fn leases(&self) -> Result<Vec<Lease>, Refusal> {
        self.backends.ledger.live_leases(None).await.map_err(|error| unreadable(&error))
    }

    /// Everything at once, for the operator; takings since then.
    ///
    /// # Errors
    /// `internal_error`.
    pub async fn overview(&self, since: UnixTime) -> Result<Overview, Refusal> {
        let ledger = &self.backends.ledger;
        let failed = |error| unreadable(&error);
        let mints = self.backends.wallet.report().await.map_err(|why| {
            tracing::error!(%why, "the mints' report failed");
            Refusal::new(ErrorType::InternalError, "the purse cannot be read")
        })?;
        Ok(Overview {
            capacity: self.capacity(),
            ports_in_use: ledger.ports_in_use().await.map_err(failed)?,
            leases: self.leases().await?,
            revenue: ledger.revenue(since).await.map_err(failed)?,
            count_by_state: ledger.count_by_state().await.map_err(failed)?,
            policies: self.backends.policy.report(),
            mints,
        })
    }

    /// What keeps the desk from serving; empty when nothing does.
    pub async fn unready_reasons(&self) -> Vec<&'static str> {
        let ledger =
            tokio::time::timeout(limits::READY_PATIENCE, self.backends.ledger.ports_in_use());
        let cluster = tokio::time::timeout(limits::READY_PATIENCE, self.backends.cluster.check());
        let (ledger, cluster) = tokio::join!(ledger, cluster);
        let mut unready_reasons = Vec::new();
        if !matches!(ledger, Ok(Ok(_))) {
            unready_reasons.push("the ledger does not answer");
        }
        if !matches!(cluster, Ok(Ok(()))) {
            unready_reasons.push("the cluster does not answer, or does not let us see our pods");
        }
        unready_reasons
    }
}

pub(super) fn no_such_pod() -> Refusal {
    Refusal::new(
        ErrorType::NotFound,
        "there is no pod of that name; use pod_name as it was given to you",
    )
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

    fn lease(created_at: u64, expires_at: u64) -> Lease {
        Lease {
            id: crate::model::units::LeaseId::default(),
            customer: Customer::default(),
            tier: String::new(),
            image: String::new(),
            resources: Resources::default(),
            username: String::new(),
            port: 1,
            state: LeaseState::Live,
            created_at: UnixTime(created_at),
            expires_at: Some(UnixTime(expires_at)),
            end: None,
        }
    }

    #[test]
    fn a_pod_is_said_to_expire_in_its_last_fifth_and_five_minutes_at_most() {
        let stage = |lease: &Lease, now| running(Some(lease), UnixTime(now));
        let (short, long) = (lease(0, 100), lease(0, 100_000));
        assert_eq!((stage(&short, 79), stage(&short, 80)), (Stage::Ready, Stage::Expiring));
        assert_eq!((stage(&long, 99_699), stage(&long, 99_700)), (Stage::Ready, Stage::Expiring));
    }
}
