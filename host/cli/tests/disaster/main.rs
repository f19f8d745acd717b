//! An upgrade under load, a lost disk, a database server that dies, an API server that is away, a full
//! disk, a clock that jumps. After each of them every order has its pod or its money, and every sat is
//! accounted for; each test prints its figures.
//!
//! The service is a process that can be killed, or several; relay, mint, Postgres and file systems are
//! real. The pods are files, so that they outlive the service as those of a cluster do.
//!
//! `DISASTER_ROUNDS` is how often all replicas are replaced. `PAYGRESS_PREVIOUS` may be the program of
//! the version before, and `DISASTER_LOG=debug` shows what the services log.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod account;
mod api_server;
mod clock;
mod customer;
mod disk;
mod failover;
mod load;
mod pods;
mod restore;
mod service;
#[path = "../support/mod.rs"]
mod support;
mod upgrade;
