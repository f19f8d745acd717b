//! Worthless tokens in large numbers: what they hold together, and what an honest customer notices.
//!
//! `ATTACK_TOKENS` is how many of them the mint refuses.
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use crate::support::customer::{Running, until};
use crate::support::fake::FakeCluster;
use crate::support::web::{Answer, Web};
use futures::stream::{self, StreamExt};
use paygress::app::App;
use paygress::sandbox::Sandbox;
use paygress_core::backend::store::Ledger;
use paygress_core::limits;
use paygress_core::model::order::State;
use paygress_core::orders::Backends;
use paygress_sandbox::token::forged_with;
use paygress_sandbox::{FaultProxy, MintAnswer, NetworkFault, TestMint, TestWallet};
use serde_json::json;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// In the secrets of worthless tokens: how the mint knows them.
const WORTHLESS: &str = "worthless";
/// Of these the mint loses its answers.
const UNANSWERED: usize = 100;
/// Requests under way.
const AT_ONCE: usize = 64;
/// Each order's: its pod lives longer than the test.
const SAT: u64 = 30;

/// How many tokens the mint refuses.
fn tokens() -> usize {
    let tokens = std::env::var("ATTACK_TOKENS");
    tokens.map_or(99, |tokens| tokens.parse().expect("ATTACK_TOKENS is no number"))
}

/// A service with 1,001 ports and pods that are not real, whose mint is behind a proxy.
struct Attacked {
    web: Web,
    ledger: Arc<dyn Ledger>,
    proxy: FaultProxy,
    wallet: TestWallet,
    /// What the worthless tokens are made from.
    genuine: String,
    _running: Running,
    _sandbox: Sandbox,
    _mint: TestMint,
}

impl Attacked {
    async fn start() -> Self {
        let mint = TestMint::start(100).await.unwrap();
        let proxy = FaultProxy::to(mint.url()).await.unwrap();
        let settings = [
            ("WHITELISTED_MINTS", proxy.url()),
            ("TRUSTED_PROXIES", "127.0.0.1"),
            ("SSH_PORT_RANGE_START", "20000"),
            ("SSH_PORT_RANGE_END", "21000"),
        ];
        let sandbox = Sandbox::new(&settings, "").await.unwrap();
        let mut ledger = None;
        let app = App::build(&sandbox.config, sandbox.cluster(), |backends| {
            ledger = Some(Arc::clone(&backends.ledger));
            Backends { cluster: Arc::new(FakeCluster::default()).into(), ..backends }
        })
        .await
        .unwrap();
        let web = Web::new(app.http_address().unwrap());
        let wallet = TestWallet::new(proxy.url()).await.unwrap();
        wallet.fill(1_000).await.unwrap();
        let genuine = wallet.token(SAT).await.unwrap();
        Self {
            web,
            ledger: ledger.unwrap(),
            proxy,
            wallet,
            genuine,
            _running: Running::start(app),
            _sandbox: sandbox,
            _mint: mint,
        }
    }

    async fn ports(&self) -> usize {
        usize::try_from(self.ledger.ports_in_use().await.unwrap()).unwrap()
    }

    async fn count(&self, state: State) -> usize {
        let counts = self.ledger.count_by_state().await.unwrap();
        let count = counts.iter().find(|count| count.state == state);
        count.map_or(0, |count| usize::try_from(count.orders).unwrap())
    }

    /// Buys a pod; how long that took.
    async fn buy(&self) -> Duration {
        let body = json!({"cashu_token": self.wallet.token(SAT).await.unwrap()}).to_string();
        let begun = Instant::now();
        self.web.ask("POST", "/spawn-pod", &[], &body).await.good();
        begun.elapsed()
    }

    /// Buys a pod once worthless tokens are at the mint.
    async fn buy_among_them(&self) -> Duration {
        until("no token is at the mint", async || (self.proxy.met() > 0).then_some(())).await;
        self.buy().await
    }

    /// Sends a worthless token, from a network that sends nothing else.
    async fn send_worthless(&self, n: usize) -> Answer {
        let token = forged_with(&self.genuine, n, WORTHLESS).unwrap();
        let body = json!({"cashu_token": token}).to_string();
        let address = format!("20.{}.{}.1", n / 250, n % 250);
        self.web.ask("POST", "/spawn-pod", &[("x-forwarded-for", &address)], &body).await
    }

    /// Sends worthless tokens, which the mint refuses; the most ports that were held after an answer.
    async fn send_refused(&self, tokens: Range<usize>) -> usize {
        let sent = stream::iter(tokens).map(|n| async move {
            let answer = self.send_worthless(n).await;
            let problem = answer.json();
            assert_eq!(problem["error_type"], "mint_error", "{}: {problem}", answer.status);
            self.ports().await
        });
        let ports: Vec<usize> = sent.buffer_unordered(AT_ONCE).collect().await;
        ports.into_iter().max().unwrap_or(0)
    }

    /// Sends worthless tokens, of which the mint loses the answers; gives how many payments are
    /// unknown once nothing else is to be decided.
    async fn send_unanswered(&self, tokens: Range<usize>) -> usize {
        let refused = self.count(State::Refused).await;
        let sent = stream::iter(tokens).map(|n| self.send_worthless(n)).buffer_unordered(AT_ONCE);
        let all = async {
            let _: Vec<Answer> = sent.collect().await;
            std::future::pending::<usize>().await
        };
        let decided = until("some tokens are not decided on", async || {
            let unknown = self.count(State::PaymentUnknown).await;
            let refused = self.count(State::Refused).await - refused;
            (unknown + refused == UNANSWERED).then_some(unknown)
        });
        tokio::select! {
            unknown = decided => unknown,
            never = all => never,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worthless_tokens_keep_no_port_and_honest_orders_are_served_among_them() {
    let service = Attacked::start().await;
    let each = tokens() / 3;
    let (mut sold, mut sent, mut longest) = (0, 0, Duration::ZERO);
    for answer in [MintAnswer::UNKNOWN_CODE, MintAnswer::FORBIDDEN, MintAnswer::WITNESS] {
        // A pause of the machine may meet an honest order: then it is tried again.
        for more_tries in (0..3).rev() {
            let quiet = service.buy().await;
            longest = Duration::from_secs(2) + 10 * quiet;
            service.proxy.plan_for_content("v1/swap", WORTHLESS, NetworkFault::Answer(answer));
            let begun = Instant::now();
            let tokens = sent..sent + each;
            let (ports, honest) =
                tokio::join!(service.send_refused(tokens), service.buy_among_them());
            sent += each;
            sold += 2;
            let swaps = service.proxy.met();
            println!(
                "{each} tokens with {} {:?} in {:.1} s, {swaps} swaps: {ports} ports at most, of \
                 which {sold} are sold; an honest order took {honest:.1?}, alone {quiet:.1?}",
                answer.status,
                answer.body,
                begun.elapsed().as_secs_f64()
            );
            assert_eq!(service.ports().await, sold, "those of the pods");
            assert!(ports <= sold + limits::UNPROVEN_AT_ONCE, "{ports} ports");
            assert!(swaps <= 2 * each, "{swaps} swaps of {each} tokens");
            assert_eq!(service.count(State::PaymentUnknown).await, 0);
            if honest < longest {
                break;
            }
            assert!(more_tries > 0, "{honest:?}, alone {quiet:?}");
        }
    }
    payments_without_an_answer_hold_little(&service, sent, sold, longest).await;
}

/// The answers of the swaps are none, and the mint answers everything else.
async fn payments_without_an_answer_hold_little(
    service: &Attacked,
    first: usize,
    sold: usize,
    longest: Duration,
) {
    let garbage = NetworkFault::Answer(MintAnswer::GARBAGE);
    service.proxy.plan_for_content("v1/swap", WORTHLESS, garbage);
    let begun = Instant::now();
    let unknown = service.send_unanswered(first..first + UNANSWERED).await;
    let most = limits::UNKNOWN_UNPROVEN + limits::UNPROVEN_AT_ONCE;
    assert!((1..=most).contains(&unknown), "{unknown} unknown payments");
    until("an unknown payment keeps its port", async || {
        (service.ports().await == sold).then_some(())
    })
    .await;
    // The payments stay unknown.
    let mut honest = service.buy().await;
    for _ in 0..2 {
        if honest >= longest {
            honest = service.buy().await;
        }
    }
    let (swaps, took) = (service.proxy.met(), begun.elapsed());
    println!(
        "{UNANSWERED} tokens without an answer: {unknown} payments are unknown, with no port, and \
         {swaps} swaps in {:.1} s; an honest order took {honest:.1?}",
        took.as_secs_f64()
    );
    assert!(honest < longest, "{honest:?}");
    // One for each of them, and after that one a second.
    let a_second = usize::try_from(took.as_secs()).unwrap() + 2;
    assert!(swaps <= unknown + a_second, "{swaps} swaps for {unknown} payments in {took:?}");
}
