//! What an operator does with the policies of a running service, over its admin socket.
#![allow(clippy::print_stdout)]

use super::replay::table;
use super::{Candidate, Candidates, Component, ShadowAction};
use anyhow::{Result, anyhow, bail};
use paygress_admin::{ComponentUpload, Reply, Request, ask};
use paygress_core::backend::policy::SlotStats;
use paygress_policy::{Revision, ShadowReport};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

/// How often the table is new.
const LOOK: Duration = Duration::from_secs(1);

async fn asked(socket: &Path, request: Request, bodies: &[Vec<u8>]) -> Result<Reply> {
    match ask(socket, &request, bodies).await? {
        Reply::Refused(why) => bail!("{why}"),
        reply => Ok(reply),
    }
}

fn unexpected(reply: &Reply) -> anyhow::Error {
    anyhow!("the service gave another answer than was asked for: {reply:?}")
}

/// The request's parts, and the components that follow it.
fn parts(candidates: &Candidates) -> Result<(Vec<ComponentUpload>, Vec<Vec<u8>>)> {
    let read = candidates.read()?.into_iter();
    Ok(read
        .map(|(slot, Candidate { component, settings })| {
            let (component, signature, reference) = match component {
                Component::Here(component, signature) => (component, signature, None),
                Component::Registry(reference) => (Vec::new(), None, Some(reference)),
            };
            let bytes = u64::try_from(component.len()).unwrap_or(u64::MAX);
            (ComponentUpload { slot, bytes, signature, reference, settings }, component)
        })
        .unzip())
}

async fn published(socket: &Path, request: Request, bodies: &[Vec<u8>]) -> Result<()> {
    match asked(socket, request, bodies).await? {
        Reply::Published(publication) => tell(&publication),
        reply => return Err(unexpected(&reply)),
    }
    Ok(())
}

fn tell(publication: &Revision) {
    let Revision { number, at, by, slots, set, .. } = publication;
    let changed =
        slots.iter().filter_map(|slot| Some(format!("{slot} {:.12}", set.get(slot)?.digest)));
    let changed = changed.collect::<Vec<_>>().join(", ");
    println!(
        "{number:>5}  {}  {:<14}  {}",
        at.rfc3339(),
        by.to_string(),
        if changed.is_empty() { "nothing new" } else { &changed }
    );
}

pub(super) async fn swap(socket: &Path, candidates: &Candidates) -> Result<()> {
    let (parts, bodies) = parts(candidates)?;
    published(socket, Request::Swap(parts), &bodies).await
}

pub(super) async fn rollback(socket: &Path, number: Option<u64>) -> Result<()> {
    published(socket, Request::Rollback(number), &[]).await
}

pub(super) async fn promote(socket: &Path) -> Result<()> {
    published(socket, Request::Promote, &[]).await
}

pub(super) async fn history(socket: &Path) -> Result<()> {
    match asked(socket, Request::History, &[]).await? {
        Reply::History(publications) => publications.iter().for_each(tell),
        reply => return Err(unexpected(&reply)),
    }
    Ok(())
}

pub(super) async fn shadow(socket: &Path, action: ShadowAction) -> Result<()> {
    let (request, bodies, json) = match action {
        ShadowAction::Start(candidates) => {
            let (parts, bodies) = parts(&candidates)?;
            (Request::ShadowStart(parts), bodies, false)
        }
        ShadowAction::Report { json } => (Request::ShadowReport, Vec::new(), json),
        ShadowAction::Stop => (Request::ShadowStop, Vec::new(), false),
    };
    match asked(socket, request, &bodies).await? {
        Reply::Done => println!(
            "it decides beside those in force from now on; see `paygress policy shadow report`"
        ),
        Reply::Shadow(report) if json => println!("{}", serde_json::to_string(&report)?),
        Reply::Shadow(report) => print!("{}", told(&report)),
        reply => return Err(unexpected(&reply)),
    }
    Ok(())
}

fn told(report: &ShadowReport) -> String {
    let mut text =
        format!("since {}\n\n{}\n", report.since.rfc3339(), reports(&report.candidates, None));
    text.push_str(&table(&report.comparison));
    if report.left_out > 0 {
        text.push_str(&format!(
            "\n{} orders were left out: the candidates could not keep up\n",
            report.left_out
        ));
    }
    text
}

/// One row a slot. With an earlier look, calls a second too.
fn reports(reports: &[SlotStats], earlier: Option<&[SlotStats]>) -> String {
    let calls: HashMap<&str, u64> = earlier
        .unwrap_or_default()
        .iter()
        .map(|report| (report.digest.as_str(), report.calls))
        .collect();
    let mut text = format!(
        "{:<14}{:<14}{:>9}{:>8}{:>9}{:>8}{:>9}{:>9}{:>9}  {}\n",
        "SLOT", "DIGEST", "CALLS", "/S", "REFUSED", "FAULTS", "P50 US", "P99 US", "KIB", "REFUSALS"
    );
    for report in reports {
        let refused = report.refusals.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let bound = |percent| {
            report.percentile_us(percent).map_or_else(|| "-".to_owned(), |bound| bound.to_string())
        };
        let rate = calls
            .get(report.digest.as_str())
            .map_or_else(|| "-".to_owned(), |was| report.calls.saturating_sub(*was).to_string());
        let codes = report
            .refusals
            .iter()
            .map(|(code, count)| format!("{} {count}", code.as_str()))
            .collect::<Vec<_>>()
            .join(", ");
        text.push_str(&format!(
            "{:<14}{:<14.12}{:>9}{:>8}{:>9}{:>8}{:>9}{:>9}{:>9}  {}\n",
            report.slot.as_str(),
            report.digest,
            report.calls,
            rate,
            refused,
            report.faults,
            bound(50),
            bound(99),
            report.memory_bytes.div_ceil(1_024),
            codes
        ));
    }
    text
}

pub(super) async fn top(socket: &Path, once: bool) -> Result<()> {
    let mut earlier: Option<Vec<SlotStats>> = None;
    loop {
        let now = match asked(socket, Request::Report, &[]).await? {
            Reply::Report(reports) => reports,
            reply => return Err(unexpected(&reply)),
        };
        let text = reports(&now, earlier.as_deref());
        if once {
            print!("{text}");
            return Ok(());
        }
        // Home, and clear to the end: without a flicker.
        if std::io::stdout().is_terminal() {
            print!("\u{1b}[H\u{1b}[2J");
        }
        println!("{text}");
        earlier = Some(now);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        }
    }
}
