//! `paygress receipt`: verifies what a service has signed, for customers. It talks to nobody, unless
//! the components are in a registry.
//!
//! ```text
//! file ─▶ signature, form ─▶ amounts ─▶ each order in the components that it names ─▶ fields that differ
//!                               answer, if it is there
//! ```

use crate::compiler::compiler;
use crate::order::parse_service;
use crate::output::{print_line, print_note};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use paygress_core::backend::policy::{Slot, Utilisation};
use paygress_core::model::decision::Context as DecisionContext;
use paygress_core::protocol::{
    ReceiptContent, ReceiptKind, ReceiptOrder, Response, receipt_contradicts,
};
use paygress_nostr::{VerifiedReceipt, npub, verify_receipt};
use paygress_oci::{Reference, Registry};
use paygress_policy::{
    COMPONENT_BYTES, FieldDifference, Interfaces, PolicyEngine, Recomputer, Source, Sources,
    check_amounts, read_component,
};
use paygress_policy_tools::read_object;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// What is read of a receipt, or of an answer.
const FILE_BYTES: u64 = 1 << 20;

#[derive(Subcommand)]
pub enum ReceiptAction {
    /// Verify a receipt: its signature, and in the service's components what was decided. Exits with
    /// 1 if something is wrong.
    Verify(VerifyArguments),
}

#[derive(Args)]
pub struct VerifyArguments {
    /// A receipt, or an answer that has one, as JSON; `-` reads standard input.
    file: PathBuf,
    /// The service that must have signed it, npub or hex. Left out: any, which is shown.
    #[arg(long, env = "PAYGRESS_SERVICE")]
    service: Option<String>,
    /// The components to recompute the decision in: a directory with images.wasm, pricing.wasm and
    /// duration.wasm, each perhaps with its settings (pricing.json), or oci:// and a reference.
    /// Several may be given.
    #[arg(long, value_name = "DIR|OCI")]
    components: Vec<String>,
    /// The settings of a slot, a file with a JSON object.
    #[arg(long, value_name = "SLOT=FILE", requires = "components")]
    settings: Vec<String>,
    /// The file with credentials, as docker's config.json or podman's auth.json.
    #[arg(long, env = "REGISTRY_AUTH_FILE")]
    auth: Option<PathBuf>,
}

/// What a file holds.
struct FileContent {
    /// As JSON.
    receipt: String,
    came_with: CameWith,
}

/// What a receipt is together with in its file.
enum CameWith {
    Nothing,
    Answer(Box<Response>),
    /// An error of HTTP for instance, which has another form.
    Unreadable,
}

/// Whether the receipt was signed by a service that was named.
#[derive(Clone, Copy)]
enum Signer {
    Compared,
    Any,
}

#[derive(Clone, Copy)]
enum Recomputed {
    Yes,
    No,
}

/// Runs `paygress receipt`.
///
/// # Errors
/// The receipt is refused, or cannot be recomputed. What differs is printed, with exit code 1.
pub async fn receipt(action: ReceiptAction) -> Result<ExitCode> {
    let ReceiptAction::Verify(arguments) = action;
    let service = arguments.service.as_deref().map(parse_service).transpose()?;
    let FileContent { receipt, came_with } = read_file(&arguments.file)?;
    let VerifiedReceipt { signer, content } =
        verify_receipt(&receipt, service.as_ref()).context("the receipt is refused")?;
    let sources = sources(&arguments).await?;
    let recomputed = if sources.is_some() { Recomputed::Yes } else { Recomputed::No };
    let checks = {
        let content = content.clone();
        tokio::task::spawn_blocking(move || check(&content, sources)).await??
    };
    let contradicts = match &came_with {
        CameWith::Answer(answer) => receipt_contradicts(&content, answer),
        CameWith::Nothing | CameWith::Unreadable => None,
    };
    print_line(format_args!("signed by {}", npub(&signer)));
    print_content(&content, &checks);
    if let Some(field) = contradicts {
        print_note(format_args!("The receipt is not of the answer that it came with: {field}."));
        return Ok(ExitCode::FAILURE);
    }
    if checks.iter().any(|found| !found.is_empty()) {
        print_note(
            "The receipt is not what its policies decide. Its signature proves who says so.",
        );
        return Ok(ExitCode::FAILURE);
    }
    let signer = if service.is_some() { Signer::Compared } else { Signer::Any };
    print_checked(signer, &content, recomputed, &came_with);
    Ok(ExitCode::SUCCESS)
}

fn print_content(content: &ReceiptContent, checks: &[Vec<FieldDifference>]) {
    print_line(format_args!("pod       {}", content.pod_name));
    for (order, found) in content.orders.iter().zip(checks) {
        print_order(order);
        for FieldDifference { field, receipt, recomputed } in found {
            print_line(format_args!(
                "  {field}: the receipt has {receipt}, and must have {recomputed}"
            ));
        }
    }
    if content.orders_left_out > 0 {
        print_note(format_args!("{} older orders are not in it", content.orders_left_out));
    }
}

fn print_order(order: &ReceiptOrder) {
    let ReceiptOrder { payment, decision, .. } = order;
    let price = decision.quote.price;
    print_line(format_args!(
        "order     {}: {} bought {} of {}, at {} for {}",
        decision.order.id,
        payment.net,
        decision.grant.seconds,
        decision.quote.tier,
        price.msat,
        price.seconds
    ));
    let DecisionContext { capacity_leases, active_leases, history, utilisation, .. } =
        &decision.context;
    print_line(format_args!(
        "  the operator's own statement: {active_leases} of {capacity_leases} pods were leased"
    ));
    if let Some(history) = history {
        print_line(format_args!(
            "  the operator's own statement: {} other orders, {} paid in the 24 hours before",
            history.orders, history.last_day_paid
        ));
    }
    if let Some(Utilisation { cpu, memory }) = utilisation {
        print_line(format_args!(
            "  the operator's own statement: {cpu} per mille of the nodes' CPU and {memory} of their memory were taken"
        ));
    }
    if let Some(used) = order.time_used() {
        print_line(format_args!("  used: {used} of {}", decision.grant.seconds));
    }
    if let Some(refund) = &order.refund {
        print_line(format_args!("  refunded: {} of {} due", refund.amount, refund.due));
    }
}

/// What was checked, and what was not: a good signature alone proves no price.
fn print_checked(
    signer: Signer,
    content: &ReceiptContent,
    recomputed: Recomputed,
    came_with: &CameWith,
) {
    print_line(match signer {
        Signer::Compared => "signature: valid, and the service's",
        Signer::Any => "signature: valid; whose it is was not compared, name --service",
    });
    print_line("amounts: they agree with each other");
    if !matches!(content.answer, ReceiptKind::Access | ReceiptKind::TopUp) {
        let follows = |order: &ReceiptOrder| order.refund_due(content.answer).is_some();
        print_line(match content.orders.iter().all(follows) {
            true => "what is due: recomputed",
            false => {
                "what is due: not recomputed, the receipt lacks the time that was used, or the terms"
            }
        });
    }
    print_line(match recomputed {
        Recomputed::Yes => "price, time, refund terms: recomputed",
        Recomputed::No => "price, time, refund terms: not recomputed, name --components",
    });
    print_line(match came_with {
        CameWith::Answer(_) => "answer: the receipt agrees with it",
        CameWith::Nothing => "answer: not compared, the file is the receipt alone",
        CameWith::Unreadable => "answer: not compared, it is an error of HTTP, or a later form",
    });
    print_line("the operator's own statements: nobody else can check them");
    print_line(match recomputed {
        Recomputed::Yes => "good: the signature, and price, time and refund terms",
        Recomputed::No => "good: the signature; nothing was recomputed without --components",
    });
}

/// The engine for the service's components. They are untrusted, so that they are compiled in a
/// process with a limit of memory.
fn start_engine() -> Result<Arc<PolicyEngine>> {
    Ok(PolicyEngine::start(None)?.with_compiler(compiler()))
}

/// What differs, order by order. Blocks.
fn check(content: &ReceiptContent, sources: Option<Sources>) -> Result<Vec<Vec<FieldDifference>>> {
    if content.orders.is_empty() {
        // Of none, all would be good.
        bail!("the receipt is refused: it has no order");
    }
    let recomputer = |sources| anyhow::Ok(Recomputer::new(start_engine()?, sources));
    let mut recomputer = sources.map(recomputer).transpose()?;
    let check_order = |order: &ReceiptOrder| {
        let mut found = check_amounts(content.answer, order);
        if let Some(recomputer) = &mut recomputer {
            found.extend(recomputer.recompute(order)?);
        }
        anyhow::Ok(found)
    };
    content.orders.iter().map(check_order).collect()
}

/// Reads a file that is a receipt, or an answer with one.
fn read_file(path: &Path) -> Result<FileContent> {
    let failed = || format!("{} cannot be read", path.display());
    let file: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(path).with_context(failed)?),
    };
    let mut text = String::new();
    file.take(FILE_BYTES).read_to_string(&mut text).with_context(failed)?;
    let value: Value =
        serde_json::from_str(&text).context("the receipt is refused: it is not JSON")?;
    let Some(receipt) = value.get("receipt") else {
        return Ok(FileContent { receipt: value.to_string(), came_with: CameWith::Nothing });
    };
    let receipt = receipt.to_string();
    let answer = serde_json::from_value(value).map(|answer| CameWith::Answer(Box::new(answer)));
    Ok(FileContent { receipt, came_with: answer.unwrap_or(CameWith::Unreadable) })
}

/// None where nothing is to be recomputed.
async fn sources(arguments: &VerifyArguments) -> Result<Option<Sources>> {
    if arguments.components.is_empty() {
        return Ok(None);
    }
    let mut sources = Sources::new();
    for reference in &arguments.components {
        if reference.starts_with("oci://") {
            let (slot, source) = pull(reference, arguments.auth.as_deref()).await?;
            sources.insert(slot, source);
        } else {
            add_directory(Path::new(reference), &mut sources)?;
        }
    }
    for argument in &arguments.settings {
        let (name, file) = argument.split_once('=').context("give settings as SLOT=FILE")?;
        let source = Slot::named(name).and_then(|slot| sources.get_mut(&slot));
        let source = source.with_context(|| {
            format!("there is no component for {name}; name it with --components")
        })?;
        source.settings = settings(Path::new(file))?;
    }
    Ok(Some(sources))
}

fn settings(file: &Path) -> Result<String> {
    Ok(Value::Object(read_object(file)?).to_string())
}

async fn pull(reference: &str, auth: Option<&Path>) -> Result<(Slot, Source)> {
    let parsed: Reference = reference.parse()?;
    let component = Registry::new(auth)?.pull(&parsed, COMPONENT_BYTES).await?.component;
    let read = move || {
        let interfaces = Interfaces::of(&*start_engine()?, &component)?;
        anyhow::Ok((interfaces.slot().map(|interface| interface.slot), component))
    };
    let (slot, component) = tokio::task::spawn_blocking(read).await??;
    let slot = slot.ok_or_else(|| anyhow!("{reference} is a component for no slot"))?;
    Ok((slot, Source::plain(component)))
}

fn add_directory(directory: &Path, sources: &mut Sources) -> Result<()> {
    let before = sources.len();
    for slot in Slot::ALL {
        let path = directory.join(format!("{slot}.wasm"));
        if !path.exists() {
            continue;
        }
        let mut source = Source::plain(read_component(&path)?);
        let beside = path.with_extension("json");
        if beside.exists() {
            source.settings = settings(&beside)?;
        }
        sources.insert(slot, source);
    }
    if sources.len() == before {
        bail!("{} has no images.wasm, pricing.wasm or duration.wasm", directory.display());
    }
    Ok(())
}
