//! Every limit that untrusted input meets, in one table, each with its reason.

use crate::model::units::Seconds;
use std::time::Duration;

/// A request's JSON. A gift wrap over 64 KiB is refused by common relays; that leaves 28 KB of
/// content (PROTOCOLS).
pub const REQUEST_BYTES: usize = 65_536;
/// Nesting of a request's JSON: the messages are flat; deeper is an attack on the parser's stack.
pub const REQUEST_DEPTH: usize = 16;
/// A token: as large as a request can carry.
pub const TOKEN_BYTES: usize = 60_000;
/// Proofs in a token: a mint takes 1 000 inputs at the most (cdk-mintd's default), and each costs a
/// hash to a curve.
pub const TOKEN_PROOFS: usize = 500;
/// A token's amount: ten bitcoin. Wallets split amounts into lists whose length grows with them.
pub const TOKEN_SAT: u64 = 1_000_000_000;
/// An image's name as a customer writes it.
pub const IMAGE_BYTES: usize = 512;
/// A tier's id.
pub const TIER_BYTES: usize = 64;
/// A password; short ones are guessed over SSH within the hour.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=128;
/// A public key line in OpenSSH's form; RSA-8192 fits.
pub const PUBLIC_KEY_BYTES: usize = 4_096;
/// A pod's name or npub in a request.
pub const POD_NAME_BYTES: usize = 128;
/// The longest duration that may be requested, in minutes: ten years.
pub const WANTED_MINUTES: u64 = 5_256_000;
/// The longest grant of a policy, in seconds: ten years. Job deadlines are 32 bits of seconds and
/// multiply by 1e9.
pub const GRANT_SECONDS: u64 = 315_360_000;
/// Orders of one mint that are decided and paid at the same time; the rest wait, so that a mint
/// that hangs holds up its own orders only, and forged tokens hold no more than this many ports.
pub const ORDERS_AT_ONCE: usize = 16;
/// Tokens of one mint that are verified at the same time without an order (`/auth`): paying orders
/// do not wait for them…
pub const VERIFICATIONS_AT_ONCE: usize = 8;
/// …and how long one waits for a free slot.
pub const VERIFY_WAIT: Duration = Duration::from_secs(3);
/// Orders worked or waiting; more are refused, since each holds memory.
pub const ORDERS_WAITING: usize = 1_024;
/// Leases of one customer that a policy is shown.
pub const CUSTOMER_LEASES_SHOWN: usize = 64;
/// How often a pod is moved to another port before the customer is refunded.
pub const LAUNCH_ATTEMPTS: u32 = 3;
/// A lease with less than this left is not extended: it would end while the token is being swapped.
pub const TOP_UP_MARGIN: u64 = 5;
/// How long an order whose payment is unknown keeps its port. After that, money that turns out to
/// be ours is refunded.
pub const PAYMENT_TIMEOUT: Duration = Duration::from_secs(900);
/// How long a paid order waits for an unavailable cluster before it is refunded.
pub const PROVISION_TIMEOUT: Duration = Duration::from_secs(600);
/// First pause before an effect is tried again (an answer, a refund, an unknown payment)…
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// …doubling up to this one, jitter included: soon enough to be useful when a relay or a mint is
/// back, seldom enough not to hammer it.
pub const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// Attempts to send a response in a row; then the order waits for the next resume loop.
pub const DELIVERY_ATTEMPTS: u32 = 5;
/// Responses being sent at the same time to customers who have not paid.
pub const DELIVERIES_AT_ONCE: usize = 64;
/// After this an undeliverable response is not sent any more; `status` still returns its refund.
pub const DELIVERY_TIMEOUT: Seconds = Seconds(14 * 86_400);
/// Refused orders are forgotten after this: messages as old are not served, so none is served
/// twice.
pub const REFUSED_KEPT: Seconds = Seconds(30 * 86_400);
/// How often unfinished orders without a worker are resumed: another replica may have died, or a
/// delivery was postponed.
pub const RESUME_EVERY: Duration = Duration::from_secs(10);
/// How often refunds are swept.
pub const REFUNDS_EVERY: Duration = Duration::from_secs(600);
/// How often an order of another replica is polled while a customer waits for it.
pub const ORDER_POLL: Duration = Duration::from_millis(200);
/// A pod with less than this left is reported as expiring.
pub const EXPIRING: Seconds = Seconds(300);
/// How long ledger and cluster may take to answer a readiness check.
pub const READY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a stop waits for its refund; after that `status` returns it.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is polled.
pub const REFUND_POLL: Duration = Duration::from_millis(100);
/// Pods that are removed at the same time: one that takes long holds up no other.
pub const REMOVALS_AT_ONCE: usize = 16;
/// How often leases are compared with the cluster besides its own events.
pub const RECONCILE_EVERY: Duration = Duration::from_secs(15);
/// A pod that should have ended so long ago is removed by us: Kubernetes has missed its deadline,
/// or never had one.
pub const OVERDUE: u64 = 60;
/// An object of ours that the ledger does not know is left alone for so long: it may be being made
/// right now.
pub const ORPHAN_AGE: Duration = Duration::from_secs(120);
