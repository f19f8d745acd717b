//! Policies are exchanged while they serve: by the folder, by the operator, and back; and are the
//! same after a restart.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use paygress_core::Policy;
use paygress_core::backend::policy::{Context, Grant, Payment, Price, Quote, Resources, Slot};
use paygress_core::model::order::OrderView;
use paygress_core::model::units::{Msat, Sat, Seconds};
use paygress_policy::{
    PolicyDir, PolicyEngine, Publisher, Source, Sources, StartError, SwapError, Trigger,
};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

static MACHINE: LazyLock<Arc<PolicyEngine>> = LazyLock::new(|| PolicyEngine::start(None).unwrap());

fn built(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(path);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; build the policies first: cargo xtask plugins", path.display())
    })
}

/// A folder with the default policies, and a place for what is remembered.
struct Place {
    directory: tempfile::TempDir,
    settings: BTreeMap<Slot, String>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("plugins")).unwrap();
        let place = Self { directory, settings: BTreeMap::new() };
        for slot in Slot::ALL {
            std::fs::write(place.file(slot), built(&format!("plugins/{slot}.wasm"))).unwrap();
        }
        place
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("plugins")
    }

    fn file(&self, slot: Slot) -> PathBuf {
        self.folder().join(format!("{slot}.wasm"))
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn as_folder(&self) -> PolicyDir {
        PolicyDir::new(self.folder(), self.settings.clone())
    }

    fn open(&self) -> Result<Publisher, StartError> {
        Publisher::open(Arc::clone(&MACHINE), &self.state(), self.as_folder())
    }
}

/// The price of a minute in sat, as the policy in force says it.
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

/// Twice: files that are being written are left for the next look.
fn look(publisher: &Publisher) {
    publisher.look_at_folder();
    publisher.look_at_folder();
}

fn told(publisher: &Publisher) -> Vec<(u64, Trigger, Vec<Slot>)> {
    publisher
        .history()
        .into_iter()
        .map(|publication| (publication.number, publication.by, publication.slots))
        .collect()
}

#[tokio::test]
async fn operators_exchange_policies_and_go_back() {
    let place = Place::new();
    let publisher = place.open().unwrap();
    assert_eq!(price(&publisher).await, 1);
    let mut changes = publisher.host().changes();
    let second = publisher.publish(&pricing(flat(), "{}"), Trigger::Operator).unwrap();
    assert!(changes.has_changed().unwrap(), "who publishes offers is told");
    changes.mark_unchanged();
    assert_eq!((second.number, price(&publisher).await), (2, 2));
    assert_eq!(
        publisher.publish(&pricing(flat(), "{}"), Trigger::Operator),
        Err(SwapError::InForce)
    );
    publisher.publish(&dear(), Trigger::Operator).unwrap();
    assert_eq!(
        (price(&publisher).await, publisher.settings(Slot::Pricing)),
        (5, r#"{"sats_per_hour": 300}"#.to_owned())
    );
    publisher.rollback(None).unwrap();
    assert_eq!(price(&publisher).await, 2);
    publisher.rollback(None).unwrap();
    assert_eq!(price(&publisher).await, 1);
    assert!(
        matches!(publisher.rollback(None), Err(SwapError::Nothing(why)) if why.contains("nothing before"))
    );
    assert!(
        matches!(publisher.rollback(Some(99)), Err(SwapError::Nothing(why)) if why.contains("no publication 99"))
    );
    publisher.rollback(Some(3)).unwrap();
    assert_eq!(price(&publisher).await, 5);
    let only = || vec![Slot::Pricing];
    assert_eq!(
        told(&publisher),
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
async fn several_slots_are_exchanged_together_or_not_at_all() {
    let place = Place::new();
    let publisher = place.open().unwrap();
    let before = publisher.host().current().digests();
    let mut both = pricing(flat(), "{}");
    both.insert(Slot::Duration, Source::plain(built("plugins/images.wasm")));
    both.insert(Slot::Images, Source::plain(b"no component".to_vec()));
    let Err(SwapError::NotTaken(errors)) = publisher.publish(&both, Trigger::Operator) else {
        panic!("taken")
    };
    assert_eq!(
        errors.iter().map(|error| error.slot).collect::<Vec<_>>(),
        [Slot::Images, Slot::Duration],
        "each is told"
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
async fn the_folder_is_watched_and_a_broken_file_changes_nothing() {
    let place = Place::new();
    let publisher = place.open().unwrap();
    look(&publisher);
    assert_eq!(publisher.history().len(), 1, "nothing has changed");
    // A good file and a broken one: neither is taken, and the good one is not forgotten.
    std::fs::write(place.file(Slot::Pricing), flat()).unwrap();
    std::fs::write(place.file(Slot::Images), "half a fil").unwrap();
    publisher.look_at_folder();
    look(&publisher);
    assert_eq!((price(&publisher).await, publisher.history().len()), (1, 1));
    std::fs::write(place.file(Slot::Images), built("plugins/images.wasm")).unwrap();
    look(&publisher);
    assert_eq!(price(&publisher).await, 2);
    assert_eq!(told(&publisher)[1], (2, Trigger::PolicyDir, vec![Slot::Pricing]));
    // While files come and go it waits.
    std::fs::remove_file(place.file(Slot::Duration)).unwrap();
    look(&publisher);
    look(&publisher);
    std::fs::write(place.file(Slot::Duration), built("plugins-for-tests/old-duration.wasm"))
        .unwrap();
    publisher.look_at_folder();
    assert_eq!(publisher.history().len(), 2, "it may still be being written");
    publisher.look_at_folder();
    assert_eq!(told(&publisher)[2], (3, Trigger::PolicyDir, vec![Slot::Duration]));
}

#[tokio::test]
async fn what_was_swapped_in_one_slot_outlives_a_restart_and_changes_in_others() {
    let mut place = Place::new();
    let publisher = place.open().unwrap();
    publisher.publish(&dear(), Trigger::Operator).unwrap();
    std::fs::write(place.file(Slot::Duration), built("plugins-for-tests/old-duration.wasm"))
        .unwrap();
    look(&publisher);
    assert_eq!(price(&publisher).await, 5, "the folder's pricing is no news");
    drop(publisher);
    let publisher = place.open().unwrap();
    assert_eq!(
        (price(&publisher).await, publisher.history().len()),
        (5, 3),
        "a restart that changes nothing is no publication"
    );
    drop(publisher);
    // The settings of another slot change in the config file.
    place.settings.insert(Slot::Images, r#"{"default": "docker.io/library/debian:12"}"#.to_owned());
    let publisher = place.open().unwrap();
    assert_eq!(price(&publisher).await, 5);
    assert_eq!(told(&publisher)[3], (4, Trigger::Start, vec![Slot::Images]));
    drop(publisher);
    // Those of the very slot change: the operator's newest word counts.
    place.settings.insert(Slot::Pricing, r#"{"sats_per_hour": 180}"#.to_owned());
    let publisher = place.open().unwrap();
    assert_eq!(price(&publisher).await, 3);
    assert_eq!(told(&publisher)[4], (5, Trigger::Start, vec![Slot::Pricing]));
}

#[tokio::test]
async fn the_last_good_ones_go_on_when_the_folder_is_broken_at_the_start() {
    let place = Place::new();
    drop(place.open().unwrap());
    std::fs::write(place.file(Slot::Pricing), "broken").unwrap();
    let publisher = place.open().unwrap();
    assert_eq!(
        (price(&publisher).await, publisher.history().len()),
        (1, 1),
        "a fallback is no publication"
    );
    look(&publisher);
    assert_eq!(publisher.history().len(), 1);
    std::fs::write(place.file(Slot::Pricing), flat()).unwrap();
    look(&publisher);
    assert_eq!(price(&publisher).await, 2, "and the mended file is taken");
    drop(publisher);
    std::fs::remove_dir_all(place.folder()).unwrap();
    let publisher = place.open().unwrap();
    assert_eq!(
        (price(&publisher).await, publisher.history().len()),
        (2, 2),
        "a folder that is not there is not an empty one"
    );
}

/// A slot that a resource has filled is the resource's, whatever an upgrade brings; the others are
/// the folder's.
#[tokio::test]
async fn the_folder_leaves_to_a_resource_what_is_the_resources() {
    let place = Place::new();
    let open = || {
        Publisher::open(
            Arc::clone(&MACHINE),
            &place.state(),
            place.as_folder().defer_to_resources(true),
        )
        .unwrap()
    };
    let publisher = open();
    let wish = |version: &str| BTreeMap::from([(Slot::Pricing, version.to_owned())]);
    publisher.grant(&dear(), wish("a 1")).unwrap();
    std::fs::write(place.file(Slot::Pricing), flat()).unwrap();
    look(&publisher);
    assert_eq!((price(&publisher).await, publisher.history().len()), (5, 2));
    drop(publisher);
    let publisher = open();
    assert_eq!(
        (price(&publisher).await, publisher.wish(Slot::Pricing).as_deref()),
        (5, Some("a 1"))
    );
    // What the operator put there is another's when another wishes for the same, and nobody's when
    // nobody does.
    publisher.publish(&pricing(flat(), "{}"), Trigger::Operator).unwrap();
    assert_eq!(
        (publisher.superseded(Slot::Pricing, "a 1"), publisher.wish(Slot::Pricing)),
        (Some((4, Trigger::Operator)), None)
    );
    assert_eq!(
        publisher.grant(&pricing(flat(), "{}"), wish("a 2")).unwrap().slots,
        [Slot::Pricing]
    );
    assert_eq!(
        (publisher.superseded(Slot::Pricing, "a 2"), publisher.wish(Slot::Pricing).as_deref()),
        (None, Some("a 2"))
    );
    assert_eq!(publisher.grant(&pricing(flat(), "{}"), wish("a 2")), Err(SwapError::InForce));
    assert_eq!(
        publisher.publish(&pricing(flat(), "{}"), Trigger::Operator),
        Err(SwapError::InForce)
    );
    assert_eq!(
        publisher.grant(&pricing(flat(), "{}"), BTreeMap::new()).unwrap().slots,
        [Slot::Pricing]
    );
    assert_eq!(publisher.wish(Slot::Pricing), None);
    publisher.grant(&dear(), wish("b 1")).unwrap();
    drop(publisher);
    // Nobody heeds resources any more: the next change of the file counts again.
    let publisher = place.open().unwrap();
    std::fs::write(place.file(Slot::Pricing), built("plugins/pricing.wasm")).unwrap();
    look(&publisher);
    assert_eq!(price(&publisher).await, 1);
}

#[test]
fn without_good_policies_it_does_not_start_and_tells_all_that_is_wrong() {
    let place = Place::new();
    std::fs::write(place.file(Slot::Pricing), "broken").unwrap();
    std::fs::write(place.file(Slot::Images), built("plugins/pricing.wasm")).unwrap();
    let Err(StartError(problems)) = place.open() else { panic!("started") };
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].contains("images")
            && problems[0].contains("slot pricing")
            && problems[1].contains("pricing"),
        "{problems:?}"
    );
    std::fs::remove_file(place.file(Slot::Duration)).unwrap();
    std::fs::remove_file(place.file(Slot::PodTemplate)).unwrap();
    let Err(StartError(problems)) = place.open() else { panic!("started") };
    assert!(
        problems.len() == 2 && problems.iter().all(|problem| problem.contains("POLICY_DIR")),
        "{problems:?}"
    );
}

#[test]
fn what_is_lost_or_shared_is_told() {
    let place = Place::new();
    let publisher = place.open().unwrap();
    let Err(StartError(shared)) = place.open() else { panic!("two serve from one store") };
    assert!(shared[0].contains("another process"), "{shared:?}");
    let digest = publisher.publish(&pricing(flat(), "{}"), Trigger::Operator).unwrap().set
        [&Slot::Pricing]
        .digest
        .clone();
    drop(publisher);
    // It was swapped in, and the price must not be guessed.
    let kept = place.state().join(format!("{digest}.wasm"));
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&kept, "damaged").unwrap();
    let Err(StartError(lost)) = place.open() else { panic!("started") };
    assert!(lost[0].contains(&digest) && lost[0].contains("not what was kept"), "{lost:?}");
    std::fs::write(&kept, flat()).unwrap();
    drop(place.open().unwrap());
    std::fs::set_permissions(place.state(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let Err(StartError(open)) = place.open() else { panic!("started") };
    assert!(open[0].contains("0700"), "{open:?}");
}

/// Whoever could not be remembered is not published: after a restart another one would decide.
#[tokio::test]
async fn what_cannot_be_kept_is_not_published() {
    let place = Place::new();
    let publisher = place.open().unwrap();
    let path = place.state();
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, "not a directory").unwrap();
    assert!(matches!(
        publisher.publish(&pricing(flat(), "{}"), Trigger::Operator),
        Err(SwapError::NotKept(_))
    ));
    assert_eq!((price(&publisher).await, publisher.history().len()), (1, 1));
}

/// The first line of the history is the one that the others stand on.
#[tokio::test]
async fn what_could_not_be_noted_at_the_start_is_noted_before_anything_is_exchanged() {
    let place = Place::new();
    let publisher = place.open().unwrap();
    let digest = publisher.history()[0].set[&Slot::Pricing].digest.clone();
    drop(publisher);
    std::fs::remove_dir_all(place.state()).unwrap();
    // As if the disk were full when the component is to be written.
    let in_the_way = place.state().join(format!("{digest}.{}.part", std::process::id()));
    std::fs::create_dir_all(&in_the_way).unwrap();
    std::fs::set_permissions(place.state(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let publisher = place.open().unwrap();
    assert_eq!(
        (price(&publisher).await, publisher.history().len()),
        (1, 0),
        "customers are served"
    );
    assert!(matches!(
        publisher.publish(&pricing(flat(), "{}"), Trigger::Operator),
        Err(SwapError::NotKept(_))
    ));
    std::fs::write(place.file(Slot::Pricing), flat()).unwrap();
    look(&publisher);
    assert_eq!(price(&publisher).await, 1);
    std::fs::remove_dir(&in_the_way).unwrap();
    look(&publisher);
    assert_eq!(
        told(&publisher),
        [(1, Trigger::Start, Slot::ALL.to_vec()), (2, Trigger::PolicyDir, vec![Slot::Pricing])],
        "it is tried again"
    );
    assert_eq!(
        (price(&publisher).await, publisher.rollback(None).unwrap().by),
        (2, Trigger::Rollback(1))
    );
    assert_eq!(price(&publisher).await, 1);
}

#[tokio::test]
async fn a_shadow_that_cannot_be_promoted_goes_on() {
    let place = Place::new();
    let publisher = place.open().unwrap();
    publisher.host().start_shadow(pricing(built("plugins/pricing.wasm"), "{}")).unwrap();
    assert_eq!(publisher.promote(), Err(SwapError::InForce));
    assert!(publisher.host().shadow_report().is_some());
    publisher.host().start_shadow(pricing(flat(), "{}")).unwrap();
    assert_eq!((publisher.promote().unwrap().by, price(&publisher).await), (Trigger::Promotion, 2));
    assert!(publisher.host().shadow_report().is_none());
}

#[tokio::test]
async fn both_versions_of_the_contract_are_served() {
    let place = Place::new();
    let publisher = place.open().unwrap();
    let quote = Quote {
        tier: "a".to_owned(),
        resources: Resources::default(),
        price: Price { msat: Msat(1_000), seconds: Seconds(60) },
        minimum: Sat(1),
    };
    let payment = Payment { mint: String::new(), gross: Sat(10), fee: Sat(0), net: Sat(10) };
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
        "1.0 knows no terms"
    );
    let report = publisher.host().report();
    assert_eq!((report[2].calls, report[2].faults), (1, 0), "what was not asked is not counted");
    assert!((1 << 16..8 << 20).contains(&report[2].memory_bytes), "{report:?}");
}
