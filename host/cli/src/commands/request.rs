//! Requests to the running service.

use anyhow::{Result, anyhow, bail};
use paygress_admin::{AdminClient, Reply, Request};
use std::path::Path;

/// # Errors
/// No service answers, or it refuses.
pub(super) async fn send(socket: &Path, request: &Request) -> Result<Reply> {
    match AdminClient::new(socket).send(request, &[]).await? {
        Reply::Refused(reason) => bail!("{reason}"),
        reply => Ok(reply),
    }
}

pub(super) fn unexpected(reply: &Reply) -> anyhow::Error {
    anyhow!("the service sent a reply of another kind: {reply:?}")
}
