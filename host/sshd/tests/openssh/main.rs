//! The server against OpenSSH's clients, which are what customers use. Needs `ssh`, `sftp`, `scp`,
//! `ssh-keygen` and `sshpass`.
#![cfg(test)]

mod any_image;
mod cases;
mod differential;
mod forwarding;
mod install;
mod login;
mod rootfs;
mod server;
mod sessions;
mod streams;
mod transfer;
