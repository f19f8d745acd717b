//! What an operator does with the policies of a running service, over its admin socket.

use super::candidates::{Candidate, Candidates, Component};
use super::tables;
use super::util::blocking;
use crate::output::{print, print_line, try_print};
use anyhow::{Result, anyhow, bail};
use clap::Subcommand;
use paygress_admin::{AdminClient, ComponentUpload, Reply, Request};
use paygress_core::backend::policy::SlotStats;
use paygress_policy::Revision;
use std::io::{ErrorKind, IsTerminal};
use std::path::Path;
use std::time::Duration;

#[derive(Subcommand)]
pub enum ShadowAction {
    /// Start a shadow, in place of a running one.
    Start(Candidates),
    /// Show how it compares so far.
    Report {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop it, and show how it compared.
    Stop,
}

/// How often `top` refreshes.
const REFRESH: Duration = Duration::from_secs(1);

async fn send(socket: &Path, request: Request, components: &[Vec<u8>]) -> Result<Reply> {
    match AdminClient::new(socket).send(&request, components).await? {
        Reply::Refused(reason) => bail!("{reason}"),
        reply => Ok(reply),
    }
}

fn unexpected(reply: &Reply) -> anyhow::Error {
    anyhow!("the service sent a reply of another kind: {reply:?}")
}

/// What a request announces, and the components that follow it.
struct Uploads {
    uploads: Vec<ComponentUpload>,
    components: Vec<Vec<u8>>,
}

async fn uploads(candidates: Candidates) -> Result<Uploads> {
    let candidates = blocking(move || candidates.read()).await?;
    let upload = |(slot, Candidate { component, settings })| {
        let (component, signature, reference) = match component {
            Component::Local { bytes, signature } => (bytes, signature, None),
            Component::Registry(reference) => (Vec::new(), None, Some(reference)),
        };
        let bytes = u64::try_from(component.len()).unwrap_or(u64::MAX);
        (ComponentUpload { slot, bytes, signature, reference, settings }, component)
    };
    let (uploads, components) = candidates.into_iter().map(upload).unzip();
    Ok(Uploads { uploads, components })
}

async fn publish(socket: &Path, request: Request, components: &[Vec<u8>]) -> Result<()> {
    match send(socket, request, components).await? {
        Reply::Published(revision) => print_revision(&revision),
        reply => return Err(unexpected(&reply)),
    }
    Ok(())
}

fn print_revision(revision: &Revision) {
    let Revision { number, at, trigger, slots, set, .. } = revision;
    let changed =
        slots.iter().filter_map(|slot| Some(format!("{slot} {:.12}", set.get(slot)?.digest)));
    let changed = changed.collect::<Vec<_>>().join(", ");
    print_line(format_args!(
        "{number:>5}  {}  {:<14}  {}",
        at.rfc3339(),
        trigger.to_string(),
        if changed.is_empty() { "no change" } else { &changed }
    ));
}

pub(super) async fn swap(socket: &Path, candidates: Candidates) -> Result<()> {
    let Uploads { uploads, components } = uploads(candidates).await?;
    publish(socket, Request::Swap(uploads), &components).await
}

pub(super) async fn rollback(socket: &Path, number: Option<u64>) -> Result<()> {
    publish(socket, Request::Rollback(number), &[]).await
}

pub(super) async fn promote(socket: &Path) -> Result<()> {
    publish(socket, Request::Promote, &[]).await
}

pub(super) async fn history(socket: &Path) -> Result<()> {
    match send(socket, Request::History, &[]).await? {
        Reply::History(revisions) => revisions.iter().for_each(print_revision),
        reply => return Err(unexpected(&reply)),
    }
    Ok(())
}

pub(super) async fn shadow(socket: &Path, action: ShadowAction) -> Result<()> {
    let (reply, json) = match action {
        ShadowAction::Start(candidates) => {
            let Uploads { uploads, components } = uploads(candidates).await?;
            (send(socket, Request::ShadowStart(uploads), &components).await?, false)
        }
        ShadowAction::Report { json } => (send(socket, Request::ShadowReport, &[]).await?, json),
        ShadowAction::Stop => (send(socket, Request::ShadowStop, &[]).await?, false),
    };
    match reply {
        Reply::Done => {
            print_line("the shadow runs; see `paygress policy shadow report`");
        }
        Reply::Shadow(report) if json => print_line(serde_json::to_string(&report)?),
        Reply::Shadow(report) => print(tables::shadow(&report)),
        reply => return Err(unexpected(&reply)),
    }
    Ok(())
}

pub(super) enum TopMode {
    Once,
    Refresh,
}

pub(super) async fn top(socket: &Path, mode: TopMode) -> Result<()> {
    let mut before: Option<Vec<SlotStats>> = None;
    loop {
        let now = match send(socket, Request::Report, &[]).await? {
            Reply::Report(stats) => stats,
            reply => return Err(unexpected(&reply)),
        };
        let text = tables::stats(&now, before.as_deref());
        if matches!(mode, TopMode::Once) {
            print(&text);
            return Ok(());
        }
        // Cursor home, then clear to the end: no flicker.
        let clear = if std::io::stdout().is_terminal() { "\u{1b}[H\u{1b}[2J" } else { "" };
        match try_print(format_args!("{clear}{text}\n")) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            printed => printed?,
        }
        before = Some(now);
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        }
    }
}
