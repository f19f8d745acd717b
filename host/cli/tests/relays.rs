//! Relays that customers name: slow ones, silent ones, those that want authentication. Each attack
//! is a bounded load, and prints its figures. `RELAY_MESSAGES` is how long the longest one is.
#![cfg(test)]

mod support;

use futures::{SinkExt, StreamExt};
use nostr_sdk::{
    Client, ClientMessage, Event, EventBuilder, Filter, JsonUtil, Keys, Kind, RelayMessage,
    RelayUrl, Tag, Timestamp,
};
use paygress::sandbox::Sandbox;
use paygress_core::backend::store::OrderStore;
use paygress_nostr::gift_wrap::{gift_wrap, unwrap};
use paygress_sandbox::Relay;
use paygress_store::SqlStore;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use support::customer::{Buyer, Running, TIMEOUT, until};
use tokio_tungstenite::tungstenite::Message;

/// Runs a test with nothing else in the process, and until nothing of it is left: open files and
/// memory are the whole process's.
fn alone(test: impl Future<Output = ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

/// A client on the service's relay that sends for many customers.
struct Crowd {
    client: Client,
    service: nostr_sdk::PublicKey,
}

impl Crowd {
    async fn new(sandbox: &Sandbox) -> Self {
        let client = client_on(&sandbox.relay.url().await, Keys::generate()).await;
        Self { client, service: sandbox.config.keys.public_key() }
    }

    async fn publish(&self, event: &Event) {
        assert!(!self.client.send_event(event).await.unwrap().success.is_empty());
    }

    /// A new customer, who reads at these relays and sends this message.
    async fn send(&self, inbox: impl IntoIterator<Item = RelayUrl>, text: &str) -> Keys {
        let keys = Keys::generate();
        self.read_at(&keys, inbox, Timestamp::now()).await;
        self.send_as(&keys, text).await;
        keys
    }

    /// From this time on the customer reads at these relays.
    async fn read_at(
        &self,
        keys: &Keys,
        inbox: impl IntoIterator<Item = RelayUrl>,
        since: Timestamp,
    ) {
        let list = EventBuilder::new(Kind::InboxRelays, "").tags(inbox.into_iter().map(Tag::relay));
        let list = list.custom_created_at(since).sign_with_keys(keys).unwrap();
        self.publish(&list).await;
    }

    async fn send_as(&self, keys: &Keys, text: &str) {
        self.publish(&gift_wrap(keys, &self.service, text, None).unwrap().1).await;
    }
}

async fn client_on(relay: &RelayUrl, keys: Keys) -> Client {
    let client = Client::builder().signer(keys).build();
    client.add_relay(relay).await.unwrap();
    client.connect().await;
    client.wait_for_connection(TIMEOUT).await;
    client
}

/// The responses to this customer on a relay.
async fn answers(client: &Client, keys: &Keys) -> Vec<Value> {
    let filter = Filter::new().kind(Kind::GiftWrap).pubkey(keys.public_key());
    let wraps = client.fetch_events(filter, Duration::from_secs(5)).await.unwrap();
    wraps
        .iter()
        .filter_map(|wrap| serde_json::from_str(&unwrap(keys, wrap).ok()?.text).ok())
        .collect()
}

async fn login(client: &Client, keys: &Keys) -> Value {
    until("the login did not come", async || {
        answers(client, keys).await.into_iter().find(|answer| answer["ssh_port"].is_number())
    })
    .await
}

/// Hosts that take connections and say nothing: nobody accepts them.
struct SilentHosts(Vec<TcpListener>);

impl SilentHosts {
    fn start(count: u8) -> Self {
        let hosts =
            (1..=count).map(|host| TcpListener::bind((Ipv4Addr::new(127, 0, 9, host), 0)).unwrap());
        Self(hosts.collect())
    }

    /// Three relays that nobody else names, each on another host.
    fn relays(&self, customer: usize) -> impl Iterator<Item = RelayUrl> {
        (0..3).map(move |n| {
            let number = customer.wrapping_mul(3).wrapping_add(n);
            let host = &self.0[number.checked_rem(self.0.len()).unwrap()];
            RelayUrl::parse(&format!("ws://{}/{customer}/{n}", host.local_addr().unwrap())).unwrap()
        })
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1_024
}

/// What is allocated and not freed, in KiB.
fn heap_kib() -> usize {
    // SAFETY: it takes nothing, and reads the allocator's figures under its locks.
    #[allow(unsafe_code)]
    let heap = unsafe { libc::mallinfo2() };
    heap.uordblks.saturating_add(heap.hblkhd) / 1_024
}

/// 600 take a few seconds, and a visit that leaves its memory or its sockets behind shows at a
/// hundred; or as many as `RELAY_MESSAGES` says: `cargo xtask test --whole` sends 10,000.
fn messages() -> usize {
    std::env::var("RELAY_MESSAGES").map_or(600, |messages| messages.parse().expect("a number"))
}

/// What the relay, which is in this process too, keeps of each message, in KiB: list, wrap and answer.
const STORED_KIB: usize = 16;
/// What the heap may grow by beside that: caches of databases, and customers who are counted.
const HEAP_KIB: usize = 16 << 10;

/// What the memory may grow by, in MiB. A visit that was not closed kept 770 KiB.
fn memory_limit(messages: usize) -> usize {
    64_usize.max(messages.saturating_mul(STORED_KIB) / 1_024)
}

#[test]
fn messages_that_name_silent_relays_leave_no_socket_and_no_memory_behind() {
    alone(async {
        let messages = messages();
        let sandbox = Sandbox::new(&[], "").await.unwrap();
        let _running = Running::start(sandbox.app().await.unwrap());
        let (crowd, hosts) = (Crowd::new(&sandbox).await, SilentHosts::start(24));
        // Everything that is made once is there.
        let first = crowd.send([], "hi").await;
        until("no answer", async || answers(&crowd.client, &first).await.pop()).await;
        let (files, memory, heap) = (open_files(), resident_mib(), heap_kib());
        let (mut most, begun) = (files, Instant::now());
        for n in 0..messages {
            crowd.send(hosts.relays(n), "hi").await;
            most = most.max(open_files());
        }
        let (sent, last) = (begun.elapsed(), crowd.send([], "hi").await);
        until("no answer", async || answers(&crowd.client, &last).await.pop()).await;
        most = most.max(open_files());
        until("sockets are left open", async || (open_files() <= files).then_some(())).await;
        let grown = heap_kib().saturating_sub(heap);
        println!(
            "{messages} messages naming {} silent relays, in {:.1} s: open files {files}, at most {most}, then {}; memory {memory} MiB, then {} MiB; heap {grown} KiB more",
            messages * 3,
            sent.as_secs_f32(),
            open_files(),
            resident_mib()
        );
        // 32 visits that nobody has paid for, and a few files of the databases.
        assert!(most > files + 8 && most <= files + 48, "{files} files, then {most}");
        let most = memory + memory_limit(messages);
        assert!(resident_mib() < most, "{memory} MiB, then {} MiB", resident_mib());
        assert!(grown < messages * STORED_KIB + HEAP_KIB, "the heap has grown by {grown} KiB");
    });
}

/// A customer with a pod.
struct Owner {
    keys: Keys,
    token: String,
    pod: String,
}

/// Where customers read.
type Inbox = Box<dyn Fn(usize) -> Vec<RelayUrl> + Send>;

/// At slow relays, each at others.
fn slow_relays(hosts: SilentHosts) -> Inbox {
    Box::new(move |customer| hosts.relays(customer).collect())
}

/// At the service's relay only.
fn no_relays() -> Inbox {
    Box::new(|_| Vec::new())
}

/// Many customers who send, one after the other, until this is dropped.
struct Attack {
    sent: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Attack {
    /// Messages that are no orders, and orders that are refused.
    fn start(crowd: Arc<Crowd>, inbox: Inbox, mut tokens: Vec<String>) -> Self {
        let sent = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            for n in 0.. {
                let token = if n % 4 == 0 { tokens.pop() } else { None };
                let refused = token.map(|token| json!({"cashu_token": token, "tier": "galactic"}));
                let text = refused.map_or_else(|| "hi".to_owned(), |order| order.to_string());
                crowd.send(inbox(n), &text).await;
                counter.store(n, Ordering::SeqCst);
            }
        });
        Self { sent, task }
    }

    /// Owners of pods who send for the status and for the login of theirs, which is answered
    /// without a further payment, each time at other relays: the first list is of this time, and
    /// each of the others a second later.
    fn of_owners(crowd: Arc<Crowd>, inbox: Inbox, owners: Arc<Vec<Owner>>, first: u64) -> Self {
        let sent = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            for ((n, since), owner) in (0..).zip(first..).zip(owners.iter().cycle()) {
                let since = Timestamp::from_secs(since);
                crowd.read_at(&owner.keys, inbox(n), since).await;
                // With another field it is another message.
                let status = json!({"type": "status", "pod_name": owner.pod, "n": n});
                let login = json!({"cashu_token": owner.token, "n": n});
                let request = if n % 2 == 0 { status } else { login };
                crowd.send_as(&owner.keys, &request.to_string()).await;
                counter.store(n, Ordering::SeqCst);
            }
        });
        Self { sent, task }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long two logins take: of a buyer at the service's relay, and of one who reads elsewhere,
/// beside these relays.
async fn logins(
    buyer: &Buyer,
    crowd: &Crowd,
    beside: impl IntoIterator<Item = RelayUrl>,
) -> [Duration; 2] {
    let (here, there) = (buyer.token(2).await, buyer.token(2).await);
    let begun = Instant::now();
    let bought = buyer.ask(json!({"cashu_token": here})).await;
    let at_the_service = begun.elapsed();
    assert!(bought["ssh_port"].is_number(), "{bought}");
    let elsewhere = Relay::start().await.unwrap();
    let inbox = beside.into_iter().chain([elsewhere.url().await]);
    let begun = Instant::now();
    let keys = crowd.send(inbox, &there).await;
    let reader = client_on(&elsewhere.url().await, keys.clone()).await;
    login(&reader, &keys).await;
    [at_the_service, begun.elapsed()]
}

/// New customers, who read at these relays, buy at the same time: each gets a login.
async fn all_get_logins(buyer: &Buyer, crowd: &Crowd, inboxes: Vec<Vec<RelayUrl>>) {
    let mut customers = Vec::new();
    for inbox in inboxes {
        customers.push(crowd.send(inbox, &buyer.token(2).await).await);
    }
    for keys in &customers {
        login(&crowd.client, keys).await;
    }
}

/// So much longer than twice beside as many messages, on the same machine, that name no relay.
const SLOW_RELAYS_COST: Duration = Duration::from_secs(2);
/// And never longer than this, in a build that is not optimised. `docs/testing.md` has the goal for
/// a release build, and how to measure one.
const PAID_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_paid_answer_does_not_wait_for_slow_relays() {
    alone(async {
        let sandbox = Sandbox::new(&[], "").await.unwrap();
        let _running = Running::start(sandbox.app().await.unwrap());
        let crowd = Arc::new(Crowd::new(&sandbox).await);
        let buyer = Buyer::new(&sandbox).await;
        let mut tokens = [Vec::new(), Vec::new()];
        for tokens in &mut tokens {
            for _ in 0..40 {
                tokens.push(buyer.token(2).await);
            }
        }
        let [few, many] = tokens;
        let flood = Attack::start(Arc::clone(&crowd), no_relays(), few);
        until("nothing is sent", async || (flood.sent() >= 160).then_some(())).await;
        let flooded = logins(&buyer, &crowd, []).await;
        drop(flood);

        let (files, hosts) = (open_files(), SilentHosts::start(24));
        let beside: Vec<RelayUrl> = hosts.relays(1_000_000).take(2).collect();
        let inboxes: Vec<Vec<RelayUrl>> =
            (2_000_000..2_000_020).map(|customer| hosts.relays(customer).collect()).collect();
        let attack = Attack::start(Arc::clone(&crowd), slow_relays(hosts), many);
        until("no slow relay is visited", async || {
            (attack.sent() >= 160 && open_files() > files + 16).then_some(())
        })
        .await;
        let attacked = logins(&buyer, &crowd, beside).await;
        println!(
            "logins, at the service's relay and at the customer's own, under {} messages naming slow relays: {attacked:.2?}; naming none: {flooded:.2?}",
            attack.sent(),
        );
        assert!(open_files() > files + 8, "no slow relay is visited any more");
        for (attacked, flooded) in attacked.into_iter().zip(flooded) {
            assert!(attacked < 2 * flooded + SLOW_RELAYS_COST, "{attacked:?}, {flooded:?}");
            assert!(attacked < PAID_WITHIN, "{attacked:?}");
        }
        all_get_logins(&buyer, &crowd, inboxes).await;
    });
}

#[test]
fn a_login_does_not_wait_for_answers_that_owners_request_again_and_again() {
    alone(async {
        const OWNERS: usize = 13;
        let served = Served::start().await;
        let (crowd, buyer, mut owners) = (Arc::new(served.crowd), served.buyer, Vec::new());
        for _ in 0..OWNERS {
            let token = buyer.token(2).await;
            // The login itself is not sent to slow relays.
            let keys = crowd.send([], &token).await;
            let login = login(&crowd.client, &keys).await;
            owners.push(Owner { keys, token, pod: login["pod_name"].as_str().unwrap().to_owned() });
        }
        let owners = Arc::new(owners);
        let sent = OWNERS * 4;
        // A list replaces an older one only.
        let lists = Timestamp::now().as_secs().saturating_add(1);
        let flood = Attack::of_owners(Arc::clone(&crowd), no_relays(), Arc::clone(&owners), lists);
        until("nothing is sent", async || (flood.sent() >= sent).then_some(())).await;
        let [_, flooded] = logins(&buyer, &crowd, []).await;
        // And the one that is under way.
        let flooding = flood.sent().saturating_add(2);
        drop(flood);

        let lists = lists.saturating_add(u64::try_from(flooding).unwrap());
        let files = open_files();
        let slow = slow_relays(SilentHosts::start(24));
        let attack = Attack::of_owners(Arc::clone(&crowd), slow, owners, lists);
        // Each owner may have six visits at once: more than there are slots.
        until("no slow relay is visited", async || {
            (attack.sent() >= sent && open_files() > files + 16).then_some(())
        })
        .await;
        let [_, attacked] = logins(&buyer, &crowd, []).await;
        println!(
            "a login at its customer's own relay under {} requests of {OWNERS} owners at slow relays: {attacked:.2?}; at none: {flooded:.2?}",
            attack.sent()
        );
        assert!(attacked < 2 * flooded + SLOW_RELAYS_COST, "{attacked:?}, {flooded:?}");
    });
}

/// A service, its ledger and its customers.
struct Served {
    crowd: Crowd,
    buyer: Buyer,
    ledger: Arc<SqlStore>,
    _running: Running,
    _sandbox: Sandbox,
}

impl Served {
    async fn start() -> Self {
        let sandbox = Sandbox::new(&[], "").await.unwrap();
        let app = sandbox.app().await.unwrap();
        let ledger = Arc::clone(&app.ledger);
        let _running = Running::start(app);
        let (crowd, buyer) = (Crowd::new(&sandbox).await, Buyer::new(&sandbox).await);
        Self { crowd, buyer, ledger, _running, _sandbox: sandbox }
    }
}

async fn until_delivered(ledger: &SqlStore) {
    until("the answer does not count as delivered", async || {
        ledger.unfinished().await.unwrap().is_empty().then_some(())
    })
    .await;
}

#[test]
fn a_relay_that_wants_authentication_for_writing_gets_the_answer() {
    alone(async {
        let Served { crowd, buyer, ledger, .. } = &Served::start().await;
        let inbox = Relay::start_guarded().await.unwrap();
        let keys = crowd.send([inbox.url().await], &buyer.token(5).await).await;
        let reader = client_on(&inbox.url().await, keys.clone()).await;
        login(&reader, &keys).await;
        until_delivered(ledger).await;
    });
}

/// A relay that wants authentication, and refuses it until it is switched.
struct RefusingRelay {
    url: RelayUrl,
    refused: Arc<AtomicUsize>,
    takes: Arc<AtomicBool>,
}

impl RefusingRelay {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (refused, takes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counter, switch) = (Arc::clone(&refused), Arc::clone(&takes));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counter, switch) = (Arc::clone(&counter), Arc::clone(&switch));
                tokio::spawn(Self::serve(stream, counter, switch));
            }
        });
        Self { url: RelayUrl::parse(&url).unwrap(), refused, takes }
    }

    async fn serve(
        stream: tokio::net::TcpStream,
        refused: Arc<AtomicUsize>,
        takes: Arc<AtomicBool>,
    ) {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let challenge = RelayMessage::Auth { challenge: Cow::Borrowed("challenge") };
        socket.send(Message::text(challenge.as_json())).await.unwrap();
        while let Some(Ok(Message::Text(text))) = socket.next().await {
            let takes = takes.load(Ordering::SeqCst);
            let (event_id, message) = match ClientMessage::from_json(text.as_bytes()).unwrap() {
                ClientMessage::Event(event) => (event.id, "auth-required: who are you?"),
                ClientMessage::Auth(event) => {
                    refused.fetch_add(1, Ordering::SeqCst);
                    (event.id, "restricted: not you")
                }
                other => panic!("unexpected: {other:?}"),
            };
            let message = Cow::Borrowed(message);
            let answer = RelayMessage::Ok { event_id, status: takes, message };
            if socket.send(Message::text(answer.as_json())).await.is_err() {
                break;
            }
        }
    }
}

#[test]
fn an_answer_that_the_customers_relay_refuses_is_not_delivered_until_it_takes_it() {
    alone(async {
        let Served { crowd, buyer, ledger, .. } = &Served::start().await;
        let inbox = RefusingRelay::start().await;
        let keys = crowd.send([inbox.url.clone()], &buyer.token(5).await).await;
        // Our own relay has it at once…
        login(&crowd.client, &keys).await;
        // …and the customer's is tried again, while ours is left in peace.
        until("the relay is not tried again", async || {
            (inbox.refused.load(Ordering::SeqCst) >= 2).then_some(())
        })
        .await;
        let waiting = ledger.unfinished().await.unwrap();
        assert!(matches!(waiting.as_slice(), [order] if !order.delivered), "{waiting:?}");
        assert_eq!(answers(&crowd.client, &keys).await.len(), 1);
        inbox.takes.store(true, Ordering::SeqCst);
        until_delivered(ledger).await;
    });
}
