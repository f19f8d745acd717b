//! `paygress sales`.

use super::request::{send, unexpected};
use crate::config::Reader;
use crate::output::print_line;
use crate::serve::configured_in_part;
use anyhow::Result;
use clap::Subcommand;
use paygress_admin::{Reply, Request};
use paygress_core::model::sales::Sales;
use std::path::Path;
use std::process::ExitCode;

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum SalesAction {
    /// Sell no new pods. Those that run can still be extended.
    #[command(name = "pause")]
    PauseNew,
    /// Sell nothing, so that the pods that run end with what was bought.
    Drain,
    /// Sell again.
    Resume,
    /// Show what is sold.
    Status,
}

impl SalesAction {
    /// What is to be sold from now on, if that is to change.
    fn wanted(self) -> Option<Sales> {
        match self {
            Self::PauseNew => Some(Sales::Paused),
            Self::Drain => Some(Sales::Draining),
            Self::Resume => Some(Sales::Open),
            Self::Status => None,
        }
    }
}

/// Runs `paygress sales`.
///
/// # Errors
/// Why the command failed.
pub async fn sales(config: Option<&Path>, action: SalesAction) -> Result<ExitCode> {
    let socket = configured_in_part(config, Reader::admin_socket)?;
    match send(&socket, &Request::Sales(action.wanted())).await? {
        Reply::Sales(sales) => print_line(format_args!("sales: {}", sales.as_str())),
        reply => return Err(unexpected(&reply)),
    }
    Ok(ExitCode::SUCCESS)
}
