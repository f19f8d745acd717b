//! The commands of authors: check, eval, test, bench.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn built(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target")
        .join(name)
        .to_string_lossy()
        .into_owned()
}

struct Workspace(TempDir);

impl Workspace {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).to_string_lossy().into_owned()
    }

    /// Whether it succeeded, and what it printed.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_paygress"))
            .arg("policy")
            .args(arguments)
            .env_clear()
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }
}

#[test]
fn the_defaults_pass_the_check_and_others_fail_with_a_reason() {
    let workspace = Workspace::new();
    for slot in ["images", "pricing", "duration", "pod-template"] {
        let (success, output) =
            workspace.run(&["check", slot, &built(&format!("plugins/{slot}.wasm"))]);
        assert!(success && !output.contains('✗') && output.lines().count() > 20, "{output}");
    }
    let (success, output) =
        workspace.run(&["check", "duration", &built("plugins-for-tests/old-duration.wasm")]);
    assert!(
        !success
            && output.contains("contract 1.0.0")
            && output.contains("✗ nothing left after the fee"),
        "a careless one: {output}"
    );
    let settings =
        workspace.file("settings.json", &json!({"sats_per_hour": -1, "colour": "red"}).to_string());
    for (arguments, whys) in [
        (
            vec!["check", "pricing", &built("plugins/images.wasm")],
            vec!["component for the slot images"],
        ),
        (
            vec!["check", "pricing", &workspace.file("text.wasm", "no component")],
            vec!["not a WebAssembly component"],
        ),
        (
            vec!["check", "pricing", &built("plugins/pricing.wasm"), "--settings", &settings],
            vec!["/sats_per_hour", "/colour"],
        ),
        (vec!["check", "prices", &built("plugins/pricing.wasm")], vec!["there is no slot prices"]),
        (vec!["check", "pricing", "nowhere.wasm"], vec!["nowhere.wasm"]),
    ] {
        let (success, output) = workspace.run(&arguments);
        assert!(!success && whys.iter().all(|why| output.contains(why)), "{whys:?}: {output}");
    }
}

#[test]
fn a_trap_names_the_line_of_the_source() {
    let workspace = Workspace::new();
    let hostile = built("plugins-for-tests/hostile.wasm");
    let order = workspace.file("order.json", &json!({"order": {"tier": "panic"}}).to_string());
    let (success, output) = workspace.run(&["eval", "pricing", &hostile, &order]);
    assert!(!success && output.contains("tests/hostile/src/lib.rs:"), "{output}");
    let source = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/hostile/src/lib.rs"),
    )
    .unwrap();
    let line: usize =
        output.split("src/lib.rs:").nth(1).unwrap().split(')').next().unwrap().parse().unwrap();
    assert!(source.lines().nth(line - 1).unwrap().contains("panic"), "line {line}");

    let order = workspace.file("order.json", "{}");
    let (success, output) =
        workspace.run(&["eval", "pricing", &built("plugins/pricing.wasm"), &order]);
    assert!(
        success
            && output.contains("returned {")
            && output.contains("\"msat\": 1000")
            && output.contains("instructions"),
        "{output}"
    );
    let order = workspace.file("order.json", &json!({"order": {"teir": "x"}}).to_string());
    let (success, output) =
        workspace.run(&["eval", "pricing", &built("plugins/pricing.wasm"), &order]);
    assert!(!success && output.contains("/order/teir") && output.contains("tier"), "{output}");
}

#[test]
fn a_suite_passes_or_names_the_failed_cases() {
    // long: one suite file with every kind of case.
    let workspace = Workspace::new();
    let suite = |cases: &str| {
        let head = format!(
            "slot: pricing\ncomponent: {}\nsettings: {{sats_per_hour: 120}}\ncases:\n",
            built("plugins/pricing.wasm")
        );
        workspace.file("suite.yaml", &(head + cases))
    };
    let good_ones = r"
  - name: two sat a minute
    expect: {price: {msat: 2000, seconds: 60}}
  - name: no such tier
    given: {order: {tier: galactic}}
    refuses: invalid_spec
  - name: the offers begin with the default
    given: {ask: offers}
    settings: {sats_per_hour: 60, tiers: [{id: one, cpu_millicores: 1, memory_mib: 1}]}
    expect: [{id: one}]
  - name: a negative price
    settings: {sats_per_hour: -1}
    problems: [/sats_per_hour]
";
    let junit = workspace.path("junit.xml").to_string_lossy().into_owned();
    let (success, output) = workspace.run(&["test", &suite(good_ones), "--junit", &junit]);
    assert!(success && output.contains("4 cases, 0 failed"), "{output}");
    let xml = std::fs::read_to_string(&junit).unwrap();
    assert!(
        xml.contains("tests=\"4\"")
            && xml.contains("failures=\"0\"")
            && xml.contains("two sat a minute"),
        "{xml}"
    );

    let bad_ones = r"
  - name: cheaper & <better>
    expect: {price: {msat: 1000}}
  - name: refused
    refuses: invalid_spec
  - name: not refused
    given: {order: {tier: galactic}}
    expect: {}
  - name: taken
    settings: {}
    problems: [/sats_per_hour]
  - name: no expectation
  - name: no such field
    given: {ordr: {}}
    expect: {}
";
    let (success, output) = workspace.run(&["test", &suite(bad_ones), "--junit", &junit]);
    assert!(
        !success
            && output.contains("6 cases, 6 failed")
            && output.contains("/price/msat is 2000, and should be 1000"),
        "{output}"
    );
    let xml = std::fs::read_to_string(&junit).unwrap();
    assert!(
        xml.contains("failures=\"6\"") && xml.contains("cheaper &amp; &lt;better&gt;"),
        "{xml}"
    );
    // The same suite with another component.
    let (success, output) = workspace.run(&[
        "test",
        &suite(good_ones),
        "--component",
        &built("plugins-examples/flat-price.wasm"),
    ]);
    assert!(!success, "{output}");
    for (text, why) in [
        ("cases: [", "suite.yaml"),
        ("slot: pricing\ncomponent: x\ncase: []\n", "case"),
        ("", "suite.yaml"),
    ] {
        let (success, output) = workspace.run(&["test", &workspace.file("suite.yaml", text)]);
        assert!(!success && output.contains(why), "{output}");
    }
    assert!(!workspace.run(&["test", &suite(" []")]).0, "a suite without cases shows nothing");
}

#[test]
fn a_component_that_costs_more_fails_against_its_baseline() {
    let workspace = Workspace::new();
    let kept = workspace.path("cost.json").to_string_lossy().into_owned();
    let pricing = built("plugins/pricing.wasm");
    let (success, output) =
        workspace.run(&["bench", "pricing", &pricing, "--calls", "50", "--save", &kept]);
    assert!(success && output.contains("p99, us"), "{output}");
    let (success, output) = workspace.run(&[
        "bench",
        "pricing",
        &pricing,
        "--calls",
        "50",
        "--baseline",
        &kept,
        "--tolerance",
        "0",
    ]);
    assert!(success, "the same component takes the same instructions: {output}");
    let mut cost: Value = serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap();
    assert!(
        cost["fuel"].as_u64().unwrap() > 1_000 && cost["memory_bytes"].as_u64().unwrap() > 65_536,
        "{cost}"
    );
    cost["fuel"] = json!(cost["fuel"].as_u64().unwrap() / 2);
    let before = workspace.file("before.json", &cost.to_string());
    let (success, output) =
        workspace.run(&["bench", "pricing", &pricing, "--calls", "50", "--baseline", &before]);
    assert!(!success && output.contains("worse"), "{output}");
    let (success, output) = workspace.run(&[
        "bench",
        "pricing",
        &pricing,
        "--baseline",
        &workspace.file("other.json", "{}"),
    ]);
    assert!(!success && output.contains("--save"), "{output}");
}
