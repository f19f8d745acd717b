//! `paygress lease`.

use super::request::{send, unexpected};
use crate::config::Reader;
use crate::output::print_line;
use crate::serve::configured_in_part;
use anyhow::Result;
use clap::Subcommand;
use paygress_admin::{Reply, Request};
use paygress_core::model::lease::EndReason;
use paygress_core::orders::EndedLease;
use std::path::Path;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum LeaseAction {
    /// End a lease before its time. What is left of it is paid back to its customers in full.
    End {
        /// The pod's name, or its npub
        pod: String,
    },
}

/// Runs `paygress lease`.
///
/// # Errors
/// Why the command failed.
pub async fn lease(config: Option<&Path>, action: LeaseAction) -> Result<ExitCode> {
    let socket = configured_in_part(config, Reader::admin_socket)?;
    let LeaseAction::End { pod } = action;
    match send(&socket, &Request::LeaseEnd(pod)).await? {
        Reply::LeaseEnded(EndedLease { pod_name, end_reason, refunded_sats }) => {
            let reason = end_reason.map_or("for a reason that is not known", EndReason::as_str);
            print_line(format_args!(
                "{pod_name} has ended ({reason}); due to its customers: {refunded_sats} sat, and the mint's fees where you bear them"
            ));
        }
        reply => return Err(unexpected(&reply)),
    }
    Ok(ExitCode::SUCCESS)
}
