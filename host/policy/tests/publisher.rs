//! Policies are replaced while they serve: by the directory, by the operator, and back; and are the
//! same after a restart.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use paygress_core::Policy;
use paygress_core::backend::policy::{Context, Grant, Payment, Price, Quote, Resources, Slot};
use paygress_core::model::ids::{MintUrl, TierId};
use paygress_core::model::order::OrderView;
use paygress_core::model::units::{Msat, Sat, Seconds};
use paygress_policy::{
    PolicyDir, PolicyEngine, Publisher, Source, Sources, StartError, Superseded, SwapError, Trigger,
};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

static ENGINE: LazyLock<Arc<PolicyEngine>> = LazyLock::new(|| PolicyEngine::start(None).unwrap());

fn built(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(path);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; build the policies first: cargo xtask plugins", path.display())
    })
}

/// A policy directory with the default policies, and a state directory.
struct Fixture {
    directory: tempfile::TempDir,
    settings: BTreeMap<Slot, String>,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("plugins")).unwrap();
        let fixture = Self { directory, settings: BTreeMap::new() };
        for slot in Slot::ALL {
            std::fs::write(fixture.file(slot), built(&format!("plugins/{slot}.wasm"))).unwrap();
        }
        fixture
    }

    fn policy_dir(&self) -> PathBuf {
        self.directory.path().join("plugins")
    }

    fn file(&self, slot: Slot) -> PathBuf {
        self.policy_dir().join(format!("{slot}.wasm"))
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn config(&self) -> PolicyDir {
        PolicyDir::new(self.policy_dir(), self.settings.clone())
    }

    fn open(&self) -> Result<Publisher, StartError> {
        Publisher::open(Arc::clone(&ENGINE), &self.state(), self.config())
    }
}

/// The active policy's price of a minute, in sat.
async fn price(publisher: &Publisher) -> u64 {
    let order = OrderView { username: "user".to_owned(), ..OrderView::default() };
    let quote = publisher.host().current().quote(&order, &Context::default()).await.unwrap();
    quote.price.msat.0 * 60 / quote.price.seconds.0 / 1_000
}

fn pricing(component: Vec<u8>, settings: &str) -> Sources {
    Sources::from([(Slot::Pricing, Source { component, settings: settings.to_owned() })])
}

fn flat() -> Vec<u8> {
    built("plugins-examples/flat-price.wasm")
}

fn dear() -> Sources {
    pricing(built("plugins/pricing.wasm"), r#"{"sats_per_hour": 300}"#)
}

/// Twice: files that are being written are left for the next poll.
fn poll(publisher: &Publisher) {
    publisher.poll_policy_dir();
    publisher.poll_policy_dir();
}

fn revisions(publisher: &Publisher) -> Vec<(u64, Trigger, Vec<Slot>)> {
    publisher
        .history()
        .into_iter()
        .map(|revision| (revision.number, revision.trigger, revision.slots))
        .collect()
}

#[tokio::test]
async fn operators_replace_policies_and_go_back() {
    let fixture = Fixture::new();
    let publisher = fixture.open().unwrap();
    assert_eq!(price(&publisher).await, 1);
    let mut changes = publisher.host().changes();
    let second = publisher.publish(&pricing(flat(), "{}"), Trigger::Operator).unwrap();
    assert!(changes.has_changed().unwrap(), "the offer publisher is notified");
    changes.mark_unchanged();
    assert_eq!((second.number, price(&publisher).await), (2, 2));
    assert!(matches!(
        publisher.publish(&pricing(flat(), "{}"), Trigger::Operator),
        Err(SwapError::AlreadyActive)
    ));
    publisher.publish(&dear(), Trigger::Operator).unwrap();
    assert_eq!(
        (price(&publisher).await, publisher.settings(Slot::Pricing)),
        (5, r#"{"sats_per_hour": 300}"#.to_owned())
    );
    publisher.rollback(None).unwrap();
    assert_eq!(price(&publisher).await, 2);
    publisher.rollback(None).unwrap();
    assert_eq!(price(&publisher).await, 1);
    assert!(matches!(publisher.rollback(None), Err(SwapError::NoEarlierRevision)));
    let unknown = publisher.rollback(Some(99)).unwrap_err();
    assert!(matches!(unknown, SwapError::UnknownRevision(99)));
    assert!(unknown.to_string().contains("no revision 99"));
    publisher.rollback(Some(3)).unwrap();
    assert_eq!(price(&publisher).await, 5);
    let only = || vec![Slot::Pricing];
    assert_eq!(
        revisions(&publisher),
        [
            (1, Trigger::Start, Slot::ALL.to_vec()),
            (2, Trigger::Operator, only()),
            (3, Trigger::Operator, only()),
            (4, Trigger::Rollback(2), only()),
            (5, Trigger::Rollback(1), only()),
            (6, Trigger::Rollback(3), only()),
        ]
    );
}

#[tokio::test]
async fn several_slots_are_replaced_together_or_not_at_all() {
    let fixture = Fixture::new();
    let publisher = fixture.open().unwrap();
    let before = publisher.host().current().digests();
    let mut both = pricing(flat(), "{}");
    both.insert(Slot::Duration, Source::plain(built("plugins/images.wasm")));
    both.insert(Slot::Images, Source::plain(b"no component".to_vec()));
    let Err(SwapError::Rejected(errors)) = publisher.publish(&both, Trigger::Operator) else {
        panic!("accepted")
    };
    assert_eq!(
        errors.iter().map(|error| error.slot).collect::<Vec<_>>(),
        [Slot::Images, Slot::Duration],
        "each is reported"
    );
    assert_eq!(publisher.host().current().digests(), before);
    both.remove(&Slot::Images);
    both.insert(Slot::Duration, Source::plain(built("plugins-for-tests/old-duration.wasm")));
    assert_eq!(
        publisher.publish(&both, Trigger::Operator).unwrap().slots,
        [Slot::Pricing, Slot::Duration]
    );
}

#[tokio::test]
async fn the_directory_is_polled_and_a_broken_file_changes_nothing() {
    let fixture = Fixture::new();
    let publisher = fixture.open().unwrap();
    poll(&publisher);
    assert_eq!(publisher.history().len(), 1, "nothing has changed");
    // A good file and a broken one: neither is accepted, and the good one is not forgotten.
    std::fs::write(fixture.file(Slot::Pricing), flat()).unwrap();
    std::fs::write(fixture.file(Slot::Images), "half a fil").unwrap();
    publisher.poll_policy_dir();
    poll(&publisher);
    assert_eq!((price(&publisher).await, publisher.history().len()), (1, 1));
    std::fs::write(fixture.file(Slot::Images), built("plugins/images.wasm")).unwrap();
    poll(&publisher);
    assert_eq!(price(&publisher).await, 2);
    assert_eq!(revisions(&publisher)[1], (2, Trigger::PolicyDir, vec![Slot::Pricing]));
    // It waits while a file is missing.
    std::fs::remove_file(fixture.file(Slot::Duration)).unwrap();
    poll(&publisher);
    poll(&publisher);
    std::fs::write(fixture.file(Slot::Duration), built("plugins-for-tests/old-duration.wasm"))
        .unwrap();
    publisher.poll_policy_dir();
    assert_eq!(publisher.history().len(), 2, "it may still be being written");
    publisher.poll_policy_dir();
    assert_eq!(revisions(&publisher)[2], (3, Trigger::PolicyDir, vec![Slot::Duration]));
}

#[tokio::test]
async fn a_swap_in_one_slot_survives_a_restart_and_changes_in_others() {
    let mut fixture = Fixture::new();
    let publisher = fixture.open().unwrap();
    publisher.publish(&dear(), Trigger::Operator).unwrap();
    std::fs::write(fixture.file(Slot::Duration), built("plugins-for-tests/old-duration.wasm"))
        .unwrap();
    poll(&publisher);
    assert_eq!(price(&publisher).await, 5, "the pricing of the directory has not changed");
    drop(publisher);
    let publisher = fixture.open().unwrap();
    assert_eq!(
        (price(&publisher).await, publisher.history().len()),
        (5, 3),
        "a restart that changes nothing is no revision"
    );
    drop(publisher);
    // The settings of another slot change in the config file.
    fixture
        .settings
        .insert(Slot::Images, r#"{"default": "docker.io/library/debian:12"}"#.to_owned());
    let publisher = fixture.open().unwrap();
    assert_eq!(price(&publisher).await, 5);
    assert_eq!(revisions(&publisher)[3], (4, Trigger::Start, vec![Slot::Images]));
    drop(publisher);
    // Those of the same slot change: the operator's last change counts.
    fixture.settings.insert(Slot::Pricing, r#"{"sats_per_hour": 180}"#.to_owned());
    let publisher = fixture.open().unwrap();
    assert_eq!(price(&publisher).await, 3);
    assert_eq!(revisions(&publisher)[4], (5, Trigger::Start, vec![Slot::Pricing]));
}

#[tokio::test]
async fn the_last_good_ones_stay_when_the_directory_is_broken_at_the_start() {
    let fixture = Fixture::new();
    drop(fixture.open().unwrap());
    std::fs::write(fixture.file(Slot::Pricing), "broken").unwrap();
    let publisher = fixture.open().unwrap();
    assert_eq!(
        (price(&publisher).await, publisher.history().len()),
        (1, 1),
        "a fallback is no revision"
    );
    poll(&publisher);
    assert_eq!(publisher.history().len(), 1);
    std::fs::write(fixture.file(Slot::Pricing), flat()).unwrap();
    poll(&publisher);
    assert_eq!(price(&publisher).await, 2, "and the repaired file is accepted");
    drop(publisher);
    std::fs::remove_dir_all(fixture.policy_dir()).unwrap();
    let publisher = fixture.open().unwrap();
    assert_eq!(
        (price(&publisher).await, publisher.history().len()),
        (2, 2),
        "a missing directory is not an empty one"
    );
}

fn desired(version: &str) -> BTreeMap<Slot, String> {
    BTreeMap::from([(Slot::Pricing, version.to_owned())])
}

/// A slot that a resource has set is the resource's, whatever an upgrade installs; the others are
/// the directory's.
#[tokio::test]
async fn the_directory_leaves_a_slot_to_its_resource() {
    let fixture = Fixture::new();
    let open = || {
        Publisher::open(
            Arc::clone(&ENGINE),
            &fixture.state(),
            fixture.config().defer_to_resources(),
        )
        .unwrap()
    };
    let publisher = open();
    publisher.publish_desired(&dear(), desired("a 1")).unwrap();
    std::fs::write(fixture.file(Slot::Pricing), flat()).unwrap();
    poll(&publisher);
    assert_eq!((price(&publisher).await, publisher.history().len()), (5, 2));
    drop(publisher);
    let publisher = open();
    assert_eq!(
        (price(&publisher).await, publisher.desired_version(Slot::Pricing).as_deref()),
        (5, Some("a 1"))
    );
    resource_takes_over_what_it_desires(&publisher);
    publisher.publish_desired(&dear(), desired("b 1")).unwrap();
    drop(publisher);
    // Without resources the next change of the file counts again.
    let publisher = fixture.open().unwrap();
    std::fs::write(fixture.file(Slot::Pricing), built("plugins/pricing.wasm")).unwrap();
    poll(&publisher);
    assert_eq!(price(&publisher).await, 1);
}

/// What the operator activated belongs to a resource that desires the same, and to none when no
/// resource does.
fn resource_takes_over_what_it_desires(publisher: &Publisher) {
    publisher.publish(&pricing(flat(), "{}"), Trigger::Operator).unwrap();
    assert_eq!(
        (publisher.superseded(Slot::Pricing, "a 1"), publisher.desired_version(Slot::Pricing)),
        (Some(Superseded { revision: 4, trigger: Trigger::Operator }), None)
    );
    assert_eq!(
        publisher.publish_desired(&pricing(flat(), "{}"), desired("a 2")).unwrap().slots,
        [Slot::Pricing]
    );
    assert_eq!(
        (
            publisher.superseded(Slot::Pricing, "a 2"),
            publisher.desired_version(Slot::Pricing).as_deref()
        ),
        (None, Some("a 2"))
    );
    assert!(matches!(
        publisher.publish_desired(&pricing(flat(), "{}"), desired("a 2")),
        Err(SwapError::AlreadyActive)
    ));
    assert!(matches!(
        publisher.publish(&pricing(flat(), "{}"), Trigger::Operator),
        Err(SwapError::AlreadyActive)
    ));
    assert_eq!(
        publisher.publish_desired(&pricing(flat(), "{}"), BTreeMap::new()).unwrap().slots,
        [Slot::Pricing]
    );
    assert_eq!(publisher.desired_version(Slot::Pricing), None);
}

#[test]
fn without_good_policies_it_does_not_start_and_reports_every_problem() {
    let fixture = Fixture::new();
    std::fs::write(fixture.file(Slot::Pricing), "broken").unwrap();
    std::fs::write(fixture.file(Slot::Images), built("plugins/pricing.wasm")).unwrap();
    let Err(StartError(problems)) = fixture.open() else { panic!("started") };
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].to_string().contains("images")
            && problems[0].to_string().contains("slot pricing")
            && problems[1].to_string().contains("pricing"),
        "{problems:?}"
    );
    std::fs::remove_file(fixture.file(Slot::Duration)).unwrap();
    std::fs::remove_file(fixture.file(Slot::PodTemplate)).unwrap();
    let Err(StartError(problems)) = fixture.open() else { panic!("started") };
    assert!(
        problems.len() == 2
            && problems.iter().all(|problem| problem.to_string().contains("POLICY_DIR")),
        "{problems:?}"
    );
}

#[test]
fn a_lost_component_or_a_shared_directory_is_an_error() {
    let fixture = Fixture::new();
    let publisher = fixture.open().unwrap();
    let Err(StartError(shared)) = fixture.open() else {
        panic!("two processes serve from one directory")
    };
    assert!(shared[0].to_string().contains("another process"), "{shared:?}");
    let digest = publisher.publish(&pricing(flat(), "{}"), Trigger::Operator).unwrap().set
        [&Slot::Pricing]
        .digest
        .clone();
    drop(publisher);
    // It was swapped in: no other price may take its place.
    let kept = fixture.state().join(format!("{digest}.wasm"));
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&kept, "damaged").unwrap();
    let Err(StartError(lost)) = fixture.open() else { panic!("started") };
    assert!(
        lost[0].to_string().contains(digest.as_str())
            && lost[0].to_string().contains("not what was stored"),
        "{lost:?}"
    );
    std::fs::write(&kept, flat()).unwrap();
    drop(fixture.open().unwrap());
    std::fs::set_permissions(fixture.state(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let Err(StartError(open)) = fixture.open() else { panic!("started") };
    assert!(open[0].to_string().contains("0700"), "{open:?}");
}

/// What cannot be stored is not published: after a restart something else would decide.
#[tokio::test]
async fn what_cannot_be_stored_is_not_published() {
    let fixture = Fixture::new();
    let publisher = fixture.open().unwrap();
    let path = fixture.state();
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, "not a directory").unwrap();
    assert!(matches!(
        publisher.publish(&pricing(flat(), "{}"), Trigger::Operator),
        Err(SwapError::NotStored(_))
    ));
    assert_eq!((price(&publisher).await, publisher.history().len()), (1, 1));
}

/// Later lines of the history build on the first one.
#[tokio::test]
async fn an_unrecorded_start_is_recorded_before_anything_is_replaced() {
    let fixture = Fixture::new();
    let publisher = fixture.open().unwrap();
    let digest = publisher.history()[0].set[&Slot::Pricing].digest.clone();
    drop(publisher);
    std::fs::remove_dir_all(fixture.state()).unwrap();
    // As if the disk were full when the component is written.
    let in_the_way = fixture.state().join(format!("{digest}.{}.part", std::process::id()));
    std::fs::create_dir_all(&in_the_way).unwrap();
    std::fs::set_permissions(fixture.state(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let publisher = fixture.open().unwrap();
    assert_eq!(
        (price(&publisher).await, publisher.history().len()),
        (1, 0),
        "customers are served"
    );
    assert!(matches!(
        publisher.publish(&pricing(flat(), "{}"), Trigger::Operator),
        Err(SwapError::NotStored(_))
    ));
    std::fs::write(fixture.file(Slot::Pricing), flat()).unwrap();
    poll(&publisher);
    assert_eq!(price(&publisher).await, 1);
    std::fs::remove_dir(&in_the_way).unwrap();
    poll(&publisher);
    assert_eq!(
        revisions(&publisher),
        [(1, Trigger::Start, Slot::ALL.to_vec()), (2, Trigger::PolicyDir, vec![Slot::Pricing])],
        "it is tried again"
    );
    assert_eq!(
        (price(&publisher).await, publisher.rollback(None).unwrap().trigger),
        (2, Trigger::Rollback(1))
    );
    assert_eq!(price(&publisher).await, 1);
}

#[tokio::test]
async fn a_shadow_that_cannot_be_promoted_runs_on() {
    let fixture = Fixture::new();
    let publisher = fixture.open().unwrap();
    publisher.host().start_shadow(pricing(built("plugins/pricing.wasm"), "{}")).unwrap();
    assert!(matches!(publisher.promote(), Err(SwapError::AlreadyActive)));
    assert!(publisher.host().shadow_report().is_some());
    publisher.host().start_shadow(pricing(flat(), "{}")).unwrap();
    assert_eq!(
        (publisher.promote().unwrap().trigger, price(&publisher).await),
        (Trigger::Promotion, 2)
    );
    assert!(publisher.host().shadow_report().is_none());
}

#[tokio::test]
async fn both_versions_of_the_contract_are_supported() {
    let fixture = Fixture::new();
    let publisher = fixture.open().unwrap();
    let quote = Quote {
        tier: TierId::parse("a").unwrap(),
        resources: Resources::default(),
        price: Price { msat: Msat(1_000), seconds: Seconds(60) },
        minimum: Sat(1),
    };
    let mint = MintUrl::of_dry_run();
    let payment = Payment { mint, gross: Sat(10), fee: Sat(0), net: Sat(10) };
    let (order, context) = (OrderView::default(), Context::default());
    let granted = |seconds| Grant { seconds: Seconds(seconds), note: None };
    let set = publisher.host().current();
    assert_eq!(set.grant(&order, &quote, &payment, &context).await, Ok(granted(600)));
    let terms =
        set.refund(&order, &quote, &payment, &granted(600), &context).await.unwrap().unwrap();
    assert_eq!((terms.step, terms.percent), (Seconds(60), 100));
    let settings = r#"{"refund_percent": 40, "refund_step_seconds": 600}"#;
    let stingy =
        Source { component: built("plugins/duration.wasm"), settings: settings.to_owned() };
    publisher.publish(&Sources::from([(Slot::Duration, stingy)]), Trigger::Operator).unwrap();
    let terms = publisher
        .host()
        .current()
        .refund(&order, &quote, &payment, &granted(600), &context)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((terms.step, terms.percent), (Seconds(600), 40));
    let old = Source::plain(built("plugins-for-tests/old-duration.wasm"));
    publisher.publish(&Sources::from([(Slot::Duration, old)]), Trigger::Operator).unwrap();
    let set = publisher.host().current();
    assert_eq!(set.grant(&order, &quote, &payment, &context).await, Ok(granted(10)));
    assert_eq!(
        set.refund(&order, &quote, &payment, &granted(10), &context).await,
        Ok(None),
        "1.0 has no refund terms"
    );
    let report = publisher.host().report();
    assert_eq!(
        (report[2].calls, report[2].faults),
        (1, 0),
        "a function that was not called is not counted"
    );
    assert!((1 << 16..8 << 20).contains(&report[2].memory_bytes), "{report:?}");
}
