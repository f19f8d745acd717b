//! The HTTP API of a whole service: payment, access control, and hostile clients.
#![cfg(test)]

mod access;
mod apps;
mod attack;
mod load;
mod open_files;
mod operator;
mod pages;
mod payment;
mod places;
mod problems;
mod recorded;
mod repeats;
mod service;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use crate::support::customer::TIMEOUT;
use crate::support::web::Web;
use paygress_sshd::client::{Client, HostKeyCheck};
use serde_json::Value;
use std::time::{Duration, Instant};

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}"))
}

async fn says(answer: &Value, command: &str) -> String {
    let address = ("127.0.0.1", u16::try_from(answer["ssh_port"].as_u64().unwrap()).unwrap());
    let keys = answer["ssh_host_keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap());
    let check = HostKeyCheck::one_of(keys).unwrap();
    let (username, password) = (text(answer, "ssh_username"), text(answer, "ssh_password"));
    let client = Client::login(address, username, password, check).await.unwrap();
    client.run(command).await.unwrap().stdout
}

/// The pod's login, once it takes it.
async fn ready(web: &Web, pod: &str, bearer: &str) -> Value {
    let begun = Instant::now();
    loop {
        let access = web.get(&format!("/pods/{pod}/access"), bearer).await;
        if access.status == 200 {
            return access.json();
        }
        assert!(begun.elapsed() < TIMEOUT, "{}", access.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
