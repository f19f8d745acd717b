//! The server against the clients that customers use: OpenSSH's, and in `others` those of others.
//! Needs `ssh`, `sftp`, `scp`, `ssh-keygen` and `sshpass`.
#![cfg(test)]

mod cases;
mod differential;
mod editor;
mod forwarding;
mod login;
mod others;
mod reference;
mod server;
mod sessions;
mod streams;
mod transfer;
