//! The server against OpenSSH's clients, which are what customers use. Needs `ssh`, `sftp`, `scp`,
//! `ssh-keygen` and `sshpass`.
#![cfg(test)]

mod cases;
mod differential;
mod forwarding;
mod login;
mod server;
mod sessions;
mod streams;
mod transfer;
