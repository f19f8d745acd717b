//! Sample orders for tests: what matters to a test is set by it, the rest stands here.

use crate::backend::capacity::{Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation};
use crate::backend::cluster::CapacitySource;
use crate::model::access::AccessModes;
use crate::model::catalog::{Catalog, ListedOffer};
use crate::model::decision::{
    Context, Decision, Digests, Grant, Offer, OrderView, Payment, Placement, PodDecision, Price,
    Quote, Rendered, Resources,
};
use crate::model::gateway::GatewayWays;
use crate::model::ids::{
    ImageRef, InvalidName, LeaseId, MessageId, MintUrl, OrderId, TierId, Username,
};
use crate::model::lease::{Lease, LeaseState, PortKind};
use crate::model::login::Login;
use crate::model::order::{Order, OrderState, Purchase};
use crate::model::order_state::{
    Agreement, DecisionProgress, Paid, PlannedPod, Refund, RefundCause, RefundOutcome, Sale, Task,
    Unpaid,
};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::reply_to::ReplyTo;
use crate::model::run::Run;
use crate::model::secret::Secret;
use crate::model::state::State;
use crate::model::token::TokenInfo;
use crate::model::units::{Msat, Sat, Seconds, UnixTime};
use crate::protocol::{
    OPERATOR_CLAIMS, RECEIPT_VERSION, ReceiptContent, ReceiptKind, ReceiptOrder,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ten minutes for ten sat.
const SECONDS: Seconds = Seconds(600);
const PAID: Sat = Sat(10);

/// The public host key of a pod's SSH server.
pub const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMUaPK8AAnKX7VeYLedY7erYKc8I7KZxPAGCOqLSELzH";

/// A token, with the characters in which the two base64 alphabets differ.
pub const TOKEN: &str = "cashuBo2F0-_9gaJhaUgA";

/// As cashu.me hides it behind an emoji.
#[must_use]
pub fn hidden(text: &str) -> String {
    let selector = |byte: u8| match byte {
        0..=15 => char::from_u32(u32::from(byte).saturating_add(0xfe00)),
        _ => char::from_u32(u32::from(byte).saturating_add(0xe00f0)),
    };
    format!("\u{1f95c}{}", text.bytes().filter_map(selector).collect::<String>())
}

/// [`TOKEN`] in the forms in which wallets and people send it.
#[must_use]
pub fn forms_of_the_token() -> Vec<String> {
    let standard = TOKEN.replace('-', "+").replace('_', "/");
    vec![
        TOKEN.to_owned(),
        format!("  {TOKEN}\r\n"),
        format!("\u{feff}{TOKEN}"),
        format!("cashu:{TOKEN}"),
        format!("cashu://{TOKEN}"),
        format!("CASHU:{TOKEN}"),
        format!("web+cashu:{TOKEN}"),
        format!("web+cashu://{TOKEN}"),
        format!("Web+Cashu://{TOKEN}"),
        format!("https://wallet.example/#token={TOKEN}"),
        format!("https://wallet.example/?lang=de&token={TOKEN}&x=1"),
        format!("HTTPS://wallet.example/#token=cashu:{TOKEN}"),
        format!("https://wallet.example/#token={TOKEN}#top"),
        "cashuBo2F0\n  -_9ga\r\nJhaUgA\n".to_owned(),
        "cashuBo2F0-_\u{200b}9gaJhaUgA\u{feff}".to_owned(),
        standard.clone(),
        format!("cashu:{standard}"),
        format!("cashu%3A{}", standard.replace('+', "%2B").replace('/', "%2F")),
        "https%3A%2F%2Fwallet.example%2F%23token%3DcashuBo2F0-_9gaJhaUgA".to_owned(),
        format!("\"{TOKEN}\""),
        format!("'{TOKEN}'"),
        format!("`cashu:{TOKEN}`"),
        format!("```\n{TOKEN}\n```"),
        format!("\u{201c}{TOKEN}\u{201d}"),
        format!("<{TOKEN}>"),
        hidden(TOKEN),
        hidden(&format!("cashu:{TOKEN}")),
        format!("have a nut: \u{2764}\u{fe0f} {} enjoy", hidden(TOKEN)),
    ]
}

/// The tier with this id.
///
/// # Panics
/// It is no id of a tier.
#[must_use]
#[allow(clippy::expect_used, reason = "a test fails by it")]
pub fn tier(id: &str) -> TierId {
    TierId::parse(id).expect("the id of a tier")
}

/// The image with this reference.
///
/// # Panics
/// It is no reference of an image.
#[must_use]
#[allow(clippy::expect_used, reason = "a test fails by it")]
pub fn image(reference: &str) -> ImageRef {
    ImageRef::parse(reference).expect("the reference of an image")
}

/// One tier at this price for a minute.
#[must_use]
pub fn catalog(msat: u64, available: Option<u32>) -> Catalog {
    let offer = Offer {
        id: tier("basic"),
        name: "Basic".to_owned(),
        description: "A pod.".to_owned(),
        resources: Resources { cpu_millicores: 1_000, memory_mib: 1_024 },
        price: Price { msat: Msat(msat), seconds: Seconds(60) },
        minimum: Sat(1),
    };
    Catalog {
        offers: vec![ListedOffer { offer, available }],
        images: Vec::new(),
        mints: Vec::new(),
        p2pk_pubkey: None,
        utilisation: None,
        root: false,
        run_image: false,
        http_ports: false,
        access: AccessModes::default(),
        ways: GatewayWays::default(),
        policies: None,
    }
}

/// A live lease without a customer.
#[must_use]
pub fn lease(id: LeaseId, created_at: u64, expires_at: u64) -> Lease {
    Lease {
        id,
        customer: None,
        tier: tier("basic"),
        image: image("image:1"),
        resources: Resources::default(),
        username: Username::default(),
        port: Some(1),
        port_kind: PortKind::HostPort,
        state: LeaseState::Live,
        created_at: UnixTime(created_at),
        expires_at: Some(UnixTime(expires_at)),
        end: None,
        served_until: None,
        noticed_at: None,
        pod_uid: None,
        host_keys: Vec::new(),
        root: None,
        pod_key: None,
        ssh_host: None,
        http: None,
    }
}

/// A mint that does not exist.
///
/// # Errors
/// None: the URL is one.
pub fn mint() -> Result<MintUrl, InvalidName> {
    MintUrl::parse("https://mint.invalid")
}

#[must_use]
pub fn spawn() -> Purchase {
    Purchase::Spawn {
        image: None,
        tier: None,
        username: Username::default(),
        public_key: None,
        wanted: None,
        run: Run::Ssh,
        http: None,
    }
}

/// An order of this purchase without a customer.
///
/// # Errors
/// None: see [`mint`].
pub fn order(purchase: Purchase, state: State) -> Result<Order, InvalidName> {
    let state = order_state(&purchase, state);
    Ok(Order {
        id: OrderId::random(),
        message: MessageId::parse("message")?,
        reply_to: ReplyTo {
            transport: "nostr".to_owned(),
            customer: None,
            address: BTreeMap::new(),
        },
        purchase,
        token_info: TokenInfo { mint: mint()?, gross: PAID, ys: Vec::new() },
        created_at: UnixTime(100),
        state,
        delivered: false,
    })
}

/// The lease of this order: reserved, and without a customer.
#[must_use]
pub fn reserved_lease(order: &OrderId) -> Lease {
    Lease { state: LeaseState::Reserved, expires_at: None, ..lease(LeaseId::of(order), 100, 100) }
}

#[must_use]
pub fn agreement() -> Agreement {
    let quote = Quote {
        tier: tier("basic"),
        resources: Resources::default(),
        price: Price { msat: Msat(1_000), seconds: Seconds(60) },
        minimum: Sat(1),
    };
    let decision = Decision {
        digests: Digests::default(),
        order: OrderView::default(),
        context: Context::default(),
        quote,
        grant: Grant { seconds: SECONDS, note: None },
        refund: None,
    };
    let payment = Payment { mint: MintUrl::of_dry_run(), gross: PAID, fee: Sat(0), net: PAID };
    Agreement { payment, decision }
}

#[must_use]
pub fn task(purchase: &Purchase) -> Task {
    match purchase {
        Purchase::TopUp { pod } => Task::TopUp { pod: pod.clone() },
        Purchase::Spawn { username, public_key, .. } => {
            let placement = Placement {
                pod_name: String::new(),
                image: image("image:1"),
                resources: Resources::default(),
                host_port: Some(1),
                access: AccessModes::default(),
                container_port: 1,
                secret_name: String::new(),
                secret_mount_path: String::new(),
            };
            let pod = Box::new(PodDecision { placement, rendered: Rendered::default() });
            let login = Login {
                username: username.clone(),
                password: Some(Secret::new("hunter22")),
                public_key: public_key.clone(),
            };
            Task::Spawn { planned: PlannedPod { decision: pod, moves: 0 }, login }
        }
    }
}

#[must_use]
pub fn unpaid(purchase: &Purchase) -> Unpaid {
    let token = Secret::new("cashuBsecret");
    let (launched, proven) = (false, true);
    Unpaid { token, agreement: agreement(), task: task(purchase), launched, proven }
}

#[must_use]
pub fn paid(purchase: &Purchase) -> Paid {
    Paid { redeemed: PAID, agreement: agreement(), task: task(purchase), launched: false }
}

/// A refund that waits for its customer.
#[must_use]
pub fn refund() -> Refund {
    Refund {
        amount: Sat(9),
        fee: Sat(1),
        fee_borne: Sat(0),
        made_at: UnixTime(200),
        outcome: RefundOutcome::Waiting(Secret::new("cashuBrefund")),
    }
}

/// An order of this purchase in the state of this name.
#[must_use]
pub fn order_state(purchase: &Purchase, state: State) -> OrderState {
    let expires_at = UnixTime(700);
    let refusal = || Refusal::new(ErrorType::ProvisioningError, "no");
    let sale = || Sale::from(paid(purchase));
    let cause =
        || RefundCause::NotProvisioned { refusal: refusal(), expires_at: None, added: None };
    match state {
        State::Received => unpaid(purchase).undecided(),
        State::Decided => OrderState::Decided(unpaid(purchase)),
        State::Redeeming => OrderState::Redeeming(unpaid(purchase)),
        State::PaymentUnknown => {
            OrderState::PaymentUnknown { unpaid: unpaid(purchase), abandoned: None }
        }
        State::Paid => OrderState::Paid(paid(purchase)),
        State::Provisioning => OrderState::Provisioning { paid: paid(purchase), expires_at: None },
        State::Active => OrderState::Active { paid: paid(purchase), expires_at },
        State::Ended => OrderState::Ended { sale: sale(), expires_at },
        State::Refused => {
            OrderState::Refused { refusal: refusal(), progress: DecisionProgress::Nothing }
        }
        State::RefundPending => {
            OrderState::RefundPending { sale: sale(), cause: cause(), password: None }
        }
        State::Refunded => OrderState::Refunded { sale: sale(), cause: cause(), refund: refund() },
    }
}

/// Nodes with a place for every pod, and each reservation takes this share of their CPU, in thousandths;
/// none where only a quota is known.
#[derive(Clone, Copy)]
pub struct SharedNodes(pub Option<u32>);

impl Capacity for SharedNodes {
    fn check(&self, _: &[Reservation], _: &Demand) -> Result<(), NoCapacity> {
        Ok(())
    }
    fn fits(&self, _: &[Reservation], _: &Tier) -> Result<(), NoCapacity> {
        Ok(())
    }
    fn count(&self, _: &[Reservation], _: &Tier, most: u32) -> u32 {
        most
    }
    fn utilisation(&self) -> Utilisation {
        Utilisation { cpu: 999, memory: 999 }
    }
    fn node_utilisation(&self, reserved: &[Reservation]) -> Option<Utilisation> {
        let pods = u32::try_from(reserved.len()).unwrap_or(u32::MAX);
        self.0.map(|share| Utilisation { cpu: share.saturating_mul(pods), memory: 0 })
    }
}

#[async_trait]
impl CapacitySource for SharedNodes {
    async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        Some(Arc::new(*self))
    }
}

/// What a receipt has of an order on these terms, of which nothing has come.
#[must_use]
pub fn receipt_order(agreement: Agreement) -> ReceiptOrder {
    let Agreement { payment, decision } = agreement;
    ReceiptOrder {
        redeemed: payment.net,
        payment,
        decision,
        image: None,
        stop_terms: None,
        expires_at: None,
        refusal: None,
        end_reason: None,
        served_until: None,
        used: None,
        refund: None,
    }
}

/// The receipt of an answer about this pod, and of all of these orders.
#[must_use]
pub fn receipt(answer: ReceiptKind, pod_name: &str, orders: Vec<ReceiptOrder>) -> ReceiptContent {
    ReceiptContent {
        version: RECEIPT_VERSION,
        answer,
        pod_name: pod_name.to_owned(),
        ssh_host_keys: Vec::new(),
        operator_claims: OPERATOR_CLAIMS.map(str::to_owned).into(),
        orders,
        orders_left_out: 0,
    }
}
