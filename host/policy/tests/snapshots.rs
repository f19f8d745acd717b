//! Calls that start from a snapshot decide as calls that begin with `configure`.
#![cfg(test)]

#[path = "support/both_ways.rs"]
mod both_ways;

use both_ways::BothWays;
use paygress_core::Policy;
use paygress_core::backend::policy::{Configured, Context, FaultKind, PolicyError, Slot};
use paygress_core::model::order::OrderView;
use paygress_policy::{
    Harness, Host, PolicyEngine, RejectReason, Source, Sources, SwapError, TemplateGuard,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn built(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target").join(path);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; build the policies first: cargo xtask plugins", path.display())
    })
}

fn default_policies() -> Sources {
    let source = |slot| Source::plain(built(&format!("plugins/{slot}.wasm")));
    Slot::ALL.into_iter().map(|slot| (slot, source(slot))).collect()
}

fn engine() -> Arc<PolicyEngine> {
    PolicyEngine::start(None).unwrap().with_snapshots()
}

fn hostile(settings: &str) -> Source {
    Source { component: built("plugins-for-tests/hostile.wasm"), settings: settings.to_owned() }
}

/// The same component with another one in it that is never used, and that wizer does not take.
fn not_for_snapshots(component: &[u8]) -> Vec<u8> {
    let module = [&[1, 8][..], b"\0asm\x01\0\0\0"].concat();
    let nested = [&b"\0asm\x0d\0\x01\0"[..], &module].concat();
    [component, &[4, u8::try_from(nested.len()).unwrap()], &nested].concat()
}

fn configured(host: &Host) -> BTreeMap<Slot, Configured> {
    host.report().into_iter().map(|stats| (stats.slot, stats.configured)).collect()
}

fn order(tier: Option<&str>) -> OrderView {
    OrderView {
        id: "a".to_owned(),
        tier: tier.map(str::to_owned),
        username: "user".to_owned(),
        ..OrderView::default()
    }
}

async fn price(host: &Host) -> u64 {
    host.current().quote(&order(None), &Context::default()).await.unwrap().price.msat.0
}

#[test]
fn the_default_policies_decide_the_same_from_a_snapshot() {
    let engines = BothWays::start(None);
    for (slot, source) in default_policies() {
        let settings: &[&str] = match slot {
            Slot::Pricing => &["{}", r#"{"sats_per_hour": 120}"#],
            _ => &["{}"],
        };
        for settings in settings {
            let way = engines.assert_same(slot.as_str(), slot, &source.component, settings);
            assert_eq!(way, Configured::Snapshot, "{slot}");
        }
    }
}

#[test]
fn the_examples_in_rust_decide_the_same_from_a_snapshot() {
    let engines = BothWays::start(None);
    let gpus = r#"{"gpu_tiers": ["gpu"], "gpus": 2, "node_selector": {"gpu": "a100"}}"#;
    let coupon =
        r#"{"keys": ["f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9"]}"#;
    let root = r#"{"root": "npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6"}"#;
    for (example, slot, settings) in [
        ("coupons", Slot::Pricing, coupon),
        ("daily-budget", Slot::Duration, r#"{"hours_per_day": 24}"#),
        ("fair-share", Slot::Duration, r#"{"max_pods": 1}"#),
        ("first-hour", Slot::Duration, "{}"),
        ("price-table", Slot::Pricing, "{}"),
        ("regions", Slot::PodTemplate, r#"{"regions": {"eu": "eu-1"}}"#),
        ("signed-images", Slot::Images, "{}"),
        ("web-of-trust", Slot::Images, root),
        ("flat-price", Slot::Pricing, "{}"),
        ("surge-price", Slot::Pricing, r#"{"sats_per_hour": 120, "from_percent": 0}"#),
        ("gpu-template", Slot::PodTemplate, gpus),
        ("node-port", Slot::PodTemplate, r#"{"external_traffic_policy": "Cluster"}"#),
    ] {
        let component = built(&format!("plugins-examples/{example}.wasm"));
        let way = engines.assert_same(example, slot, &component, settings);
        assert_eq!(way, Configured::Snapshot, "{example}");
    }
    let component = built("plugins-for-tests/old-duration.wasm");
    engines.assert_same("contract 1.0", Slot::Duration, &component, "{}");
}

#[tokio::test]
async fn a_component_without_a_snapshot_takes_its_settings_in_each_call() {
    let pricing = built("plugins/pricing.wasm");
    let component = not_for_snapshots(&pricing);
    let engines = BothWays::start(None);
    let settings = r#"{"sats_per_hour": 120}"#;
    let way = engines.assert_same("pricing", Slot::Pricing, &component, settings);
    assert_eq!(way, Configured::EachCall);
    let mut sources = default_policies();
    sources.insert(Slot::Pricing, Source { component, settings: settings.to_owned() });
    let host = Host::load(engine(), &sources).unwrap();
    let ways = configured(&host);
    assert_eq!(
        (ways[&Slot::Pricing], ways[&Slot::Images]),
        (Configured::EachCall, Configured::Snapshot)
    );
    assert_eq!(price(&host).await, 2_000);
}

#[tokio::test]
async fn other_settings_have_a_snapshot_of_their_own() {
    let host = Host::load(engine(), &default_policies()).unwrap();
    let before = host.current();
    let pricing = Source {
        settings: r#"{"sats_per_hour": 120}"#.to_owned(),
        ..default_policies().remove(&Slot::Pricing).unwrap()
    };
    host.swap(&Sources::from([(Slot::Pricing, pricing)]), || Ok(())).unwrap();
    assert!(configured(&host).values().all(|way| *way == Configured::Snapshot));
    let old = before.quote(&order(None), &Context::default()).await.unwrap();
    assert_eq!((old.price.msat.0, price(&host).await), (1_000, 2_000));
}

#[test]
fn problems_of_the_settings_and_failures_of_configure_are_reported_as_without_snapshots() {
    let reject = |engine: &Arc<PolicyEngine>, Source { component, settings }: Source| {
        Harness::load(engine, Slot::Pricing, &component, &settings).map(drop).unwrap_err()
    };
    let without = PolicyEngine::start(None).unwrap();
    let with = without.with_snapshots();
    let pricing = Source {
        component: built("plugins/pricing.wasm"),
        settings: r#"{"sats_per_hour": 0, "colour": "red"}"#.to_owned(),
    };
    for source in [
        pricing,
        hostile(r#"{"configure": "problems"}"#),
        hostile(r#"{"configure": "panic"}"#),
        hostile(r#"{"configure": "spin"}"#),
        hostile(r#"{"configure": "hundred-megabytes"}"#),
    ] {
        assert_eq!(reject(&with, source.clone()), reject(&without, source));
    }
}

#[tokio::test]
async fn nothing_is_kept_from_one_call_to_the_next_and_limits_hold() {
    let mut sources = default_policies();
    sources.insert(Slot::Pricing, hostile(r#"{"configure": "long-tier"}"#));
    let host = Host::load(engine(), &sources).unwrap();
    assert_eq!(configured(&host)[&Slot::Pricing], Configured::Snapshot);
    let quote = |tier: &'static str| {
        let set = host.current();
        async move { set.quote(&order(Some(tier)), &Context::default()).await }
    };
    let good = quote("good").await.unwrap();
    type Expected = fn(&FaultKind) -> bool;
    let faults: [(&str, Expected); 5] = [
        ("spin", |kind| matches!(kind, FaultKind::Deadline(100))),
        ("allocate", |kind| matches!(kind, FaultKind::Memory(_))),
        ("hundred-megabytes", |kind| matches!(kind, FaultKind::Memory(_))),
        ("huge-tier", |kind| matches!(kind, FaultKind::InvalidOutput(_))),
        ("panic", |kind| matches!(kind, FaultKind::Trap(_))),
    ];
    for (tier, expected) in faults {
        match quote(tier).await {
            Err(PolicyError::Fault(fault)) => assert!(expected(&fault.kind), "{tier}: {fault:?}"),
            other => panic!("{tier}: {other:?}"),
        }
        assert_eq!(quote("good").await.unwrap(), good, "after {tier}");
    }
}

#[test]
fn shadows_have_snapshots_and_outlive_a_rejected_swap() {
    let host = Host::load(engine(), &default_policies()).unwrap();
    host.start_shadow(default_policies()).unwrap();
    let report = host.shadow_report().unwrap();
    assert!(report.candidates.iter().all(|stats| stats.configured == Configured::Snapshot));
    let broken = Source {
        component: built("plugins/pricing.wasm"),
        settings: r#"{"colour": "red"}"#.to_owned(),
    };
    let rejected = host.swap(&Sources::from([(Slot::Pricing, broken)]), || Ok(()));
    assert!(matches!(rejected, Err(SwapError::Rejected(errors))
            if matches!(errors[0].reason, RejectReason::Settings(_))));
    assert!(host.shadow_report().is_some(), "the shadow runs on");
}

fn cached(cache: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn snapshots_are_cached_for_this_user_by_component_settings_and_engine() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("compiled");
    let component = built("plugins/pricing.wasm");
    let load = |engine: &Arc<PolicyEngine>, settings: &str| {
        let harness = Harness::load(engine, Slot::Pricing, &component, settings).unwrap();
        assert_eq!(harness.configured(), Configured::Snapshot);
    };
    let start = || PolicyEngine::start(Some(&cache)).unwrap().with_snapshots();
    load(&start(), "{}");
    let files = cached(&cache);
    assert_eq!(files.len(), 2, "the component and its snapshot: {files:?}");
    let content = |file: &PathBuf| (file.clone(), std::fs::metadata(file).unwrap().len());
    let before: Vec<_> = files.iter().map(content).collect();
    for file in &files {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        // Truncated: it must be made again, not run.
        let code = std::fs::read(file).unwrap();
        std::fs::write(file, &code[..code.len() / 2]).unwrap();
    }
    load(&start(), "{}");
    assert_eq!(files.iter().map(content).collect::<Vec<_>>(), before, "they are made again");
    load(&start(), r#"{"sats_per_hour": 120}"#);
    assert_eq!(cached(&cache).len(), 3, "other settings share the component");
    let counting = PolicyEngine::with_fuel(Some(&cache)).unwrap().with_snapshots();
    load(&counting, "{}");
    assert_eq!(cached(&cache).len(), 5, "another engine shares nothing");
}

#[test]
fn templates_of_snapshots_are_checked() {
    let guard: TemplateGuard = Box::new(|_, _| Err("nothing is allowed".into()));
    let rejected = Host::load(engine().with_template_guard(guard), &default_policies());
    let errors = rejected.map(drop).unwrap_err();
    assert_eq!(errors[0].slot, Slot::PodTemplate);
}
