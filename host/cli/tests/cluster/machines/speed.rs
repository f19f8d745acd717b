//! How long it takes from a message to a login, with the images present.

use super::{LoginKey, allow_server, configuration, start, succeeded};
use crate::goal::Goal;
use crate::support::testbed::{CLUSTER, Testbed, is_left_out, remove_pods};
use paygress_core::protocol::RequestBody;
use paygress_nostr::client::Client;
use paygress_nostr::{Keys, PublicKey, RelayUrl};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// A whole core, as the default tiers have: with a tenth of one, what starts in the pod is slowed
/// down by its limit.
const TIER: &str = "id = \"core\", cpu_millicores = 1000, memory_mib = 128";
const HEADER: &str = "\
from a message to              its answer              a login
                                 median        p95       median        p95";
/// Loose: the testbed shares its cores with other programs.
const MEDIAN: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(60);

/// What an order has taken, from its message on.
struct Times {
    answered: Duration,
    logged_in: Duration,
}

/// The customer of this figure has a client that is connected: the start of `node` is not in it.
struct ConnectedBuyer<'a> {
    testbed: &'a Testbed,
    runtime: &'a Runtime,
    client: Client,
    service: PublicKey,
}

impl<'a> ConnectedBuyer<'a> {
    fn new(testbed: &'a Testbed, runtime: &'a Runtime) -> Self {
        let relays = vec![RelayUrl::parse(testbed.relay()).unwrap()];
        let client = runtime.block_on(Client::connect(Keys::generate(), relays)).unwrap();
        let service = PublicKey::parse(testbed.npub()).unwrap();
        Self { testbed, runtime, client, service }
    }

    fn buy(&self) -> Times {
        // The node has room for one at a time.
        remove_pods();
        let key = LoginKey::new();
        // The token is made by cashu-ts.
        let order = key.order(&self.testbed.token(25), &json!({}));
        let request: RequestBody = serde_json::from_value(order).unwrap();
        let begun = Instant::now();
        let answer = self.client.ask(self.service, &request, ANSWER, |_| ());
        let answer = self.runtime.block_on(answer).unwrap();
        let answered = begun.elapsed();
        let answer: Value = serde_json::from_str(answer.text.expose()).unwrap();
        login(key, answer);
        Times { answered, logged_in: begun.elapsed() }
    }
}

/// With the answer's host keys; images with a server of their own report none.
fn login(key: LoginKey, mut answer: Value) {
    let is_known = answer["known_hosts"].is_string();
    if !is_known {
        answer["known_hosts"] = json!("");
    }
    let check = if is_known { "yes" } else { "no" };
    let machine = key.machine(answer);
    let mut ssh = machine.client("ssh");
    ssh.arg("-o").arg(format!("StrictHostKeyChecking={check}")).args(["pod", "true"]);
    succeeded("the first login", ssh.output().unwrap());
}

/// How many orders are measured. CI finds out whether it works.
fn orders() -> usize {
    if std::env::var_os("CI").is_some() { 2 } else { 8 }
}

/// By the nearest rank.
fn percentile(times: &[Times], percent: usize, of: fn(&Times) -> Duration) -> Duration {
    let mut sorted: Vec<Duration> = times.iter().map(of).collect();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

/// Measures, prints a line of the table, and returns median and 95th percentile until the login.
fn measure(what: &str, testbed: &Testbed, runtime: &Runtime) -> [Duration; 2] {
    let buyer = ConnectedBuyer::new(testbed, runtime);
    let times: Vec<Times> = (0..orders()).map(|_| buyer.buy()).collect();
    remove_pods();
    let shown = |of: fn(&Times) -> Duration| {
        let [median, p95] = [50, 95].map(|percent| percentile(&times, percent, of).as_millis());
        format!("{median:>7} ms {p95:>7} ms")
    };
    println!("{what:<28} {}   {}", shown(|it| it.answered), shown(|it| it.logged_in));
    [50, 95].map(|percent| percentile(&times, percent, |it| it.logged_in))
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_login_follows_its_message_within_seconds() {
    // It measures; that one logs in is shown by the other tests.
    if is_left_out("customers_are_root_of_images…") {
        return;
    }
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    let runtime = Runtime::new().unwrap();
    println!("{} orders each, {HEADER}", orders());
    let own = {
        let testbed = Testbed::start_with("speed-own", &configuration(TIER, &[]), &[]);
        measure("a server in the image", &testbed, &runtime)
    };
    let copied = {
        let copy = [("SSH_SERVER_VOLUME", "copy")];
        let testbed = start("speed-copied", TIER, &[], &copy);
        measure("one that is copied, root", &testbed, &runtime)
    };
    let testbed = start("speed-mounted", TIER, &[], &[("SSH_SERVER_VOLUME", "image")]);
    let mounted = measure("one that is mounted, root", &testbed, &runtime);
    for (what, goal, measured) in [("median", 0.7, mounted[0]), ("p95", 1.2, mounted[1])] {
        let what = format!("a login after its message, with a mounted server, {what} in seconds");
        Goal::AtMost(goal).print(&what, measured.as_secs_f64());
    }
    let all = [own, copied, mounted];
    assert!(all.iter().all(|[median, _]| *median < MEDIAN), "{all:?}");
}
