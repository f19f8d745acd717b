//! The list of images that is published: of each version of the contract, and of a hostile policy.
#![cfg(test)]

use paygress_core::Policy;
use paygress_core::backend::policy::{Context, FaultKind, ImageOffer, PolicyError, Slot};
use paygress_core::model::ids::ImageRef;
use paygress_core::model::order::OrderView;
use paygress_policy::{Host, PolicyEngine, Source, Sources};
use std::path::Path;
use std::sync::Arc;

fn file(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; build the policies first: cargo xtask plugins", path.display())
    })
}

/// The default policies.
fn host() -> Arc<Host> {
    let source = |slot: Slot| (slot, Source::plain(file(&format!("target/plugins/{slot}.wasm"))));
    Host::load(PolicyEngine::start(None).unwrap(), &Slot::ALL.into_iter().map(source).collect())
        .unwrap()
}

fn swap(host: &Host, source: Source) {
    host.swap(&Sources::from([(Slot::Images, source)]), || Ok(())).unwrap();
}

/// What is listed with this many active leases.
async fn listed(host: &Host, active_leases: u32) -> Result<Vec<ImageOffer>, PolicyError> {
    host.current().catalog(&Context { active_leases, ..Context::default() }).await
}

/// How often the images policy was called, and how often it failed.
fn calls(host: &Host) -> (u64, u64) {
    let report = host.report();
    let images = report.iter().find(|stats| stats.slot == Slot::Images).unwrap();
    (images.calls, images.faults)
}

#[tokio::test]
async fn the_default_policy_lists_its_images_and_components_of_earlier_versions_none() {
    let host = host();
    let default = ImageOffer { reference: "paygress.local/ssh:1".to_owned(), description: None };
    assert_eq!((listed(&host, 0).await, calls(&host)), (Ok(vec![default]), (1, 0)));
    let settings = r#"{"default": "debian:13", "allow": ["team/tools"], "preset": "common"}"#;
    let component = file("target/plugins/images.wasm");
    swap(&host, Source { component, settings: settings.to_owned() });
    let images = listed(&host, 0).await.unwrap();
    let shown: Vec<(&str, Option<&str>)> =
        images.iter().map(|image| (&*image.reference, image.description.as_deref())).collect();
    assert_eq!(shown[..2], [("debian:13", Some("Debian 13")), ("team/tools:*", None)]);
    assert!(shown.contains(&("alpine:3", Some("Alpine Linux 3"))), "{shown:?}");

    let old = file("host/cli/tests/fixtures/v0.1.0/components/images.wasm");
    // Nothing but the number differs between 1.0 and 1.1 in this slot.
    for component in [renumbered(&old, b"@1.1.0"), old] {
        swap(&host, Source::plain(component));
        assert_eq!((listed(&host, 0).await, calls(&host)), (Ok(Vec::new()), (0, 0)));
        let order = OrderView { username: "user".to_owned(), ..OrderView::default() };
        let admitted = host.current().admit(&order, &Context::default()).await;
        assert_eq!(admitted, Ok(ImageRef::parse("paygress.local/ssh:1").unwrap()));
    }
}

/// A component of contract 1.0, with another version in its place.
fn renumbered(component: &[u8], version: &[u8; 6]) -> Vec<u8> {
    let mut bytes = component.to_vec();
    for start in 0..bytes.len() {
        if bytes[start..].starts_with(b"@1.0.0") {
            bytes[start..][..version.len()].copy_from_slice(version);
        }
    }
    assert_ne!(bytes, component);
    bytes
}

#[tokio::test]
async fn a_hostile_list_costs_its_own_call_and_no_order() {
    let host = host();
    swap(&host, Source::plain(file("target/plugins-for-tests/hostile-images.wasm")));
    type Expected = fn(&FaultKind) -> bool;
    let faults: [(u32, &str, Expected); 6] = [
        (
            1,
            "1,000 images",
            |kind| matches!(kind, FaultKind::InvalidOutput(reason) if reason.contains("1000 images")),
        ),
        (2, "a huge name", |kind| matches!(kind, FaultKind::InvalidOutput(_))),
        (
            3,
            "32 KiB",
            |kind| matches!(kind, FaultKind::InvalidOutput(reason) if reason.contains("32768 bytes")),
        ),
        (
            4,
            "an escape",
            |kind| matches!(kind, FaultKind::InvalidOutput(reason) if reason.contains("control character")),
        ),
        (5, "a panic", |kind| matches!(kind, FaultKind::Trap(_))),
        (6, "a loop", |kind| matches!(kind, FaultKind::Deadline(100))),
    ];
    for (active_leases, name, expected) in faults {
        let Err(PolicyError::Fault(fault)) = listed(&host, active_leases).await else {
            panic!("{name} is listed")
        };
        assert!(fault.slot == Slot::Images && expected(&fault.kind), "{name}: {fault}");
        let order = OrderView { image: Some("alpine:3".to_owned()), ..OrderView::default() };
        let context = Context { active_leases, ..Context::default() };
        let admitted = host.current().admit(&order, &context).await;
        assert_eq!(admitted, Ok(ImageRef::parse("alpine:3").unwrap()), "after {name}");
    }
    assert_eq!(calls(&host), (12, 6));
    assert_eq!(listed(&host, 0).await.map(|images| images.len()), Ok(1));
}
