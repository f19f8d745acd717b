//! The whole service in this process, with a relay, a mint and pods on this machine; and what its
//! program does, for operators, customers and authors of policies. One program of many files, since
//! each program is linked with all of that: what measures its process has one for itself.
#![cfg(test)]

mod author;
mod compatibility;
mod doctor;
mod examples;
mod gateway;
mod history;
mod inbox;
mod isolation;
mod ledger;
mod monitoring;
mod operator;
mod order;
mod policy;
mod receipts;
mod recovery;
mod refusals;
mod registry;
mod replicas;
mod stopping;
mod stored;
#[path = "../support/mod.rs"]
mod support;
mod top_up;
