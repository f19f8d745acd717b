//! The server against the clients that customers use: OpenSSH's, and in `others` those of others.
//! Needs `ssh`, `sftp`, `scp`, `ssh-keygen` and `sshpass`.
#![cfg(test)]

mod any_image;
mod behaviours;
mod cases;
mod differential;
mod editor;
mod forwarding;
mod install;
mod lease_end;
mod login;
mod others;
mod reference;
mod rootfs;
mod server;
mod sessions;
mod signals;
mod streams;
mod transfer;
