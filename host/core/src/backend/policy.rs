//! The policies: four functions, served by one set of components.

use crate::model::order::{Order, OrderView};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::units::{Msat, Sat, Seconds, UnixTime};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The policies in force. An order takes the set once and keeps it to its end.
pub trait Policy: Send + Sync {
    /// The set that decides the next order.
    fn current(&self) -> Arc<dyn PolicySet>;
    /// Statistics of the components in force.
    fn report(&self) -> Vec<SlotStats>;
    /// Notifies when another set is published.
    fn changes(&self) -> tokio::sync::watch::Receiver<()>;
    /// Observes a decided order, for shadow comparison; never delays the order.
    fn observe(&self, order: &Order);
}

/// The upper bounds of the latency buckets, in microseconds; what takes longer than the last is in
/// one more bucket.
pub const LATENCY_BUCKETS_US: [u64; 10] =
    [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000];

/// Statistics of one component since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStats {
    /// The slot.
    pub slot: Slot,
    /// SHA-256 of the component.
    pub digest: String,
    /// How often it was called.
    pub calls: u64,
    /// Refusals by code.
    pub refusals: BTreeMap<ErrorType, u64>,
    /// How often it failed.
    pub faults: u64,
    /// The most memory that a call of it had, in bytes.
    pub memory_bytes: u64,
    /// All its calls together, in microseconds.
    pub total_us: u64,
    /// Calls by duration, one number a bucket of [`LATENCY_BUCKETS_US`] and one for the rest.
    pub latency: Vec<u64>,
}

impl SlotStats {
    /// The bound of the bucket that holds this share of the calls, in microseconds; `None` without
    /// calls, or beyond the last bound.
    #[must_use]
    pub fn percentile_us(&self, percent: u64) -> Option<u64> {
        let wanted = self.calls.saturating_mul(percent).div_ceil(100).max(1);
        let mut seen = 0_u64;
        let mut bounds = LATENCY_BUCKETS_US.iter();
        for count in &self.latency {
            seen = seen.saturating_add(*count);
            let bound = bounds.next();
            if seen >= wanted {
                return bound.copied();
            }
        }
        None
    }
}

/// Four components, one for each slot, replaced only together.
#[async_trait]
pub trait PolicySet: Send + Sync {
    /// What these components are: recorded with each decision.
    fn digests(&self) -> Digests;
    /// Slot images: the image to run.
    async fn admit(&self, order: &OrderView, context: &Context) -> Result<String, PolicyError>;
    /// Slot pricing: what is for sale.
    async fn offers(&self, context: &Context) -> Result<Vec<Offer>, PolicyError>;
    /// Slot pricing: the price of this order.
    async fn quote(&self, order: &OrderView, context: &Context) -> Result<Quote, PolicyError>;
    /// Slot duration: the time that the payment buys.
    async fn grant(
        &self,
        order: &OrderView,
        quote: &Quote,
        payment: &Payment,
        context: &Context,
    ) -> Result<Grant, PolicyError>;
    /// Slot duration: the terms of paying back unused time; none from a component that knows none.
    async fn refund(
        &self,
        order: &OrderView,
        quote: &Quote,
        payment: &Payment,
        grant: &Grant,
        context: &Context,
    ) -> Result<Option<RefundTerms>, PolicyError>;
    /// Slot pod-template: what to run.
    async fn render(
        &self,
        order: &OrderView,
        grant: &Grant,
        placement: &Placement,
    ) -> Result<Rendered, PolicyError>;
}

/// SHA-256 of each component, in hex.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Of the images component.
    pub images: String,
    /// Of the pricing component.
    pub pricing: String,
    /// Of the duration component.
    pub duration: String,
    /// Of the pod-template component.
    pub pod_template: String,
}

/// The four places of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    /// Which images may run.
    Images,
    /// What is for sale.
    Pricing,
    /// How long a payment lasts.
    Duration,
    /// What the pod looks like.
    PodTemplate,
}

impl Slot {
    /// All of them, in the order in which they decide.
    pub const ALL: [Self; 4] = [Self::Images, Self::Pricing, Self::Duration, Self::PodTemplate];

    /// The slot of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|slot| slot.as_str() == name)
    }

    /// The slot's name: that of its interface in `wit/` and of its component file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Pricing => "pricing",
            Self::Duration => "duration",
            Self::PodTemplate => "pod-template",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a policy call did not grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The policy refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The component failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A component that failed one call. The next call runs in a new instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {slot} ({digest:.12}): {kind}")]
pub struct Fault {
    /// The slot that was called.
    pub slot: Slot,
    /// SHA-256 of the component.
    pub digest: String,
    /// What happened.
    pub kind: FaultKind,
}

/// The ways in which a component fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// It ran past its deadline.
    #[error("ran longer than {0} ms and was stopped")]
    Deadline(u64),
    /// It requested more memory, tables or instances than allowed.
    #[error("requested more memory than allowed: {0}")]
    Memory(String),
    /// It recursed too deep.
    #[error("its stack overflowed")]
    Stack,
    /// It trapped: a panic, a division by zero, an access out of bounds.
    #[error("trapped: {0}")]
    Trap(String),
    /// It returned a value outside the contract's ranges.
    #[error("returned an invalid value: {0}")]
    InvalidOutput(String),
    /// Its template is one that no pod may have here.
    #[error("its template is not allowed: {0}")]
    Template(String),
    /// It no longer takes the settings that it took when it was loaded.
    #[error("refused its settings: {0}")]
    Settings(String),
}

impl From<PolicyError> for Refusal {
    /// A refusal is passed to the customer as it is; of a fault only that there was one.
    fn from(not_granted: PolicyError) -> Self {
        match not_granted {
            PolicyError::Refused(refusal) => refusal,
            PolicyError::Fault(fault) => Self::new(
                ErrorType::PolicyUnavailable,
                format!("the operator's {} policy failed; try again later", fault.slot),
            ),
        }
    }
}

/// What a pod may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
}

/// A price: so many msat for every so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// The money.
    pub msat: Msat,
    /// The time; at least one second.
    pub seconds: Seconds,
}

impl Price {
    /// What so much time costs, rounded up to whole sats.
    #[must_use]
    pub fn costs(&self, time: Seconds) -> Sat {
        let msat = u128::from(self.msat.0)
            .saturating_mul(u128::from(time.0))
            .div_ceil(u128::from(self.seconds.0.max(1)));
        Sat(u64::try_from(msat.div_ceil(1000)).unwrap_or(u64::MAX))
    }

    /// The time that an amount buys, rounded down; as long as time goes when it costs nothing.
    #[must_use]
    pub fn buys(&self, amount: Sat) -> Seconds {
        let msat = u128::from(amount.0).saturating_mul(1000);
        let seconds = msat
            .saturating_mul(u128::from(self.seconds.0))
            .checked_div(u128::from(self.msat.0))
            .unwrap_or(u128::MAX);
        Seconds(u64::try_from(seconds).unwrap_or(u64::MAX))
    }
}

/// What is for sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The tier's id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// One or two sentences.
    pub description: String,
    /// What the pod may use.
    pub resources: Resources,
    /// What it costs.
    pub price: Price,
    /// The least net amount that is accepted.
    pub minimum: Sat,
}

/// What an order would cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The tier.
    pub tier: String,
    /// What the pod may use.
    pub resources: Resources,
    /// What it costs.
    pub price: Price,
    /// The least net amount that is accepted.
    pub minimum: Sat,
}

/// The time that is sold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// How long.
    pub seconds: Seconds,
    /// What the customer should know of it.
    pub note: Option<String>,
}

/// What a customer who stops the pod early is refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundTerms {
    /// The steps in which used time is charged; what is left is unused.
    pub step: Seconds,
    /// The percentage of the unused time's price that is refunded: 0 to 100.
    pub percent: u8,
}

/// What a token is worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// The mint's URL.
    pub mint: String,
    /// The sum of the proofs.
    pub gross: Sat,
    /// What the mint keeps of it.
    pub fee: Sat,
    /// What is left: the amount that counts.
    pub net: Sat,
}

/// What the host fixes before the template is rendered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The pod's name.
    pub pod_name: String,
    /// The admitted image.
    pub image: String,
    /// What the pod may use.
    pub resources: Resources,
    /// The node's port that is reserved for it.
    pub host_port: u16,
    /// The port that its SSH server listens on.
    pub container_port: u16,
    /// The Secret with its login.
    pub secret_name: String,
    /// Where the pod finds the login.
    pub secret_mount_path: String,
}

/// A template as a policy returned it: not trusted until the cluster's guard has read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    /// A core/v1 PodTemplateSpec as JSON.
    pub pod_template_json: String,
    /// core/v1 Services as JSON.
    pub services_json: Vec<String>,
}

/// The circumstances of a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The time of the decision.
    pub now: UnixTime,
    /// How many pods can be leased at the same time.
    pub capacity_leases: u32,
    /// How many are leased now.
    pub active_leases: u32,
    /// This customer's leases, oldest first.
    pub customer_leases: Vec<LeaseView>,
}

/// A lease as a policy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Its id.
    pub id: String,
    /// Its tier.
    pub tier: String,
    /// Its image.
    pub image: String,
    /// When it was ordered.
    pub created_at: UnixTime,
    /// When it ends.
    pub expires_at: UnixTime,
    /// What is left of it.
    pub remaining: Seconds,
    /// Whether this customer bought it.
    pub owned_by_customer: bool,
}

/// The policy calls of an order that was refused, by one of them or by the host. The first without
/// a result refused it; if all have one, the host did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTrace {
    /// The components that were called.
    pub digests: Digests,
    /// Their view of the order.
    pub order: OrderView,
    /// Their context.
    pub context: Context,
    /// Their view of the payment.
    pub payment: Payment,
    /// The result of images; not called for a top-up.
    pub image: Option<String>,
    /// The result of pricing.
    pub quote: Option<Quote>,
    /// The result of duration.
    pub grant: Option<Grant>,
    /// Its refund terms.
    pub refund: Option<RefundTerms>,
    /// The input of pod-template; not called for a top-up.
    pub placement: Option<Placement>,
}

/// A decision with everything that led to it: it is recorded and can be replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The components that decided.
    pub digests: Digests,
    /// Their view of the order.
    pub order: OrderView,
    /// Their context.
    pub context: Context,
    /// The price.
    pub quote: Quote,
    /// The time.
    pub grant: Grant,
    /// The terms of paying back unused time; none: the component knew none, and the host's hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<RefundTerms>,
    /// Where the pod goes and what it looks like; none for a top-up.
    pub pod: Option<PodDecision>,
}

/// The part of a decision that only a new pod has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDecision {
    /// What the host had fixed.
    pub placement: Placement,
    /// The template.
    pub rendered: Rendered,
}

impl Decision {
    /// The decision that this order is past; orders from `decided` on have one.
    ///
    /// # Errors
    /// `internal_error`: the ledger holds an order without the decision that its state promises.
    pub fn of(order: &Order) -> Result<&Self, Refusal> {
        order.decision.as_ref().ok_or_else(|| {
            Refusal::new(ErrorType::InternalError, "the order's decision is missing")
        })
    }
}
