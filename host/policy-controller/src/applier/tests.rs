use super::*;
use paygress_policy::{PolicyDir, PolicyEngine, Trigger, read_component};
use std::collections::BTreeMap;
use std::path::Path;

fn desired(slot: Slot, settings: &str, mode: Mode, version: &str) -> DesiredPolicy {
    let component = read_component(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/plugins/{slot}.wasm")),
    )
    .unwrap();
    DesiredPolicy {
        slot,
        mode,
        component: Some(component),
        settings: settings.to_owned(),
        version: version.to_owned(),
    }
}

/// A policy whose component is not available.
fn unavailable(slot: Slot, mode: Mode, version: &str) -> DesiredPolicy {
    DesiredPolicy {
        slot,
        mode,
        component: None,
        settings: String::new(),
        version: version.to_owned(),
    }
}

fn pricing(settings: &str, version: &str) -> DesiredPolicy {
    desired(Slot::Pricing, settings, Mode::Enforce, version)
}

const DEAR: &str = r#"{"sats_per_hour":120}"#;
const CHEAP: &str = r#"{"sats_per_hour":30}"#;
const BROKEN: &str = r#"{"sats_per_hour":-1}"#;
const LONG: &str = r#"{"minimum_seconds":600}"#;

struct Installation {
    directory: tempfile::TempDir,
}

impl Installation {
    fn open(&self) -> Applier {
        let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins");
        let policy_dir = PolicyDir::new(plugins, BTreeMap::new()).defer_to_resources();
        let engine = PolicyEngine::start(Some(&self.directory.path().join("compiled"))).unwrap();
        Applier::new(Arc::new(
            Publisher::open(engine, &self.directory.path().join("policies"), policy_dir).unwrap(),
        ))
    }
}

impl Applier {
    fn one(&self, policy: DesiredPolicy) -> ApplyStatus {
        self.apply(vec![policy], Completeness::Complete).remove(0)
    }

    /// Beside the resources.
    fn publish(&self, policy: DesiredPolicy, trigger: Trigger) {
        let slot = policy.slot;
        let source = Candidate::new(policy).component.unwrap().0;
        self.publisher.publish(&Sources::from([(slot, source)]), trigger).unwrap();
    }

    fn settings(&self, slot: Slot) -> String {
        self.publisher.active()[&slot].settings.clone()
    }
}

fn installation() -> Installation {
    Installation { directory: tempfile::tempdir().unwrap() }
}

/// Refused while the operator's rollback, revision 3, counts.
fn superseded(status: &ApplyStatus) {
    assert!(
        matches!(status, ApplyStatus::Superseded(message) if message.contains("revision 3")),
        "{status:?}"
    );
}

#[test]
fn a_resource_stays_applied_until_the_operator_overrides_it_or_it_is_deleted() {
    let installation = installation();
    let applier = installation.open();
    let price = || applier.settings(Slot::Pricing);
    assert!(
        matches!(
            applier.apply(vec![pricing(DEAR, "p 1")], Completeness::Partial).remove(0),
            ApplyStatus::Waiting(_)
        ),
        "the set is partial"
    );
    assert_eq!(
        (applier.one(pricing(DEAR, "p 1")), price().as_str()),
        (ApplyStatus::Active(Configured::EachCall), DEAR)
    );
    assert_eq!(applier.one(pricing(DEAR, "p 1")), ApplyStatus::Active(Configured::EachCall));
    assert_eq!(applier.publisher.history().len(), 2, "nothing is published twice");
    a_rollback_lasts_until_the_resource_changes(&applier);

    // An invalid one is refused for as long as it exists, and tried once.
    let refused = applier.one(pricing(BROKEN, "p 3"));
    assert!(
        matches!(&refused, ApplyStatus::Refused(message) if message.contains("/sats_per_hour")),
        "{refused:?}"
    );
    assert_eq!((applier.one(pricing(BROKEN, "p 3")), price().as_str()), (refused, DEAR));

    // Without resources POLICY_DIR is restored, but not while the set is partial.
    assert!(applier.apply(Vec::new(), Completeness::Partial).is_empty());
    assert_eq!(
        applier.one(unavailable(Slot::Images, Mode::Enforce, "i 1")),
        ApplyStatus::Waiting("its component is not available".to_owned())
    );
    assert_eq!(price(), DEAR);
    assert!(applier.apply(Vec::new(), Completeness::Complete).is_empty());
    assert_eq!(price(), "{}");
    // What the operator activated stays, although no resource is left.
    applier.publish(pricing(CHEAP, ""), Trigger::Operator);
    assert!(applier.apply(Vec::new(), Completeness::Complete).is_empty());
    assert_eq!(price(), CHEAP);
}

/// Only a resource that changes is applied again, whatever else happens.
fn a_rollback_lasts_until_the_resource_changes(applier: &Applier) {
    let price = || applier.settings(Slot::Pricing);
    applier.publisher.rollback(None).unwrap();
    superseded(&applier.one(pricing(DEAR, "p 1")));
    superseded(&applier.one(unavailable(Slot::Pricing, Mode::Enforce, "p 1")));
    superseded(&applier.apply(vec![pricing(DEAR, "p 1")], Completeness::Partial).remove(0));
    let both = |settings: &str, version: &str| {
        vec![pricing(DEAR, "p 1"), desired(Slot::Duration, settings, Mode::Enforce, version)]
    };
    let mut statuses =
        applier.apply(both(r#"{"minimum_seconds":-1}"#, "d 1"), Completeness::Complete);
    assert!(matches!(statuses.remove(1), ApplyStatus::Refused(_)));
    superseded(&statuses.remove(0));
    superseded(&applier.apply(both(LONG, "d 2"), Completeness::Complete).remove(0));
    assert_eq!((price().as_str(), applier.settings(Slot::Duration).as_str()), ("{}", LONG));
    applier.publish(pricing(CHEAP, ""), Trigger::PolicyDir);
    superseded(&applier.one(pricing(DEAR, "p 1")));
    assert_eq!(applier.settings(Slot::Duration), "{}", "its resource is deleted");
    assert_eq!(
        (applier.one(pricing(DEAR, "p 2")), price().as_str()),
        (ApplyStatus::Active(Configured::EachCall), DEAR)
    );
}

#[test]
fn the_status_tells_what_is_active_and_survives_a_restart() {
    let active = ApplyStatus::Active(Configured::EachCall);
    let installation = installation();
    let applier = installation.open();
    assert_eq!(applier.one(pricing(DEAR, "p 1")), active.clone());
    // Its source is unavailable: it is active nevertheless, also after a restart.
    assert_eq!(applier.one(unavailable(Slot::Pricing, Mode::Enforce, "p 1")), active.clone());
    drop(applier);
    let applier = installation.open();
    assert_eq!(applier.one(unavailable(Slot::Pricing, Mode::Enforce, "p 1")), active.clone());
    assert_eq!(
        (applier.one(pricing(DEAR, "p 1")), applier.publisher.history().len()),
        (active.clone(), 2)
    );
    // The content of its source has changed: that is applied, or refused with a reason.
    assert!(matches!(applier.one(pricing(BROKEN, "p 1")), ApplyStatus::Refused(_)));
    assert_eq!(
        (applier.one(pricing(CHEAP, "p 1")), applier.settings(Slot::Pricing).as_str()),
        (active.clone(), CHEAP)
    );
    // A rollback by hand is known after a restart, too.
    applier.publisher.rollback(None).unwrap();
    assert_eq!(applier.settings(Slot::Pricing), DEAR);
    drop(applier);
    let applier = installation.open();
    assert!(matches!(applier.one(pricing(CHEAP, "p 1")), ApplyStatus::Superseded(_)));

    // A resource for what is active already takes the slot: when it is deleted, POLICY_DIR is
    // restored.
    applier.publish(pricing(CHEAP, ""), Trigger::Operator);
    assert_eq!(applier.one(pricing(CHEAP, "p 2")), active.clone());
    assert_eq!(applier.publisher.desired_version(Slot::Pricing).as_deref(), Some("p 2"));
    // A resource that is refused keeps slots from being released, too: it is one change.
    let statuses = applier.apply(
        vec![desired(Slot::Duration, r#"{"minimum_seconds":-1}"#, Mode::Enforce, "d 1")],
        Completeness::Complete,
    );
    assert!(matches!(statuses[0], ApplyStatus::Refused(_)));
    assert_eq!(applier.settings(Slot::Pricing), CHEAP);
    applier
        .apply(vec![desired(Slot::Duration, LONG, Mode::Enforce, "d 2")], Completeness::Complete);
    assert_eq!(
        (applier.settings(Slot::Pricing).as_str(), applier.settings(Slot::Duration).as_str()),
        ("{}", LONG)
    );
    assert_eq!(applier.publisher.desired_version(Slot::Pricing), None);
}

#[test]
fn a_shadow_runs_until_its_resource_is_deleted_or_promoted() {
    let installation = installation();
    let applier = installation.open();
    let host = Arc::clone(applier.publisher.host());
    let shadow = || desired(Slot::Pricing, CHEAP, Mode::Shadow, "s 1");
    assert_eq!(
        applier.apply(vec![pricing(DEAR, "p 1"), shadow()], Completeness::Complete),
        [ApplyStatus::Active(Configured::EachCall), ApplyStatus::Shadowing(Configured::EachCall)]
    );
    // Its source is unavailable for a moment: it goes on.
    let statuses = applier.apply(
        vec![pricing(DEAR, "p 1"), unavailable(Slot::Pricing, Mode::Shadow, "s 1")],
        Completeness::Complete,
    );
    assert_eq!(statuses[0], ApplyStatus::Active(Configured::EachCall));
    assert!(host.shadow_report().is_some());
    assert_eq!(applier.one(pricing(DEAR, "p 1")), ApplyStatus::Active(Configured::EachCall));
    assert!(host.shadow_report().is_none());
    // Promoted, and then enforced by a resource.
    assert_eq!(applier.one(shadow()), ApplyStatus::Shadowing(Configured::EachCall));
    assert_eq!(applier.settings(Slot::Pricing), "{}");
    applier.publisher.promote().unwrap();
    assert_eq!(
        (applier.settings(Slot::Pricing).as_str(), host.shadow_report().is_none()),
        (CHEAP, true)
    );
    assert!(matches!(applier.one(shadow()), ApplyStatus::Waiting(_)));
    assert_eq!(applier.one(pricing(CHEAP, "s 2")), ApplyStatus::Active(Configured::EachCall));
    assert_eq!(applier.publisher.desired_version(Slot::Pricing).as_deref(), Some("s 2"));
}
