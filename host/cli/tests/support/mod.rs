//! What the tests of the whole share.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test uses a part of it")]

pub mod command;
pub mod crashing;
pub mod customer;
pub mod fake;
pub mod keys;
pub mod secrets;
pub mod testbed;
pub mod web;
