//! The gateway as customers see it: before pods that echo, and before real SSH servers.
#![cfg(test)]

mod crowd;
mod dumbpipe;
mod endpoint;
mod figures;
mod forged;
mod jump;
mod killed;
mod networks;
mod openssh;
mod peer;
mod pods;
mod process;
mod proxy;
mod relay;
mod relayed;
mod support;
