//! What `paygress order` prints of answers: on standard output what a program may use, the rest on
//! standard error.

use crate::output::{print_line, print_note};
use crate::ssh_command::{KnownHosts, PodLogin};
use paygress_core::model::secret::Secret;
use paygress_core::protocol::{AccessDetails, ErrorResponse, PodStatus, Response, StatusResponse};
use paygress_nostr::client::Answer;
use std::process::ExitCode;

/// Prints an answer; an error is a failure, and so is what cannot be read.
pub(super) fn print_answer(answer: &Answer, json: bool, known_hosts: &KnownHosts) -> ExitCode {
    match &answer.response {
        _ if json => print_line(answer.text.expose()),
        Some(response) => print_response(response, known_hosts),
        None => {
            print_note("This answer cannot be read; a newer paygress may read it. It is:");
            print_line(answer.text.expose());
        }
    }
    match &answer.response {
        Some(response) if response.error().is_none() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

pub(super) fn print_response(response: &Response, known_hosts: &KnownHosts) {
    match response {
        Response::Error(error) => print_error(error),
        Response::ToppedUp(top_up) => print_line(format_args!(
            "{}: {}; it lives until {}",
            top_up.pod_name, top_up.message, top_up.new_expires_at
        )),
        Response::Stopped(stopped) => {
            known_hosts.forget(&stopped.pod_name);
            print_note(format_args!("{}: {}", stopped.pod_name, stopped.message));
            print_refunds(&stopped.refunds.refund_tokens);
        }
        Response::Status(status) => print_status(status, known_hosts),
        Response::Notice(notice) => {
            print_note(format_args!("{}: {}", notice.pod_name, notice.message));
        }
        Response::Access(access) => print_access(access, known_hosts),
    }
}

fn print_access(access: &AccessDetails, known_hosts: &KnownHosts) {
    let login = PodLogin {
        pod: &access.pod_name,
        username: &access.ssh_username,
        host: &access.ssh_host,
        port: access.ssh_port,
        host_keys: &access.identity.ssh_host_keys,
    };
    print_ssh_command(&login, known_hosts);
    if let Some(password) = &access.ssh_password {
        print_line(format_args!("password: {}", password.expose()));
    }
    for key in login.host_keys() {
        print_line(format_args!("host key: {} ({})", key.fingerprint(), key.kind()));
    }
    if let Some(root) = access.identity.root {
        print_line(format_args!("root: {}", yes_or_no(root)));
    }
    print_line(format_args!(
        "{} ({}) lives until {}",
        access.pod_name, access.pod_spec_name, access.expires_at
    ));
}

pub(super) fn yes_or_no(answer: bool) -> &'static str {
    if answer { "yes" } else { "no" }
}

fn print_ssh_command(login: &PodLogin<'_>, known_hosts: &KnownHosts) {
    match known_hosts.ssh_command(login) {
        Ok(command) => print_line(command),
        Err(error) => print_note(format_args!("{error:#}")),
    }
}

fn print_error(error: &ErrorResponse) {
    print_note(format_args!("{}: {}", error.error_type.as_str(), error.message));
    if let Some(details) = &error.details {
        print_note(details);
    }
    print_refunds(error.refund.as_ref().and_then(|refund| refund.refund_token.as_ref()));
}

fn print_status(status: &StatusResponse, known_hosts: &KnownHosts) {
    let reason = status.end_reason.map(|reason| format!(" ({})", reason.as_str()));
    print_line(format_args!(
        "{}: {}{}, {} s left, until {}",
        status.pod_name,
        status_name(status.status),
        reason.unwrap_or_default(),
        status.time_remaining_seconds,
        status.expires_at.as_deref().unwrap_or_default()
    ));
    if let Some(state) = status.image_program {
        print_line(format_args!("the image's own program: {}", state.as_str()));
    }
    let login = PodLogin {
        pod: &status.pod_name,
        username: &status.ssh_username,
        host: &status.ssh_host,
        port: status.ssh_port,
        host_keys: &status.identity.ssh_host_keys,
    };
    match status.status {
        PodStatus::Provisioning => {}
        PodStatus::Running => print_ssh_command(&login, known_hosts),
        PodStatus::Ended => known_hosts.forget(&status.pod_name),
    }
    print_refunds(status.refund_tokens.iter().flatten());
}

/// Only the tokens are on standard output.
fn print_refunds<'a>(tokens: impl IntoIterator<Item = &'a Secret>) {
    let mut tokens = tokens.into_iter().peekable();
    if tokens.peek().is_some() {
        print_note("Your refund, receive it soon:");
    }
    for token in tokens {
        print_line(token.expose());
    }
}

fn status_name(status: PodStatus) -> &'static str {
    match status {
        PodStatus::Provisioning => "provisioning",
        PodStatus::Running => "running",
        PodStatus::Ended => "ended",
    }
}
