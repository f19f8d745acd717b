//! A wrong, slow or hostile policy costs one order at most.
#![cfg(test)]

use paygress_core::Policy;
use paygress_core::backend::policy::{
    Context, FaultKind, Grant, Placement, PolicyError, Price, Quote, Resources, Slot,
};
use paygress_core::model::ids::{ImageRef, TierId};
use paygress_core::model::order::OrderView;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::{Msat, Sat, Seconds};
use paygress_policy::{
    BoxError, CompileLimits, DEADLINE, Host, PolicyEngine, RejectReason, Source, Sources,
    SwapError, max_total_memory, sample_placement,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

fn built(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target").join(path);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; build the policies first: cargo xtask plugins", path.display())
    })
}

fn default_policy(slot: Slot) -> Source {
    Source::plain(built(&format!("plugins/{slot}.wasm")))
}

fn default_policies() -> Sources {
    Slot::ALL.into_iter().map(|slot| (slot, default_policy(slot))).collect()
}

fn swap(host: &Host, slot: Slot, source: Source) -> Result<(), RejectReason> {
    match host.swap(&Sources::from([(slot, source)]), || Ok(())) {
        Ok(()) => Ok(()),
        Err(SwapError::Rejected(errors)) => {
            assert_eq!((errors.len(), errors[0].slot), (1, slot));
            Err(errors[0].reason.clone())
        }
        Err(other) => panic!("{other}"),
    }
}

fn hostile(settings: &str) -> Source {
    Source { component: built("plugins-for-tests/hostile.wasm"), settings: settings.to_owned() }
}

fn host() -> Arc<Host> {
    let engine = PolicyEngine::start(None).unwrap();
    let mut sources = default_policies();
    sources.insert(Slot::Pricing, hostile("{}"));
    Host::load(engine, &sources).unwrap()
}

fn order(tier: &str) -> OrderView {
    OrderView {
        id: "a".to_owned(),
        tier: Some(tier.to_owned()),
        username: "user".to_owned(),
        ..OrderView::default()
    }
}

async fn fault_of(host: &Host, tier: &str) -> FaultKind {
    match host.current().quote(&order(tier), &Context::default()).await {
        Err(PolicyError::Fault(fault)) => {
            assert_eq!(fault.slot, Slot::Pricing);
            assert_eq!(
                Refusal::from(PolicyError::Fault(fault.clone())).code,
                ErrorType::PolicyUnavailable
            );
            fault.kind
        }
        other => panic!("{tier}: {other:?}"),
    }
}

#[tokio::test]
async fn each_fault_costs_its_own_call_and_the_next_succeeds() {
    let host = host();
    type Expected = fn(&FaultKind) -> bool;
    let faults: [(&str, Expected); 16] = [
        ("spin", |kind| matches!(kind, FaultKind::Deadline(100))),
        ("allocate", |kind| matches!(kind, FaultKind::Memory(_))),
        // Rust keeps part of its stack in linear memory: which of the two overflows first is up to
        // the compiler.
        ("recurse", |kind| matches!(kind, FaultKind::Stack | FaultKind::Trap(_))),
        ("panic", |kind| matches!(kind, FaultKind::Trap(_))),
        ("divide", |kind| matches!(kind, FaultKind::Trap(_))),
        ("zero-seconds", |kind| matches!(kind, FaultKind::InvalidOutput(_))),
        ("all-the-money", |kind| matches!(kind, FaultKind::InvalidOutput(_))),
        ("no-resources", |kind| matches!(kind, FaultKind::InvalidOutput(_))),
        ("too-many-resources", |kind| matches!(kind, FaultKind::InvalidOutput(_))),
        (
            "long-tier",
            |kind| matches!(kind, FaultKind::InvalidOutput(reason) if reason.contains("1 to 64 bytes")),
        ),
        (
            "huge-tier",
            |kind| matches!(kind, FaultKind::InvalidOutput(reason) if reason.contains("more than")),
        ),
        ("hundred-megabytes", |kind| matches!(kind, FaultKind::Memory(_))),
        ("unknown-code", |kind| matches!(kind, FaultKind::InvalidOutput(_))),
        ("silent-refusal", |kind| matches!(kind, FaultKind::InvalidOutput(_))),
        (
            "escape",
            |kind| matches!(kind, FaultKind::InvalidOutput(reason) if reason.contains("control character")),
        ),
        (
            "long-code",
            |kind| matches!(kind, FaultKind::InvalidOutput(reason) if reason.len() < 1_000 && !reason.contains('\u{1}')),
        ),
    ];
    for (tier, expected) in faults {
        let kind = fault_of(&host, tier).await;
        assert!(expected(&kind), "{tier}: {kind:?}");
        let next = host.current().quote(&order("good"), &Context::default()).await;
        assert!(next.is_ok(), "after {tier}: {next:?}");
    }
}

/// The memory of all guests fits into the memory limit of the Deployment, with room for the service
/// itself.
#[test]
fn guests_cannot_exhaust_the_memory_of_the_deployment() {
    let deployment = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../k8s/overlays/cluster/deployment.yaml");
    let deployment = std::fs::read_to_string(deployment).unwrap();
    let limit = deployment
        .split("limits: {memory: ")
        .nth(1)
        .unwrap()
        .split("Gi}")
        .next()
        .unwrap()
        .parse::<usize>()
        .unwrap()
        << 30;
    let compiler = usize::try_from(CompileLimits::default().memory_bytes).unwrap();
    // One or the other: guests that all take what they may are hostile, and one compiles rarely.
    for bytes in [max_total_memory(), compiler] {
        assert!(bytes + (384 << 20) <= limit, "{bytes} of {limit}");
    }
}

#[tokio::test]
async fn a_refusal_is_not_a_fault() {
    let refused = host().current().quote(&order("refuse"), &Context::default()).await;
    assert_eq!(
        refused,
        Err(PolicyError::Refused(Refusal::new(ErrorType::InvalidSpec, "no such tier")))
    );
}

#[tokio::test]
async fn components_before_contract_1_3_are_not_called_with_a_tier_longer_than_theirs() {
    let host = host();
    let context = Context::default();
    let longest = order(&"x".repeat(64));
    assert!(host.current().quote(&longest, &context).await.is_ok());
    let longer = order(&"x".repeat(65));
    let refused = host.current().quote(&longer, &context).await;
    assert!(
        matches!(&refused, Err(PolicyError::Refused(refusal)) if refusal.code == ErrorType::InvalidSpec),
        "{refused:?}"
    );
    assert!(host.current().admit(&longer, &context).await.is_ok(), "images are of 1.3 here");
}

#[tokio::test]
async fn more_than_the_output_cap_is_not_copied() {
    let context = Context { active_leases: 7, ..Context::default() };
    let refused = host().current().offers(&context).await;
    assert!(
        matches!(refused, Err(PolicyError::Fault(fault)) if matches!(fault.kind, FaultKind::InvalidOutput(_)))
    );
}

/// On one executor thread: a spinning guest blocks a thread of its own, is stopped in time, and no
/// other call waits for it.
#[tokio::test(flavor = "current_thread")]
async fn a_spinning_guest_is_stopped_in_time_and_delays_no_other_call() {
    let host = host();
    // Now and then the thread of the good call has to wait for a processor for as long.
    let mut more_tries = 0_u8..7;
    loop {
        let spinning = {
            let host = Arc::clone(&host);
            tokio::spawn(async move {
                let begun = Instant::now();
                (fault_of(&host, "spin").await, begun.elapsed())
            })
        };
        tokio::task::yield_now().await;
        assert!(host.current().quote(&order("good"), &Context::default()).await.is_ok());
        let waited = spinning.is_finished();
        let (kind, took) = spinning.await.unwrap();
        assert!(matches!(kind, FaultKind::Deadline(_)));
        // What is limited is the processor's time: on a busy machine that takes longer.
        assert!(took >= DEADLINE && took < 50 * DEADLINE, "{took:?}");
        if !waited {
            break;
        }
        assert!(more_tries.next().is_some(), "the good call waited");
    }
}

#[tokio::test]
async fn more_calls_than_permits_wait_and_are_all_served() {
    let host = host();
    let calls = (0..200).map(|n| {
        let host = Arc::clone(&host);
        tokio::spawn(async move {
            host.current()
                .quote(&order(if n % 20 == 0 { "panic" } else { "good" }), &Context::default())
                .await
                .is_ok()
        })
    });
    let mut good = 0;
    for call in calls.collect::<Vec<_>>() {
        good += usize::from(call.await.unwrap());
    }
    assert_eq!(good, 190);
}

#[test]
fn a_component_that_misbehaves_while_loading_is_rejected() {
    let host = host();
    let before = host.current().digests();
    let refused = |source: Source| swap(&host, Slot::Pricing, source).unwrap_err();
    assert!(matches!(
        refused(hostile(r#"{"configure": "spin"}"#)),
        RejectReason::Faulty(FaultKind::Deadline(_))
    ));
    assert!(matches!(
        refused(hostile(r#"{"configure": "allocate"}"#)),
        RejectReason::Faulty(FaultKind::Memory(_))
    ));
    assert!(matches!(
        refused(hostile(r#"{"configure": "panic"}"#)),
        RejectReason::Faulty(FaultKind::Trap(_))
    ));
    assert!(
        matches!(refused(hostile(r#"{"configure": "problems"}"#)), RejectReason::Settings(problems) if problems.len() == 64)
    );
    assert_eq!(host.current().digests(), before, "the old one stays");
}

/// A template that the cluster would reject for every order is not activated at all.
#[tokio::test]
async fn a_template_that_the_guard_does_not_allow_is_a_fault() {
    let load_for_port = |port: u16| {
        let guard = move |_: &_, placement: &Placement| match placement.host_port == Some(port) {
            true => Ok(()),
            false => {
                let port = placement.host_port.unwrap_or_default();
                let message = format!("template.spec: {port} is another's");
                Err(BoxError::from(message))
            }
        };
        let engine = PolicyEngine::start(None).unwrap().with_template_guard(Box::new(guard));
        Host::load(engine, &default_policies())
    };
    let errors = load_for_port(1).err().unwrap();
    assert_eq!((errors.len(), errors[0].slot), (1, Slot::PodTemplate));
    assert!(errors[0].to_string().contains("template.spec: 30000 is another's"), "{}", errors[0]);
    // The port of the sample order: the set is loaded, and then renders for another port.
    let host = load_for_port(30_000).unwrap();
    let resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };
    let sample = sample_placement(ImageRef::of_test_case(), resources);
    let placement = Placement { host_port: Some(30_001), ..sample };
    let grant = Grant { seconds: Seconds(60), note: None };
    let price = Price { msat: Msat(1_000), seconds: Seconds(60) };
    let tier = TierId::parse("standard").unwrap();
    let quote = Quote { tier, resources, price, minimum: Sat(1) };
    let rendered = host.current().render(&order("standard"), &quote, &grant, &placement).await;
    assert!(
        matches!(rendered, Err(PolicyError::Fault(fault)) if matches!(&fault.kind, FaultKind::Template(reason) if reason.contains("30001")))
    );
}

#[test]
fn a_contract_mismatch_is_reported_before_the_component_runs() {
    let host = host();
    let refused = |slot, component| swap(&host, slot, Source::plain(component)).unwrap_err();
    assert!(matches!(refused(Slot::Images, Vec::new()), RejectReason::NotAComponent(_)));
    assert!(matches!(
        refused(Slot::Images, b"\0asm\x01\0\0\0".to_vec()),
        RejectReason::NotAComponent(_)
    ));
    assert!(matches!(refused(Slot::Images, vec![0; 33 << 20]), RejectReason::TooLarge(_)));
    let RejectReason::ContractMismatch(mismatches) =
        refused(Slot::Images, built("plugins/duration.wasm"))
    else {
        panic!("not a contract mismatch")
    };
    let wrong_slot = "it is a component for the slot duration (of version 1.3.0), not for images";
    assert_eq!(mismatches, [wrong_slot]);
    let mut cut = built("plugins/images.wasm");
    cut.truncate(cut.len() / 2);
    assert!(matches!(refused(Slot::Images, cut), RejectReason::NotAComponent(_)));
    let wrong_settings = swap(
        &host,
        Slot::Images,
        Source { settings: r#"{"allow": 3, "x": 1}"#.to_owned(), ..default_policy(Slot::Images) },
    );
    let message = wrong_settings.unwrap_err().to_string();
    assert!(
        message.contains("/allow must be a list of texts")
            && message.contains("/x is not a setting"),
        "{message}"
    );
}

/// A component of one core module with one section.
fn component_with(section: u8, content: &[u8]) -> Vec<u8> {
    let sized = |id: u8, content: &[u8]| {
        let (mut section, mut left) = (vec![id], content.len());
        loop {
            let low = u8::try_from(left & 0x7f).unwrap();
            left >>= 7;
            section.push(if left == 0 { low } else { low | 0x80 });
            if left == 0 {
                return [&section, content].concat();
            }
        }
    };
    let module = [&b"\0asm\x01\0\0\0"[..], &sized(section, content)].concat();
    [&b"\0asm\x0d\0\x01\0"[..], &sized(1, &module)].concat()
}

#[test]
fn large_tables_are_rejected_and_control_characters_are_escaped() {
    let host = host();
    let refused =
        |component| swap(&host, Slot::Images, Source::plain(component)).unwrap_err().to_string();
    // One passive segment of 50,000 functions; the number has three bytes in LEB128.
    let elements = [&[1, 1, 0, 0xd0, 0x86, 0x03][..], &[0; 50_000]].concat();
    assert!(refused(component_with(9, &elements)).contains("50000 elements"));
    // An import of an empty instance, whose name clears the screen.
    let name = b"\x1b[2J";
    let import =
        [&b"\0asm\x0d\0\x01\0\x07\x03\x01\x42\0\x0a\x09\x01\0\x04"[..], name, &[5, 0]].concat();
    let message = refused(import);
    assert!(
        message.contains("\\u{1b}") && message.chars().all(|character| !character.is_control()),
        "{message}"
    );
}

/// The files of a cache of compiled components.
fn cached(cache: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_component_that_crashed_the_service_is_not_compiled_forever() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("compiled");
    let load =
        || Host::load(PolicyEngine::start(Some(&cache)).unwrap(), &default_policies()).map(drop);
    load().unwrap();
    let files = cached(&cache);
    assert!(
        files.len() == 4 && files.iter().all(|file| file.extension().unwrap() == "cwasm"),
        "{files:?}"
    );
    let digest = files[0].file_name().unwrap().to_string_lossy()[..64].to_owned();
    std::fs::remove_file(&files[0]).unwrap();
    let mark = cache.join(format!("{digest}.trying"));
    std::fs::write(&mark, "..").unwrap();
    load().unwrap();
    assert!(!mark.exists(), "it was compiled");
    std::fs::remove_file(&files[0]).unwrap();
    std::fs::write(&mark, "...").unwrap();
    let message = load().unwrap_err()[0].to_string();
    assert!(message.contains("ended 3 times") && message.contains(".trying"), "{message}");
}

#[tokio::test]
async fn an_order_keeps_the_set_that_it_started_with() {
    let host = Host::load(PolicyEngine::start(None).unwrap(), &default_policies()).unwrap();
    let begun = host.current();
    let dearer = Source {
        settings: r#"{"sats_per_hour": 120}"#.to_owned(),
        ..default_policy(Slot::Pricing)
    };
    swap(&host, Slot::Pricing, dearer).unwrap();
    let order = OrderView { username: "user".to_owned(), ..OrderView::default() };
    let (old, new) = (
        begun.quote(&order, &Context::default()).await.unwrap(),
        host.current().quote(&order, &Context::default()).await.unwrap(),
    );
    assert_eq!((old.price.msat.0, new.price.msat.0), (1_000, 2_000));
    assert_eq!(old.price.seconds, new.price.seconds);
}

#[test]
fn cached_code_is_private_and_torn_files_are_not_run() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("compiled");
    let load =
        || Host::load(PolicyEngine::start(Some(&cache)).unwrap(), &default_policies()).map(drop);
    load().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cache), 0o700);
    let files = cached(&cache);
    assert_eq!(files.len(), 4);
    for file in &files {
        assert_eq!(mode(file), 0o600);
        // Truncated: it must be compiled again, not run.
        let code = std::fs::read(file).unwrap();
        std::fs::write(file, &code[..code.len() / 2]).unwrap();
    }
    load().unwrap();
    assert!(
        files.iter().all(|file| std::fs::read(file).unwrap().len() > 100_000),
        "torn files were replaced"
    );
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        PolicyEngine::start(Some(&cache)).err().unwrap().to_string().contains("0700"),
        "others could read or write there"
    );
}
