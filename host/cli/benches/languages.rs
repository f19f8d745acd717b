//! A pricing call from a snapshot in each language, of the projects that `paygress policy new`
//! makes. Printed by `cargo xtask bench --languages`. The languages must be installed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use paygress::config::default_policies;
use paygress_core::Policy;
use paygress_core::backend::policy::{Configured, Context, PolicySet, Slot};
use paygress_core::model::order::OrderView;
use paygress_core::model::units::UnixTime;
use paygress_policy::{Host, PolicyDir, PolicyEngine, Source, read_component};
use paygress_policy_tools::Language;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The languages take turns, so that what else the machine does meets all of them.
const ROUNDS: usize = 20;
const CALLS: usize = 100;
/// The first calls of a round are not counted: they meet what other languages have left behind.
const SETTLING: usize = 10;

/// A language with the policies of which it has the pricing one.
struct Measured {
    language: Language,
    configured: Configured,
    set: Arc<dyn PolicySet>,
    times: Vec<Duration>,
}

/// What the tests of the languages have installed and built.
fn cache(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("author").join(name)
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// The component of a new project.
fn built(directory: &Path, language: Language) -> Vec<u8> {
    let paygress = env!("CARGO_BIN_EXE_paygress");
    let project = directory.join(language.as_str());
    let new = ["policy", "new", "--lang", language.as_str(), "pricing"];
    run(Command::new(paygress).args(new).arg(&project));
    let mut build = Command::new("sh");
    build.arg("build.sh").current_dir(&project).env("PAYGRESS", paygress);
    run(build.env("CARGO_TARGET_DIR", cache("cargo")).env("POLICY_VENV", cache("venv")));
    read_component(&project.join("policy.wasm")).unwrap()
}

fn load(engine: &Arc<PolicyEngine>, component: Vec<u8>, language: Language) -> Measured {
    let mut sources = PolicyDir::new(default_policies(), BTreeMap::new()).sources().unwrap();
    sources.insert(Slot::Pricing, Source::plain(component));
    let host = Host::load(Arc::clone(engine), &sources)
        .unwrap_or_else(|errors| panic!("{language}: {errors:?}"));
    let report = host.report();
    let pricing = report.iter().find(|stats| stats.slot == Slot::Pricing).unwrap();
    let configured = pricing.configured;
    Measured { language, configured, set: host.current(), times: Vec::new() }
}

fn round(runtime: &Runtime, measured: &mut Measured, order: &OrderView, context: &Context) {
    for number in 0..CALLS {
        let begun = Instant::now();
        runtime.block_on(measured.set.quote(order, context)).unwrap();
        if number >= SETTLING {
            measured.times.push(begun.elapsed());
        }
    }
}

/// The smallest time that so many in a hundred do not exceed, in microseconds.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = times.len().saturating_mul(percent).div_ceil(100).saturating_sub(1);
    times.get(at).unwrap().as_secs_f64() * 1e6
}

fn main() {
    // Otherwise it is built and run as a test, maybe where no language is installed.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("compiled");
    let engine = PolicyEngine::start(Some(&cache)).unwrap().with_snapshots();
    let mut languages =
        Language::ALL.map(|language| load(&engine, built(directory.path(), language), language));
    let runtime = Runtime::new().unwrap();
    let order = OrderView {
        id: "a".to_owned(),
        customer: "c".repeat(64),
        username: "user".to_owned(),
        ..OrderView::default()
    };
    let context = Context { now: UnixTime::now(), capacity_leases: 100, ..Context::default() };
    for _ in 0..ROUNDS {
        for measured in &mut languages {
            round(&runtime, measured, &order, &context);
        }
    }
    println!("{:<16}{:>12}{:>14}{:>14}", "a pricing call", "starts from", "p50", "p99");
    for Measured { language, configured, times, .. } in &languages {
        let [median, longest] = [50, 99].map(|percent| percentile(times, percent));
        let (language, configured) = (language.as_str(), configured.as_str());
        println!("{language:<16}{configured:>12}{median:>11.1} µs{longest:>11.1} µs");
    }
}
