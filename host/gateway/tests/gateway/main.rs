//! The gateway as customers see it: before pods that echo, and before real SSH servers.
#![cfg(test)]

mod endpoint;
mod jump;
mod openssh;
mod pods;
mod support;
