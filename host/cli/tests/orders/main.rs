//! The order service on a cluster, a wallet and policies that are fakes, and a database that is not.
#![cfg(test)]

mod image_starts;
mod notices;
mod operator;
mod pod_reply;
mod pods;
mod probe;
mod scripted_cluster;
#[path = "../support/mod.rs"]
mod support;
mod top_up;
mod utilisation;
