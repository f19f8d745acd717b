//! Every limit that untrusted input meets, in one table, each with its reason.

use crate::model::units::Seconds;
use std::time::Duration;

/// A request's JSON. Common relays refuse a gift wrap over 64 KiB, which leaves 28 KB of content.
pub const REQUEST_BYTES: usize = 65_536;
/// Nesting of a request's JSON: the messages are flat; deeper is an attack on the parser's stack.
pub const REQUEST_DEPTH: usize = 16;
/// The content of a receipt. A gift wrap has room for an answer of 28 KB, in which it is escaped
/// twice.
pub const RECEIPT_BYTES: usize = 8_192;
/// The rest of an answer that has a receipt. A longer one, with many refunds, has none.
pub const RECEIPT_BESIDE_BYTES: usize = 8_192;
/// Orders in the receipt of a stop, the newest. Each has a kilobyte at least.
pub const RECEIPT_ORDERS: usize = 8;
/// A token: as large as a request can carry.
pub const TOKEN_BYTES: usize = 60_000;
/// Proofs in a token: a mint takes 1 000 inputs at the most (cdk-mintd's default), and each costs a
/// hash to a curve.
pub const TOKEN_PROOFS: usize = 500;
/// Keysets of a token: the keys of each are requested from its mint and kept. A mint that rotates
/// them each month has so many in a year.
pub const TOKEN_KEYSETS: usize = 16;
/// A proof's secret. cdk's and Nutshell's mints refuse longer ones, so no token that can be spent has
/// one; a lock (NUT-10) to eleven keys fits.
pub const SECRET_BYTES: usize = 1_024;
/// How long a lock must still hold after which the sender could take the token back: longer than an
/// order waits for its turn and a payment whose answer was lost is asked for.
pub const TOKEN_LOCK_MARGIN: Seconds = Seconds(1_800);
/// A token's amount: ten bitcoin. Wallets split amounts into lists whose length grows with them.
pub const TOKEN_SAT: u64 = 1_000_000_000;
/// Leases that are read at once for a page of the operator's search…
pub const LEASE_SEARCH_PAGE: u32 = 500;
/// …and how often at the most: a search that finds nothing reads 10 000, and goes on by its next page.
pub const LEASE_SEARCH_PAGES: u32 = 20;
/// An image's name, as a customer writes it or as a policy admits it.
pub const IMAGE_BYTES: usize = 512;
/// A tier's id.
pub const TIER_BYTES: usize = 64;
/// A tier as a customer requests it: its id, and what a policy takes after it. A coupon with a
/// signature fits.
pub const REQUESTED_TIER_BYTES: usize = 192;
/// A password; short ones are guessed over SSH within the hour.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=128;
/// A public key line in OpenSSH's form; RSA-8192 fits.
pub const PUBLIC_KEY_BYTES: usize = 4_096;
/// Host keys of one pod that are kept: one of each kind that there is, and room for more.
pub const HOST_KEYS: usize = 8;
/// A host name that customers log in to, as DNS limits it…
pub const HOST_NAME_BYTES: usize = 253;
/// …and each of its labels.
pub const HOST_LABEL_BYTES: usize = 63;
/// A pod's name or npub in a request.
pub const POD_NAME_BYTES: usize = 128;
/// The uid of a pod: those of Kubernetes are UUIDs.
pub const POD_UID_BYTES: usize = 64;
/// The id of a message: room for a hash in hex, and for what tells its transports and repetitions
/// apart.
pub const MESSAGE_ID_BYTES: usize = 256;
/// The longest duration that may be requested, in minutes: ten years.
pub const WANTED_MINUTES: u64 = 5_256_000;
/// The longest grant of a policy, in seconds: ten years. Job deadlines are 32 bits of seconds and
/// multiply by 1e9.
pub const GRANT_SECONDS: u64 = 315_360_000;
/// Orders of one mint that are decided and paid at the same time; the rest wait, so that a mint
/// that hangs holds up its own orders only, and forged tokens hold no more than this many ports…
pub const ORDERS_AT_ONCE: usize = 16;
/// …and of these, of tokens without valid DLEQ proofs: whoever invents tokens leaves slots, and
/// requests to the mint, for those that cannot be invented.
pub const UNPROVEN_AT_ONCE: usize = 4;
/// Orders of one mint with proven tokens, which it has called unspent, that have reserved what they
/// need and are not paid for: so many beside the slots, of which [`ORDERS_AT_ONCE`] go on at the same
/// time. Whoever spends such tokens elsewhere meanwhile keeps no more places from others, for seconds.
pub const RESERVED_AT_MINT: usize = 64;
/// …and so many after such a token was spent elsewhere: who does so again and again gains little, and
/// who does it once delays few.
pub const RESERVED_AFTER_DOUBLE_SPEND: usize = 8;
/// How long that is remembered.
pub const DOUBLE_SPEND_MEMORY: Duration = Duration::from_secs(600);
/// How long an order with a proven token waits for those without that hold the last places in the
/// cluster: as long as a mint usually takes to swap them, or to refuse them with its reasons.
pub const ROOM_WAIT: Duration = Duration::from_secs(10);
/// Orders of one network, or of one customer, that are not paid for yet: an office behind one
/// address fits, and a flood from there has no more.
pub const ORDERS_OF_ONE: usize = 32;
/// Tokens of one mint that are verified at the same time without an order (`/auth`): paying orders
/// do not wait for them…
pub const VERIFICATIONS_AT_ONCE: usize = 8;
/// …and how long one waits for a free slot.
pub const VERIFY_WAIT: Duration = Duration::from_secs(3);
/// Orders of one mint that are not paid for yet, with proven tokens and without each; more are
/// refused, since each holds memory.
pub const ORDERS_WAITING: usize = 512;
/// What those of all mints hold in memory, with proven tokens and without each. The first
/// [`ORDERS_AT_ONCE`] of each mint are not counted: a crowd at one mint takes no place at another…
pub const ORDERS_WAITING_BYTES: usize = 64 << 20;
/// …an order without its token: the image, the login, addresses, and the task…
pub const ORDER_BYTES: usize = 8 << 10;
/// …and, besides the token's text, each of its proofs: its Y in hex, and what that is kept in.
pub const ORDER_PROOF_BYTES: usize = 128;
/// Payments of one mint whose outcome is unknown and that keep their port…
pub const UNKNOWN_PORTS_AT_MINT: usize = 16;
/// …and of all mints: few of the ports that there are.
pub const UNKNOWN_PORTS: usize = 64;
/// With so many unknown payments at a mint, another one whose token is not proven is begun there
/// only for a customer who has a pod…
pub const UNKNOWN_UNPROVEN: usize = 32;
/// …with so many, not for these customers either…
pub const UNKNOWN_OF_TENANTS: usize = 64;
/// …nor for one who has so many unknown payments already: to use up the places at a mint, a sender
/// needs one paid pod for every two of them…
pub const UNKNOWN_OF_ONE: usize = 2;
/// …and with so many no payment is begun at all: each holds memory, and a row that is kept until
/// the mint answers.
pub const UNKNOWN_AT_MINT: usize = 128;
/// Between two repetitions of unknown payments at one mint…
pub const UNKNOWN_RETRY_AT_MINT: Duration = Duration::from_secs(1);
/// …and between two at all.
pub const UNKNOWN_RETRY: Duration = Duration::from_millis(250);
/// Leases of one customer that a policy is shown.
pub const CUSTOMER_LEASES_SHOWN: usize = 64;
/// Orders of one customer that are counted for a policy.
pub const HISTORY_ORDERS: u32 = 100;
/// For how long an order counts in the sums of its customer, in seconds.
pub const HISTORY_DAY: u64 = 86_400;
/// How often a pod is moved to another port before the customer is refunded.
pub const LAUNCH_ATTEMPTS: u32 = 3;
/// A lease with less than this left is not extended: it would end while the token is being swapped.
pub const TOP_UP_MARGIN: u64 = 5;
/// Orders that extend one lease. Each is read with every status of the pod, and when the pod is stopped it is
/// paid back by a swap and a token of its own: many small ones cost their customer next to nothing…
pub const TOP_UPS_OF_LEASE: usize = 1_000;
/// …and of these, those of others than the lease's customer together: the rest is for them.
pub const TOP_UPS_OF_OTHERS: usize = TOP_UPS_OF_LEASE / 2;
/// Refunds of ended leases at one mint at the same time: the rest of its requests is for those who pay.
pub const ENDED_REFUNDS: usize = 2;
/// Pods whose image was named by the customer and has never started here: at most one in so many of
/// all places may be launching one at the same time. Customers who name images that never start get
/// their money back, and must not occupy more than this meanwhile…
pub const FIRST_STARTS_PART: u32 = 4;
/// …of this many images at most…
pub const FIRST_STARTS: usize = 16;
/// …an image no longer counts as one of these after this time, in which most images are pulled and
/// started: images of slow registries, ordered under many keys, must not keep others from being
/// tried…
pub const FIRST_START_PLACE_KEPT: Duration = Duration::from_secs(30);
/// …of one image…
pub const FIRST_STARTS_OF_IMAGE: usize = 4;
/// …and of one customer…
pub const FIRST_STARTS_OF_ONE: usize = 4;
/// …each of these at most one in so many, also where few may be launching: the rest of a small
/// cluster's is for other images and customers.
pub const FIRST_STARTS_SHARE: usize = 4;
/// Images that are known to start, and as many that are known not to: a name of half a KiB each.
pub const IMAGES_KNOWN: usize = 1_000;
/// How long an image that has started counts as one that does: its registry may give another one.
pub const IMAGE_STARTED_KEPT: Duration = Duration::from_secs(86_400);
/// For how long an image is refused that its node could not pull or start: registries fail now and
/// then…
pub const IMAGE_FAILED_FIRST: Duration = Duration::from_secs(60);
/// …doubling up to this.
pub const IMAGE_FAILED_LONGEST: Duration = Duration::from_secs(900);
/// Pods of one customer that run before they are paid for (`CAPTURE=ready`)…
pub const UNPAID_LAUNCHES_OF_ONE: usize = 1;
/// …and of all; with so many, the next order is paid for first. Whoever spends their token elsewhere
/// meanwhile has had no login, and cost no more than this.
pub const UNPAID_LAUNCHES: usize = 8;
/// Whoever had one that came to nothing pays first for so long…
pub const UNPAID_FAILURE_KEPT: Duration = Duration::from_secs(600);
/// …as long as no more customers and proofs than this have had one since.
pub const UNPAID_FAILURES: usize = 10_000;
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
/// Responses being sent at the same time to customers who have not paid…
pub const DELIVERIES_AT_ONCE: usize = 64;
/// …and those that are kept in memory until they are, or for their next attempt: a slow relay must
/// not have refusals pile up. Further ones wait in the ledger.
pub const DELIVERIES_WAITING: usize = 1_024;
/// After this an undeliverable response is not sent any more; `status` still returns its refund.
pub const DELIVERY_TIMEOUT: Seconds = Seconds(14 * 86_400);
/// Refused orders that are kept whole, the newest: policies are compared on them.
pub const REFUSED_WHOLE: u32 = 1_000;
/// Refused orders that are kept at all; of the others only what it takes to answer again. And as many
/// failed operations of the wallet. Whoever pays nothing fills no disk.
pub const REFUSED_MOST: u32 = 20_000;
/// How many refusals there are between two looks at these limits.
pub const REFUSED_CHECK_EVERY: u32 = 256;
/// What must be free on the disks of ledger and wallet before a new order is taken: paid orders,
/// refunds and their logs need it.
pub const DISK_RESERVE: u64 = 64 << 20;
/// Refused orders are forgotten after this: messages as old are not served, so none is served
/// twice.
pub const REFUSED_KEPT: Seconds = Seconds(30 * 86_400);
/// Messages that were served are remembered for this long: relays send those of two days again at
/// each subscription, and more after the service was down…
pub const MESSAGES_KEPT: Seconds = Seconds(30 * 86_400);
/// …and so many of them, the newest, at less than 400 bytes each: a flood from throw-away keys fills
/// no disk. When as many come within the two days, the oldest are served again if a relay sends
/// them again, and nobody is charged twice for that: an order is found by its message and gets the
/// same answer; if it was refused and is forgotten too, its token was not taken, and it is decided
/// anew; all else is answered once more.
pub const MESSAGES_MOST: u32 = 100_000;
/// How many messages are completed between two looks at these limits.
pub const MESSAGES_CHECK_EVERY: u32 = 256;
/// How often unfinished orders without a worker are resumed: another replica may have died, or a
/// delivery was postponed.
pub const RESUME_EVERY: Duration = Duration::from_secs(10);
/// How often refunds are swept.
pub const REFUNDS_EVERY: Duration = Duration::from_secs(600);
/// How often an order of another replica is polled while a customer waits for it.
pub const ORDER_POLL: Duration = Duration::from_millis(200);
/// A pod with less than this left is reported as expiring.
pub const EXPIRING: Seconds = Seconds(300);
/// Notices before the end of each pod that an operator may configure: each is a row that is written.
pub const END_NOTICES: usize = 8;
/// Customers of one pod who get its notices: whoever bought it, and those who have paid for it last.
pub const NOTICES_OF_POD: usize = 4;
/// Notices that are being sent at the same time: many pods may end in the same second, and no paid
/// order waits for them.
pub const NOTICES_AT_ONCE: usize = 16;
/// How often the clock is looked at while a notice is waited for: where the machine slept, or its
/// clock was set, timers are late.
pub const CLOCK_CHECK: Duration = Duration::from_secs(5);
/// How long the list of images is published as the policy gave it: it may depend on what is leased,
/// and whoever reads offers has paid nothing.
pub const IMAGE_LIST_KEPT: Duration = Duration::from_secs(60);
/// How long it is known how an image's own program is, or that a pod was to prove its host keys: the
/// cluster lists pods to find it out…
pub const POD_CACHE_KEPT: Duration = Duration::from_secs(1);
/// …and of how many pods it is known.
pub const POD_CACHE: usize = 1_000;
/// Attempts to let a pod's terminals show its end, and the longest pause between them: the last of
/// the default notices is a minute before the end.
pub const SHOW_END_ATTEMPTS: usize = 8;
pub const SHOW_END_PAUSE: Duration = Duration::from_secs(30);
/// Pods that are looked at after a start, at the same time, whether they show their ends.
pub const ENDS_SHOWN_AT_ONCE: usize = 8;

/// How long a read of the ledger may take that many wait for.
pub const SHARED_READ: Duration = Duration::from_secs(30);
/// How long ledger and cluster may take to answer a readiness check.
pub const READY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a stop waits for its refund; after that `status` returns it.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is polled.
pub const REFUND_POLL: Duration = Duration::from_millis(100);
/// Pods that are removed at the same time: one that takes long holds up no other.
pub const REMOVALS_AT_ONCE: usize = 16;
/// Pods in place of others whose host keys are found out at the same time: one that does not prove
/// them holds up few of them, and no other event.
pub const REPLACEMENTS_AT_ONCE: usize = 16;
/// Further attempts to find them out where the cluster or the ledger cannot be reached, and the longest
/// pause between them: some minutes, in which either is updated.
pub const REPLACEMENT_RETRIES: usize = 12;
pub const REPLACEMENT_PAUSE: Duration = Duration::from_secs(60);
/// How often leases are compared with the cluster besides its own events.
pub const RECONCILE_EVERY: Duration = Duration::from_secs(15);
/// A pod that should have ended so long ago is removed by us: Kubernetes has missed its deadline,
/// or never had one.
pub const OVERDUE: u64 = 60;
/// How long a new order waits for the probe pod under way: it takes seconds where its image is on
/// the node. After that the order is refused, and costs nothing.
pub const PROBE_WAIT: Duration = Duration::from_secs(30);
/// Orders without proven tokens that wait for a probe, of all mints: few beside the places of their
/// lane ([`ORDERS_WAITING`]), which top-ups use too; the others are refused at once.
pub const PROBE_WAITS: usize = 64;
/// How long a price waits until it is known whether policies that were published a moment ago make the
/// pod that was probed: it takes some calls of them.
pub const PROBE_COMPARE: Duration = Duration::from_secs(2);
/// How long a probe pod may live once it is ready: it is removed at once, unless we die.
pub const PROBE_LIFE: Seconds = Seconds(60);
/// How long after a probe that found something that may pass there is another one.
pub const PROBE_AGAIN: Duration = Duration::from_secs(60);
/// …and after one that found what nodes seldom change: two pods that each take half a minute.
pub const PROBE_SELDOM: Duration = Duration::from_secs(3_600);
/// An object of ours that the ledger does not know is left alone for so long: it may be being made
/// right now.
pub const ORPHAN_AGE: Duration = Duration::from_secs(120);
/// How often such objects are looked for: every pod is listed for it. Each is removed so long after it
/// has that age, at the latest.
pub const ORPHANS_EVERY: Duration = ORPHAN_AGE;
