//! Customers who buy one pod after the other over both transports, until they are stopped. Who gets
//! no answer repeats the request with the same token, as the documents say.

use crate::service::Installation;
use crate::support::customer::Buyer;
use crate::support::web::Web;
use paygress_core::protocol::{RequestBody, Response};
use paygress_sandbox::TestWallet;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What an order pays.
const SAT: u64 = 5;
/// So many their wallets have money for.
const ORDERS_OF_A_CUSTOMER: usize = 100;
/// After so long a request is repeated.
const ANSWER: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
const NEXT_SECOND: Duration = Duration::from_millis(1_100);
/// How long an order may take, whatever happens.
const TIMEOUT: Duration = Duration::from_secs(90);

/// What one customer has, and what was answered.
pub(crate) struct Bought {
    pub(crate) wallet: TestWallet,
    pub(crate) tokens: Vec<String>,
    pub(crate) pods: Vec<String>,
    /// Answers that are no pod: a request was repeated for each.
    pub(crate) errors: Vec<String>,
    /// Requests without an answer: each was repeated.
    pub(crate) cut: usize,
}

impl Bought {
    fn nothing(wallet: TestWallet) -> Self {
        Self { wallet, tokens: Vec::new(), pods: Vec::new(), errors: Vec::new(), cut: 0 }
    }
}

/// Where customers buy, and until when.
#[derive(Clone)]
struct Market {
    stop: watch::Receiver<bool>,
    replicas: watch::Receiver<Vec<Web>>,
    sold: watch::Sender<usize>,
}

impl Market {
    fn is_open(&self, bought: &Bought) -> bool {
        !*self.stop.borrow() && bought.tokens.len() < ORDERS_OF_A_CUSTOMER
    }

    fn replica(&self, number: usize) -> Web {
        let replicas = self.replicas.borrow();
        replicas[number % replicas.len()].clone()
    }
}

pub(crate) struct Load {
    stop: watch::Sender<bool>,
    sold: watch::Receiver<usize>,
    buying: JoinSet<Bought>,
}

impl Load {
    /// Two customers over Nostr and two over HTTP, at these replicas.
    pub(crate) async fn start(
        installation: &Installation,
        replicas: watch::Receiver<Vec<Web>>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (sold, progress) = watch::channel(0);
        let market = Market { stop: stopped, replicas, sold };
        let mut buying = JoinSet::new();
        for bearer in ['b', 'c'] {
            let buyer = Buyer::new(&installation.sandbox).await;
            buying.spawn(buy_over_nostr(buyer, market.clone()));
            let wallet = TestWallet::new(installation.sandbox.mint.url()).await.unwrap();
            wallet.fill(1_000).await.unwrap();
            buying.spawn(buy_over_http(wallet, market.clone(), bearer));
        }
        Self { stop, sold: progress, buying }
    }

    /// Waits until so many more are sold.
    pub(crate) async fn sell(&mut self, more: usize) {
        let goal = *self.sold.borrow() + more;
        let sold = self.sold.wait_for(|sold| *sold >= goal);
        tokio::time::timeout(TIMEOUT, sold).await.expect("nothing is sold any more").unwrap();
    }

    /// What each customer has, once all of them have their answers.
    pub(crate) async fn end(self) -> Vec<Bought> {
        self.stop.send_replace(true);
        self.buying.join_all().await
    }
}

/// The pod that an answer gives; none, and why, if it is something else.
fn pod_of(answer: &Value) -> Result<String, String> {
    let pod = answer["pod_name"].as_str().filter(|_| answer["ssh_port"].is_number());
    pod.map(str::to_owned).ok_or_else(|| answer.to_string())
}

async fn buy_over_nostr(buyer: Buyer, market: Market) -> Bought {
    let mut bought = Bought::nothing(buyer.wallet.clone());
    while market.is_open(&bought) {
        let token = buyer.token(SAT).await;
        bought.tokens.push(token.clone());
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < TIMEOUT, "an order is lost: {:?}", bought.errors);
            let request = json!({"cashu_token": token});
            let request: RequestBody = serde_json::from_value(request).unwrap();
            let Ok(answer) = buyer.client.ask(buyer.service, &request, ANSWER, |_| ()).await else {
                bought.cut += 1;
                continue;
            };
            // What a client of the library cannot read is an error of the wire.
            match &answer.response {
                Some(Response::Access(access)) => {
                    bought.pods.push(access.pod_name.clone());
                    break;
                }
                _ => bought.errors.push(answer.text.expose().to_owned()),
            }
            // The same text in the same second is the same message, and is answered once.
            tokio::time::sleep(NEXT_SECOND).await;
        }
        market.sold.send_modify(|sold| *sold += 1);
    }
    bought
}

async fn buy_over_http(wallet: TestWallet, market: Market, bearer: char) -> Bought {
    let authorization = format!("Bearer {}", bearer.to_string().repeat(40));
    let mut bought = Bought::nothing(wallet);
    let mut number = 0;
    while market.is_open(&bought) {
        let token = bought.wallet.token(SAT).await.unwrap();
        let body = json!({"cashu_token": token}).to_string();
        bought.tokens.push(token);
        let begun = Instant::now();
        loop {
            number += 1;
            assert!(begun.elapsed() < TIMEOUT, "an order is lost: {:?}", bought.errors);
            let replica = market.replica(number);
            let headers = [("authorization", authorization.as_str())];
            let sent = replica.try_ask("POST", "/spawn-pod", &headers, &body);
            match tokio::time::timeout(ANSWER, sent).await.ok().flatten() {
                None => bought.cut += 1,
                // On its way: the same request gets the answer.
                Some(answer) if answer.status == 202 => {}
                Some(answer) => match pod_of(&answer.json()) {
                    Ok(pod) => {
                        bought.pods.push(pod);
                        break;
                    }
                    Err(error) => bought.errors.push(error),
                },
            }
            tokio::time::sleep(PAUSE).await;
        }
        market.sold.send_modify(|sold| *sold += 1);
    }
    bought
}
