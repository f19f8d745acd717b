//! The loop of who writes a policy: check, ask, test, measure.
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

struct OrderService(TempDir);

impl OrderService {
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

    /// Whether it was content, and what it said.
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
fn the_defaults_pass_the_check_and_what_does_not_fit_is_told_why() {
    let orders = OrderService::new();
    for slot in ["images", "pricing", "duration", "pod-template"] {
        let (good, told) = orders.run(&["check", slot, &built(&format!("plugins/{slot}.wasm"))]);
        assert!(good && !told.contains('✗') && told.lines().count() > 20, "{told}");
    }
    let (good, told) =
        orders.run(&["check", "duration", &built("plugins-for-tests/old-duration.wasm")]);
    assert!(
        !good && told.contains("contract 1.0.0") && told.contains("✗ nothing left after the fee"),
        "one that is thoughtless: {told}"
    );
    let settings =
        orders.file("settings.json", &json!({"sats_per_hour": -1, "colour": "red"}).to_string());
    for (arguments, whys) in [
        (
            vec!["check", "pricing", &built("plugins/images.wasm")],
            vec!["component for the slot images"],
        ),
        (
            vec!["check", "pricing", &orders.file("text.wasm", "no component")],
            vec!["not a WebAssembly component"],
        ),
        (
            vec!["check", "pricing", &built("plugins/pricing.wasm"), "--settings", &settings],
            vec!["/sats_per_hour", "/colour"],
        ),
        (vec!["check", "prices", &built("plugins/pricing.wasm")], vec!["there is no slot prices"]),
        (vec!["check", "pricing", "nowhere.wasm"], vec!["nowhere.wasm"]),
    ] {
        let (good, told) = orders.run(&arguments);
        assert!(!good && whys.iter().all(|why| told.contains(why)), "{whys:?}: {told}");
    }
}

#[test]
fn a_trap_names_the_line_of_the_source() {
    let orders = OrderService::new();
    let hostile = built("plugins-for-tests/hostile.wasm");
    let order = orders.file("order.json", &json!({"order": {"tier": "panic"}}).to_string());
    let (good, told) = orders.run(&["eval", "pricing", &hostile, &order]);
    assert!(!good && told.contains("tests/hostile/src/lib.rs:"), "{told}");
    let source = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/hostile/src/lib.rs"),
    )
    .unwrap();
    let line: usize =
        told.split("src/lib.rs:").nth(1).unwrap().split(')').next().unwrap().parse().unwrap();
    assert!(source.lines().nth(line - 1).unwrap().contains("panic"), "line {line}");

    let order = orders.file("order.json", "{}");
    let (good, told) = orders.run(&["eval", "pricing", &built("plugins/pricing.wasm"), &order]);
    assert!(
        good && told.contains("says     yes")
            && told.contains("\"msat\": 1000")
            && told.contains("instructions"),
        "{told}"
    );
    let order = orders.file("order.json", &json!({"order": {"teir": "x"}}).to_string());
    let (good, told) = orders.run(&["eval", "pricing", &built("plugins/pricing.wasm"), &order]);
    assert!(!good && told.contains("/order/teir") && told.contains("tier"), "{told}");
}

#[test]
fn a_suite_passes_or_says_which_case_does_not() {
    let orders = OrderService::new();
    let suite = |cases: &str| {
        let head = format!(
            "slot: pricing\ncomponent: {}\nsettings: {{sats_per_hour: 120}}\ncases:\n",
            built("plugins/pricing.wasm")
        );
        orders.file("suite.yaml", &(head + cases))
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
    let junit = orders.path("junit.xml").to_string_lossy().into_owned();
    let (good, told) = orders.run(&["test", &suite(good_ones), "--junit", &junit]);
    assert!(good && told.contains("4 cases, 0 failed"), "{told}");
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
  - name: nothing is wished
  - name: no such word
    given: {ordr: {}}
    expect: {}
";
    let (good, told) = orders.run(&["test", &suite(bad_ones), "--junit", &junit]);
    assert!(
        !good
            && told.contains("6 cases, 6 failed")
            && told.contains("/price/msat is 2000, and should be 1000"),
        "{told}"
    );
    let xml = std::fs::read_to_string(&junit).unwrap();
    assert!(
        xml.contains("failures=\"6\"") && xml.contains("cheaper &amp; &lt;better&gt;"),
        "{xml}"
    );
    // The same suite with another component.
    let (good, told) = orders.run(&[
        "test",
        &suite(good_ones),
        "--component",
        &built("plugins-examples/flat-price.wasm"),
    ]);
    assert!(!good, "{told}");
    for (text, why) in [
        ("cases: [", "suite.yaml"),
        ("slot: pricing\ncomponent: x\ncase: []\n", "case"),
        ("", "suite.yaml"),
    ] {
        let (good, told) = orders.run(&["test", &orders.file("suite.yaml", text)]);
        assert!(!good && told.contains(why), "{told}");
    }
    assert!(!orders.run(&["test", &suite(" []")]).0, "a suite without cases shows nothing");
}

#[test]
fn a_component_that_got_dearer_fails_against_its_baseline() {
    let orders = OrderService::new();
    let kept = orders.path("cost.json").to_string_lossy().into_owned();
    let pricing = built("plugins/pricing.wasm");
    let (good, told) =
        orders.run(&["bench", "pricing", &pricing, "--calls", "50", "--save", &kept]);
    assert!(good && told.contains("p99, us"), "{told}");
    let (good, told) = orders.run(&[
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
    assert!(good, "the same component takes the same instructions: {told}");
    let mut cost: Value = serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap();
    assert!(
        cost["fuel"].as_u64().unwrap() > 1_000 && cost["memory_bytes"].as_u64().unwrap() > 65_536,
        "{cost}"
    );
    cost["fuel"] = json!(cost["fuel"].as_u64().unwrap() / 2);
    let before = orders.file("before.json", &cost.to_string());
    let (good, told) =
        orders.run(&["bench", "pricing", &pricing, "--calls", "50", "--baseline", &before]);
    assert!(!good && told.contains("worse"), "{told}");
    let (good, told) =
        orders.run(&["bench", "pricing", &pricing, "--baseline", &orders.file("other.json", "{}")]);
    assert!(!good && told.contains("--save"), "{told}");
}
