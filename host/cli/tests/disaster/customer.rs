//! A customer, and the tokens that they have sent.

use crate::account::{account, count};
use crate::pods::Trouble;
use crate::service::{Installation, Service};
use crate::support::customer::{Buyer, until};
use crate::support::web::Answer;
use paygress_core::model::order::State;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

#[derive(Clone)]
pub(crate) struct Customer {
    pub(crate) buyer: Arc<Buyer>,
    tokens: Arc<Mutex<Vec<String>>>,
}

/// The pod that was sold.
pub(crate) fn pod_of(answer: &Value) -> String {
    answer["pod_name"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

pub(crate) async fn wait_for_orders(installation: &Installation, state: State, orders: usize) {
    until(&format!("{orders} orders are never {state:?}"), async || {
        (count(installation, state).await == orders).then_some(())
    })
    .await;
}

impl Customer {
    pub(crate) async fn new(installation: &Installation) -> Self {
        let buyer = Arc::new(Buyer::new(&installation.sandbox).await);
        Self { buyer, tokens: Arc::default() }
    }

    pub(crate) async fn token(&self, sat: u64) -> String {
        let token = self.buyer.token(sat).await;
        self.tokens.lock().unwrap().push(token.clone());
        token
    }

    /// Over Nostr.
    pub(crate) async fn buy(&self, sat: u64) -> Value {
        let token = self.token(sat).await;
        self.buyer.ask(json!({"cashu_token": token})).await
    }

    pub(crate) fn buy_in_background(&self, sat: u64) -> JoinHandle<Value> {
        let customer = self.clone();
        tokio::spawn(async move { customer.buy(sat).await })
    }

    /// Pays for a pod that takes no logins until this trouble is over.
    pub(crate) async fn pay_and_wait(
        &self,
        installation: &Installation,
        sat: u64,
    ) -> JoinHandle<Value> {
        installation.pods.begin(Trouble::Starting);
        let buying = self.buy_in_background(sat);
        wait_for_orders(installation, State::Provisioning, 1).await;
        buying
    }

    pub(crate) async fn buy_over_http(&self, service: &Service, token: &str) -> Answer {
        let authorization = format!("Bearer {}", "d".repeat(40));
        let headers = [("authorization", authorization.as_str())];
        let body = json!({"cashu_token": token}).to_string();
        service.web.ask("POST", "/spawn-pod", &headers, &body).await
    }

    /// It was not taken: their wallet takes it back.
    pub(crate) async fn assert_untouched(&self, token: &str) {
        assert!(self.buyer.wallet.receive(token).await.is_ok(), "the token was taken");
    }

    /// Every sat is somewhere. Gives what the service holds.
    pub(crate) async fn account(&self, installation: &Installation) -> u64 {
        let tokens = self.tokens.lock().unwrap().clone();
        account(installation, &[&self.buyer.wallet], &tokens).await
    }
}
