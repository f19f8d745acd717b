//! The commands of authors: check, eval, test, bench.

use crate::support::command::built;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

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
            && output.contains("\"utilisation\": null")
            && output.contains("instructions"),
        "{output}"
    );
    let order = workspace.file("order.json", &json!({"order": {"teir": "x"}}).to_string());
    let (success, output) =
        workspace.run(&["eval", "pricing", &built("plugins/pricing.wasm"), &order]);
    assert!(!success && output.contains("/order/teir") && output.contains("tier"), "{output}");
}

/// Cases that the default pricing passes, at two sat a minute.
const GOOD: &str = r"
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
/// Cases that it fails, each in its own way.
const BAD: &str = r"
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

/// A suite file with these cases.
fn suite(workspace: &Workspace, cases: &str) -> String {
    let pricing = built("plugins/pricing.wasm");
    let text = format!(
        "slot: pricing\ncomponent: {pricing}\nsettings: {{sats_per_hour: 120}}\ncases:\n{cases}"
    );
    workspace.file("suite.yaml", &text)
}

#[test]
fn a_suite_passes_or_names_the_failed_cases() {
    let workspace = Workspace::new();
    let junit = workspace.path("junit.xml").to_string_lossy().into_owned();
    for (cases, passes, shown, reported) in [
        (
            GOOD,
            true,
            &["4 cases, 0 failed"][..],
            &["tests=\"4\"", "failures=\"0\"", "two sat a minute"][..],
        ),
        (
            BAD,
            false,
            &["6 cases, 6 failed", "/price/msat is 2000, and should be 1000"],
            &["failures=\"6\"", "cheaper &amp; &lt;better&gt;"],
        ),
    ] {
        let (success, output) =
            workspace.run(&["test", &suite(&workspace, cases), "--junit", &junit]);
        assert_eq!(success, passes, "{output}");
        assert!(shown.iter().all(|part| output.contains(part)), "{output}");
        let xml = std::fs::read_to_string(&junit).unwrap();
        assert!(reported.iter().all(|part| xml.contains(part)), "{xml}");
    }
    // The same suite with another component.
    let flat = built("plugins-examples/flat-price.wasm");
    let (success, output) =
        workspace.run(&["test", &suite(&workspace, GOOD), "--component", &flat]);
    assert!(!success, "{output}");
}

#[test]
fn a_suite_that_cannot_be_read_fails_with_a_reason() {
    let workspace = Workspace::new();
    for (text, why) in [
        ("cases: [", "suite.yaml"),
        ("slot: pricing\ncomponent: x\ncase: []\n", "case"),
        ("", "suite.yaml"),
    ] {
        let (success, output) = workspace.run(&["test", &workspace.file("suite.yaml", text)]);
        assert!(!success && output.contains(why), "{output}");
    }
    let empty = suite(&workspace, " []");
    assert!(!workspace.run(&["test", &empty]).0, "a suite without cases shows nothing");
}

#[test]
fn a_component_that_costs_more_fails_against_its_baseline() {
    let workspace = Workspace::new();
    let kept = workspace.path("cost.json").to_string_lossy().into_owned();
    let pricing = built("plugins/pricing.wasm");
    let (success, output) =
        workspace.run(&["bench", "pricing", &pricing, "--calls", "50", "--save", &kept]);
    assert!(
        success && output.contains("p99, us") && output.contains("from a snapshot"),
        "{output}"
    );
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
