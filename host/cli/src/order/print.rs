//! What `paygress order` prints of answers: on standard output what a program may use, the rest on
//! standard error.

use crate::output::{print_line, print_note};
use paygress_core::model::secret::Secret;
use paygress_core::protocol::{ErrorResponse, PodStatus, Response, StatusResponse};
use paygress_nostr::client::Answer;
use std::process::ExitCode;

/// Prints an answer; an error is a failure, and so is what cannot be read.
pub(super) fn print_answer(answer: &Answer, json: bool) -> ExitCode {
    match &answer.response {
        _ if json => print_line(answer.text.expose()),
        Some(response) => print_response(response),
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

pub(super) fn print_response(response: &Response) {
    match response {
        Response::Error(error) => print_error(error),
        Response::ToppedUp(top_up) => print_line(format_args!(
            "{}: {}; it lives until {}",
            top_up.pod_name, top_up.message, top_up.new_expires_at
        )),
        Response::Stopped(stopped) => {
            print_note(format_args!("{}: {}", stopped.pod_name, stopped.message));
            print_refunds(&stopped.refunds.refund_tokens);
        }
        Response::Status(status) => print_status(status),
        Response::Notice(notice) => {
            print_note(format_args!("{}: {}", notice.pod_name, notice.message));
        }
        Response::Access(access) => {
            let (host, port) = (&access.ssh_host, access.ssh_port);
            print_line(format_args!("ssh -p {port} {}@{host}", access.ssh_username));
            let password = access.ssh_password.as_ref().map_or("", |password| password.expose());
            print_line(format_args!("password: {password}"));
            print_line(format_args!(
                "{} ({}) lives until {}",
                access.pod_name, access.pod_spec_name, access.expires_at
            ));
        }
    }
}

fn print_error(error: &ErrorResponse) {
    print_note(format_args!("{}: {}", error.error_type.as_str(), error.message));
    if let Some(details) = &error.details {
        print_note(details);
    }
    print_refunds(error.refund.as_ref().and_then(|refund| refund.refund_token.as_ref()));
}

fn print_status(status: &StatusResponse) {
    let reason = status.end_reason.map(|reason| format!(" ({})", reason.as_str()));
    print_line(format_args!(
        "{}: {}{}, {} s left, until {}",
        status.pod_name,
        status_name(status.status),
        reason.unwrap_or_default(),
        status.time_remaining_seconds,
        status.expires_at.as_deref().unwrap_or_default()
    ));
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
