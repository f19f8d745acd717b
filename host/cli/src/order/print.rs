//! What `paygress order` prints of answers: on standard output what a program may use, the rest on
//! standard error.

use super::pod_message::{PodCheck, check};
use crate::output::{print_line, print_note};
use crate::ssh_command::{KnownHosts, PodLogin};
use paygress_core::model::refusal::Refusal;
use paygress_core::model::secret::Secret;
use paygress_core::protocol::{
    AccessDetails, ErrorResponse, PodHttp, PodStatus, Response, StatusResponse,
};
use paygress_core::sanitize::plain;
use paygress_nostr::client::Answer;
use paygress_nostr::npub;
use std::process::ExitCode;

/// What standard output is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// Prints an answer; an error is a failure, and so is what cannot be read, and a pod that contradicts
/// it.
pub(super) fn print_answer(answer: &Answer, format: Format, known_hosts: &KnownHosts) -> ExitCode {
    let pod = check(answer);
    if let PodCheck::Differs(why) = pod {
        // It was paid for: all of it, but no command to log in with.
        print_line(answer.text.expose());
        print_note(format_args!(
            "DO NOT LOG IN: {why}. The answer above may not be of the pod that you have bought, or another may have your login; stop the pod, and ask the operator."
        ));
        return ExitCode::FAILURE;
    }
    match &answer.response {
        _ if format == Format::Json => print_line(answer.text.expose()),
        Some(response) => print_response(response, known_hosts),
        None => {
            print_note("This answer cannot be read; a newer paygress may read it. It is:");
            print_line(answer.text.expose());
        }
    }
    print_pod_check(&pod);
    match &answer.response {
        Some(response) if response.error().is_none() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Prints why a request is not sent, as if the service had answered that.
pub(super) fn print_refusal(refusal: &Refusal, format: Format) -> ExitCode {
    let response = Response::from(refusal);
    match response.error() {
        Some(error) if format == Format::Text => print_error(error),
        Some(_) | None => print_line(response.to_json()),
    }
    ExitCode::FAILURE
}

fn print_pod_check(check: &PodCheck) {
    match check {
        PodCheck::Same(pod) => print_note(format_args!(
            "The pod itself has sent the same address and host keys, signed by its key {}.",
            npub(pod)
        )),
        PodCheck::Missing => print_note(
            "The pod has a key of its own, and no message of it has come: only the service has named its host keys.",
        ),
        PodCheck::None | PodCheck::Differs(_) => {}
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
        ways: &access.access,
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
    print_http(&access.http);
    print_line(format_args!(
        "{} ({}) lives until {}",
        access.pod_name, access.pod_spec_name, access.expires_at
    ));
}

/// The link logs a browser in: it is for the customer alone.
fn print_http(http: &PodHttp) {
    if let Some(url) = &http.http_url {
        print_line(format_args!("http: {}", plain(url, usize::MAX)));
    }
    if let Some(link) = &http.http_login_url {
        print_line(format_args!("http login: {}", plain(link.expose(), usize::MAX)));
    }
}

pub(super) fn yes_or_no(answer: bool) -> &'static str {
    if answer { "yes" } else { "no" }
}

fn print_ssh_command(login: &PodLogin<'_>, known_hosts: &KnownHosts) {
    match known_hosts.ssh_command(login) {
        Ok(command) => {
            print_line(command);
            known_hosts.way_commands(login).iter().for_each(print_line);
        }
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

/// Nothing of a pod that has ended: until when it was paid for may lie ahead.
fn time_left(status: &StatusResponse) -> String {
    let until = status.expires_at.as_deref().unwrap_or_default();
    match status.status {
        PodStatus::Ended => String::new(),
        _ => format!(", {} s left, until {until}", status.time_remaining_seconds),
    }
}

fn print_status(status: &StatusResponse, known_hosts: &KnownHosts) {
    let reason = status.end_reason.map(|reason| format!(" ({})", reason.as_str()));
    print_line(format_args!(
        "{}: {}{}{}",
        status.pod_name,
        status.status.as_str(),
        reason.unwrap_or_default(),
        time_left(status)
    ));
    if let Some(state) = status.image_program {
        print_line(format_args!("the image's own program: {}", state.as_str()));
    }
    print_http(&status.http);
    let login = PodLogin::from(status);
    match status.status {
        PodStatus::Provisioning | PodStatus::Later(_) => {}
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
