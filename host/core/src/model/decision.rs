//! What policies see and decide. It is recorded with the order and can be replayed.

use crate::model::access::{AccessMode, AccessModes};
use crate::model::egress::EgressRule;
use crate::model::ids::{HexDigest, ImageRef, MintUrl, TierId};
use crate::model::mint_url::as_recorded;
use crate::model::units::{Msat, Sat, Seconds, UnixTime};
use serde::{Deserialize, Serialize};

/// What a policy sees of an order: no token, no password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    /// The order's id.
    pub id: String,
    /// The customer's public key, or empty.
    pub customer: String,
    /// The lease to extend; none: a new pod.
    pub extends: Option<LeaseView>,
    /// The wanted image.
    pub image: Option<String>,
    /// The wanted tier.
    pub tier: Option<String>,
    /// The SSH user.
    pub username: String,
    /// The wanted time.
    pub wanted: Option<Seconds>,
}

impl OrderView {
    /// Whether it extends another customer's pod. What policies saw of that pod, its image for
    /// instance, is not for whoever pays for more of its time.
    #[must_use]
    pub fn extends_of_another(&self) -> bool {
        self.extends.as_ref().is_some_and(|lease| !lease.owned_by_customer)
    }
}

/// The digest of each component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Of the images component.
    pub images: HexDigest,
    /// Of the pricing component.
    pub pricing: HexDigest,
    /// Of the duration component.
    pub duration: HexDigest,
    /// Of the pod-template component.
    pub pod_template: HexDigest,
    /// Of their settings; none in what earlier versions recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsDigests>,
}

impl Digests {
    /// Takes the pod-template component of another set: a pod that moves is rendered again.
    pub(crate) fn replace_pod_template(&mut self, by: Self) {
        self.pod_template = by.pod_template;
        if let (Some(own), Some(by)) = (&mut self.settings, by.settings) {
            own.pod_template = by.pod_template;
        }
    }
}

/// The digest of each component's settings as canonical JSON (no space, keys sorted).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsDigests {
    /// Of the images component's.
    pub images: HexDigest,
    /// Of the pricing component's.
    pub pricing: HexDigest,
    /// Of the duration component's.
    pub duration: HexDigest,
    /// Of the pod-template component's.
    pub pod_template: HexDigest,
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
    pub id: TierId,
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

/// An image that may be requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOffer {
    /// As orders name it; with `:*` at its end, every tag and digest of a repository.
    pub reference: String,
    /// What it is, for people.
    pub description: Option<String>,
}

/// What an order would cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The tier.
    pub tier: TierId,
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
    #[serde(deserialize_with = "as_recorded")]
    pub mint: MintUrl,
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
    pub image: ImageRef,
    /// What the pod may use.
    pub resources: Resources,
    /// The port of the nodes that is reserved for it; none where none is sold.
    #[serde(default)]
    pub host_port: Option<u16>,
    /// How customers may reach it.
    #[serde(default, skip_serializing_if = "AccessModes::is_default")]
    pub access: AccessModes,
    /// The port that its SSH server listens on.
    pub container_port: u16,
    /// The Secret with its login.
    pub secret_name: String,
    /// Where the pod finds the login.
    pub secret_mount_path: String,
}

impl Placement {
    /// The reserved port, if the template may use it so.
    #[must_use]
    pub fn port_by(&self, mode: AccessMode) -> Option<u16> {
        self.host_port.filter(|_| mode.has_port() && self.access.contains(mode))
    }
}

/// A template as a policy returned it: not trusted until the cluster's guard has read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    /// A core/v1 PodTemplateSpec as JSON.
    pub pod_template_json: String,
    /// core/v1 Services as JSON.
    pub services_json: Vec<String>,
    /// What the pod may connect to, besides DNS; none: what the operator lets all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
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
    /// Their other orders; none: the order names no customer, or an earlier version recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<CustomerHistory>,
    /// How full the nodes are that pods may use, without this order; none: they are not watched, or an
    /// earlier version recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilisation: Option<Utilisation>,
}

/// How full the cluster is, in thousandths of what its nodes have for pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utilisation {
    #[serde(rename = "cpu_per_mille")]
    pub cpu: u32,
    #[serde(rename = "memory_per_mille")]
    pub memory: u32,
}

/// What the ledger has of a customer's orders besides the one that is decided: of those that count,
/// see [`Order::counted`](crate::model::order::Order::counted).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerHistory {
    /// How many, at most [`limits::HISTORY_ORDERS`](crate::limits::HISTORY_ORDERS).
    pub orders: u32,
    /// How long ago the first of them arrived.
    pub first_ago: Option<Seconds>,
    /// What those of the last 24 hours were paid with, less what was refunded.
    pub last_day_paid: Sat,
    /// The time that they bought, less the share that was refunded.
    pub last_day_bought: Seconds,
    /// How long ago the first of the last 24 hours arrived.
    pub last_day_first_ago: Option<Seconds>,
    /// How many of the last 24 hours are still to be decided: their time is not known.
    pub last_day_undecided: u32,
}

/// A lease as a policy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Its id.
    pub id: String,
    /// Its tier.
    pub tier: TierId,
    /// Its image.
    pub image: ImageRef,
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
    pub image: Option<ImageRef>,
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
}

/// The part of a decision that only a new pod has: where it goes and what it looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDecision {
    /// What the host had fixed.
    pub placement: Placement,
    /// The template.
    pub rendered: Rendered,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_context_that_an_earlier_version_recorded_is_read() {
        let stored = r#"{"now":0,"capacity_leases":0,"active_leases":0,"customer_leases":[]}"#;
        let context: Context = serde_json::from_str(stored).unwrap();
        assert_eq!(context, Context::default());
        assert_eq!(serde_json::to_string(&context).unwrap(), stored);
        let utilisation = Some(Utilisation { cpu: 472, memory: 450 });
        let context = Context { utilisation, ..context };
        let json = serde_json::to_value(&context).unwrap();
        let expected = json!({"cpu_per_mille": 472, "memory_per_mille": 450});
        assert_eq!(json["utilisation"], expected);
        assert_eq!(serde_json::from_value::<Context>(json).unwrap(), context);
    }
}
