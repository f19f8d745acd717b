//! How many instructions a call of a default policy takes, the host's own included: counted by
//! valgrind's callgrind, and compared with `counts.json`. `cargo xtask bench --counts` prints them.
//!
//! The processor is an emulated one, so that a figure is the same however fast or busy the machine
//! is. It changes with the code, the policies, the compiler and its profile, the dependencies, and,
//! by a few percent, the C library.
#![cfg(test)]

#[path = "support/arguments.rs"]
mod arguments;

use arguments::Arguments;
use paygress_core::backend::policy::{
    Configured, Context, Grant, Payment, Price, Quote, Resources, Slot,
};
use paygress_core::model::ids::{ImageRef, MintUrl, TierId};
use paygress_core::model::order::OrderView;
use paygress_core::model::units::{Msat, Sat, Seconds, UnixTime};
use paygress_policy::{Call, CallRecord, CallResult, Harness, PolicyEngine, sample_placement};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/counts.json");
/// What stores the figures of this build as the baseline.
const COMMAND: &str = "cargo xtask bench --counts --bless";
/// Set by that command.
const BLESS: &str = "PAYGRESS_COUNTS_BLESS";
/// Tells the process that is counted where the compiled policies are.
const CACHE: &str = "PAYGRESS_COUNTS_CACHE";
/// More or less than the baseline by this much is a change.
const TOLERANCE_PERCENT: u64 = 5;
/// Calls before the one that is counted: the first few set up what later ones find.
const WARM_UP: usize = 5;

/// By the contract's functions.
type Counts = BTreeMap<String, u64>;

fn harnesses(cache: &Path) -> Vec<Harness> {
    let engine = PolicyEngine::for_counts(Some(cache)).unwrap().with_snapshots();
    let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins");
    let load = |slot: Slot| {
        let path = target.join(format!("{slot}.wasm"));
        let component = std::fs::read(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; build the policies first: cargo xtask plugins", path.display())
        });
        let harness = Harness::load(&engine, slot, &component, "{}").unwrap();
        assert_eq!(harness.configured(), Configured::Snapshot, "{slot}");
        harness
    };
    Slot::ALL.into_iter().map(load).collect()
}

impl Arguments {
    fn ordinary() -> Self {
        let resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };
        Self {
            order: OrderView {
                id: "a".to_owned(),
                customer: "c".repeat(64),
                username: "user".to_owned(),
                ..OrderView::default()
            },
            context: Context {
                now: UnixTime(1_767_268_800),
                capacity_leases: 100,
                active_leases: 10,
                ..Context::default()
            },
            quote: Quote {
                tier: TierId::parse("basic").unwrap(),
                resources,
                price: Price { msat: Msat(1_000), seconds: Seconds(60) },
                minimum: Sat(1),
            },
            payment: Payment {
                mint: MintUrl::of_test_case(),
                gross: Sat(61),
                fee: Sat(1),
                net: Sat(60),
            },
            grant: Grant { seconds: Seconds(3_600), note: None },
            placement: sample_placement(ImageRef::of_test_case(), resources),
        }
    }
}

/// What callgrind counts. It knows this function by its name.
#[inline(never)]
fn call_to_count(harness: &Harness, call: Call<'_>) -> CallRecord {
    black_box(harness.call(black_box(call))).unwrap()
}

#[test]
#[ignore = "the process that is counted: the other test starts it in valgrind"]
fn the_calls() {
    let cache = std::env::var_os(CACHE).map(PathBuf::from);
    let harnesses = harnesses(&cache.unwrap_or_else(|| panic!("{CACHE} is not set")));
    let arguments = Arguments::ordinary();
    for harness in &harnesses {
        for (name, call) in arguments.calls(harness.slot()) {
            for _ in 0..WARM_UP {
                harness.call(call).unwrap();
            }
            let CallRecord { result, .. } = call_to_count(harness, call);
            assert!(matches!(result, CallResult::Returned(_)), "{name}: {result:?}");
        }
    }
}

/// A program for the kernel that answers `prctl(PR_GET_AUXV)` as Linux before 6.4 does, which does
/// not know it: valgrind lets it pass, and rustix would read the kernel's own code in memory that an
/// emulated process does not have. For `bwrap --seccomp`.
fn filter() -> Vec<u8> {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const PRCTL: u32 = 157;
    const PR_GET_AUXV: u32 = 0x4155_5856;
    const INVALID_ARGUMENT: u32 = 0x0005_0000 | 22;
    const ALLOW: u32 = 0x7fff_0000;
    let program: [(u16, u8, u8, u32); 6] = [
        // The system call's number, and its first argument.
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 3, PRCTL),
        (LOAD, 0, 0, 16),
        (JUMP_IF_EQUAL, 0, 1, PR_GET_AUXV),
        (RETURN, 0, 0, INVALID_ARGUMENT),
        (RETURN, 0, 0, ALLOW),
    ];
    let bytes = |(code, then, otherwise, value): (u16, u8, u8, u32)| {
        [&code.to_le_bytes()[..], &[then, otherwise], &value.to_le_bytes()].concat()
    };
    program.into_iter().flat_map(bytes).collect()
}

/// Runs the calls in valgrind.
fn count(directory: &Path, cache: &Path) -> Counts {
    let (filter_file, output) = (directory.join("filter"), directory.join("calls"));
    std::fs::write(&filter_file, filter()).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"exec bwrap --die-with-parent --dev-bind / / --seccomp 3 "$@" 3<"$0""#])
        .arg(filter_file)
        // Counts that function alone, into a file for each call.
        .args(["valgrind", "--quiet", "--tool=callgrind"])
        .args(["--toggle-collect=counts::call_to_count", "--dump-after=counts::call_to_count"])
        .arg(format!("--callgrind-out-file={}", output.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "the_calls", "--ignored", "--test-threads", "1"])
        .env(CACHE, cache);
    let ended = command.output().unwrap();
    let [printed, errors] =
        [&ended.stdout, &ended.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(ended.status.success(), "{}\n{printed}\n{errors}", ended.status);
    let arguments = Arguments::ordinary();
    let names = Slot::ALL.into_iter().flat_map(|slot| arguments.calls(slot));
    let counted = |((name, _), part): ((&str, Call<'_>), u32)| {
        let path = format!("{}.{part}", output.display());
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{name}: {path}: {error}\n{printed}\n{errors}"));
        let total = text.lines().find_map(|line| line.strip_prefix("totals:")).unwrap();
        (name.to_owned(), total.trim().parse::<u64>().unwrap())
    };
    names.zip(1..).map(counted).collect()
}

fn differs(found: u64, before: u64) -> bool {
    found.abs_diff(before).saturating_mul(100) > before.saturating_mul(TOLERANCE_PERCENT)
}

/// A table for whoever reads it, and whether there is something to do.
fn compare(found: &Counts, baseline: &Counts) -> (String, bool) {
    let mut table = format!("{:<10}{:>14}{:>14}\n", "", "instructions", "baseline");
    let mut changed = found.len() != baseline.len();
    for (name, found) in found {
        let before = baseline.get(name).copied();
        let mark = match before {
            Some(before) if !differs(*found, before) => "",
            Some(before) if *found < before => "  less",
            _ => "  more",
        };
        changed |= !mark.is_empty();
        let before = before.map_or_else(|| "none".to_owned(), |before| before.to_string());
        writeln!(table, "{name:<10}{found:>14}{before:>14}{mark}").unwrap();
    }
    (table, changed)
}

#[test]
fn calls_take_as_many_instructions_as_before() {
    if !cfg!(debug_assertions) || std::env::consts::ARCH != "x86_64" {
        println!("NOT RUN: the baseline is of a debug build on x86-64");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    // Compiled here: in valgrind that would take minutes.
    drop(harnesses(&cache));
    let found = count(directory.path(), &cache);
    let baseline = std::fs::read_to_string(BASELINE).unwrap();
    let (table, changed) = compare(&found, &serde_json::from_str(&baseline).unwrap());
    println!("{table}");
    if std::env::var_os(BLESS).is_some() {
        let stored = serde_json::to_string_pretty(&found).unwrap();
        std::fs::write(BASELINE, format!("{stored}\n")).unwrap();
        return;
    }
    assert!(!changed, "calls do not cost what they did:\n{table}if that is meant: {COMMAND}");
}

#[test]
fn a_figure_may_be_a_few_percent_off() {
    let counts = |figures: &[(&str, u64)]| -> Counts {
        figures.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect()
    };
    let baseline = counts(&[("grant", 1_000), ("quote", 2_000)]);
    for (grant, quote, expected) in
        [(1_050, 1_900, false), (1_051, 2_000, true), (1_000, 1_899, true)]
    {
        let (table, changed) = compare(&counts(&[("grant", grant), ("quote", quote)]), &baseline);
        assert_eq!(changed, expected, "{table}");
    }
    let (table, changed) = compare(&baseline, &Counts::new());
    assert!(changed && table.contains("none"), "{table}");
    assert!(compare(&counts(&[("grant", 1_000)]), &baseline).1, "one is missing");
}
