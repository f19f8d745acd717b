//! Which pods get a place.

use super::*;

#[test]
fn a_pod_needs_what_the_scheduler_counts() {
    let container = |cpu: &str, always: bool| {
        let resources = json!({"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"cpu": "4"}});
        let policy = always.then_some("Always");
        json!({"name": "c", "resources": resources, "restartPolicy": policy})
    };
    let containers = || json!([container("500m", false), container("250m", false)]);
    for (fields, cpu, limit) in [
        (json!({"containers": containers()}), 750, 8_000),
        (
            json!({"containers": containers(), "initContainers": [container("2", false)]}),
            2_000,
            8_000,
        ),
        // One that keeps running is there beside the others.
        (
            json!({"containers": containers(), "initContainers": [container("1", true), container("2", false)]}),
            3_000,
            12_000,
        ),
        (json!({"containers": containers(), "overhead": {"cpu": "250m"}}), 1_000, 8_250),
        (
            json!({"containers": containers(), "resources": {"requests": {"cpu": "900m"}}}),
            900,
            8_000,
        ),
    ] {
        let demand = PodDemand::of(&object(json!({"spec": fields})));
        assert_eq!((demand.requests.cpu, demand.limits.cpu), (cpu, limit), "{fields}");
        assert_eq!(PodDemand::read(&demand.to_demand()), Some(demand));
    }
    assert_eq!(PodDemand::read(&Demand::default()), None, "of a version before");
    assert_eq!(PodDemand::read(&Demand::new("{}".to_owned())), Some(PodDemand::default()));
}

#[test]
fn a_node_takes_the_pods_that_its_labels_and_taints_permit() {
    let term = |key: &str, operator: &str, values: Value| {
        let requirement = json!({"key": key, "operator": operator, "values": values});
        affinity(json!([{"matchExpressions": [requirement]}]))
    };
    let name = |operator: &str| {
        let requirement = json!({"key": "metadata.name", "operator": operator, "values": ["a"]});
        affinity(json!([{"matchFields": [requirement]}]))
    };
    let cluster = Cluster::of(vec![node("a", 4, 8, 10)]);
    for (fields, is_taken) in [
        (json!({}), true),
        (json!({"nodeSelector": {"size": "4"}}), true),
        (json!({"nodeSelector": {"size": "5"}}), false),
        (term("size", "In", json!(["3", "4"])), true),
        (term("size", "In", json!(["3"])), false),
        (term("size", "NotIn", json!(["4"])), false),
        (term("none", "NotIn", json!(["4"])), true),
        (term("size", "Exists", json!(null)), true),
        (term("none", "Exists", json!(null)), false),
        (term("none", "DoesNotExist", json!(null)), true),
        (term("size", "Gt", json!(["3"])), true),
        (term("size", "Gt", json!(["4"])), false),
        (term("size", "Lt", json!(["5"])), true),
        (term("none", "Lt", json!(["5"])), false),
        (name("In"), true),
        (name("NotIn"), false),
        // A term without requirements matches nothing; one of several suffices.
        (affinity(json!([{}])), false),
        (
            affinity(json!([{}, {"matchExpressions": [{"key": "size", "operator": "Exists"}]}])),
            true,
        ),
    ] {
        let expected = if is_taken { Ok(()) } else { Err(NoCapacity::Nodes) };
        assert_eq!(
            cluster.check(&[], &with(spec("1", "1Gi"), fields.clone())),
            expected,
            "{fields}"
        );
    }
}

fn affinity(terms: Value) -> Value {
    let required = json!({"nodeSelectorTerms": terms});
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}})
}

#[test]
fn taints_keep_pods_away_that_do_not_tolerate_them() {
    let toleration = |key: &str, operator: &str, value: &str, effect: &str| json!([{"key": key, "operator": operator, "value": value, "effect": effect}]);
    for (effect, tolerations, is_taken) in [
        ("NoSchedule", json!([]), false),
        ("NoExecute", json!([]), false),
        ("PreferNoSchedule", json!([]), true),
        ("NoSchedule", toleration("gpu", "Equal", "yes", "NoSchedule"), true),
        ("NoSchedule", toleration("gpu", "", "yes", ""), true),
        ("NoSchedule", toleration("gpu", "Equal", "no", ""), false),
        ("NoSchedule", toleration("gpu", "Exists", "", ""), true),
        ("NoSchedule", toleration("gpu", "Exists", "", "NoExecute"), false),
        ("NoSchedule", toleration("cpu", "Exists", "", ""), false),
        ("NoSchedule", toleration("", "Exists", "", ""), true),
        ("NoSchedule", toleration("", "Equal", "yes", ""), false),
    ] {
        let mut tainted = node("a", 4, 8, 10);
        tainted["spec"]["taints"] = json!([{"key": "gpu", "value": "yes", "effect": effect}]);
        let expected = if is_taken { Ok(()) } else { Err(NoCapacity::Nodes) };
        let pod = with(spec("1", "1Gi"), json!({"tolerations": tolerations}));
        assert_eq!(Cluster::of(vec![tainted]).check(&[], &pod), expected, "{effect} {tolerations}");
    }
}

#[test]
fn nodes_that_are_not_ready_or_cordoned_take_none() {
    let change = |pointer: &str, value: Value| {
        let mut changed = node("a", 4, 8, 10);
        *changed.pointer_mut(pointer).unwrap() = value;
        Cluster::of(vec![changed]).check(&[], &spec("1", "1Gi"))
    };
    assert_eq!(change("/spec", json!({})), Ok(()));
    let none = Err(NoCapacity::Nodes);
    assert_eq!(change("/spec", json!({"unschedulable": true})), none);
    assert_eq!(change("/status/conditions/0/status", json!("Unknown")), none);
    assert_eq!(change("/status/conditions", json!([])), none);
    assert_eq!(change("/status/allocatable/pods", json!("0")), Err(NoCapacity::TooLarge));
    assert_eq!(Cluster::default().check(&[], &spec("1", "1Gi")), none, "no node at all");
}

#[test]
fn what_no_node_could_take_is_too_large() {
    let pods = vec![pod("full", on("a", spec("4", "1Gi")))];
    let cluster = Cluster { pods, ..Cluster::of(vec![node("a", 4, 8, 10)]) };
    assert_eq!(cluster.check(&[], &spec("4", "1Gi")), Err(NoCapacity::Nodes));
    assert_eq!(cluster.check(&[], &spec("4001m", "1Gi")), Err(NoCapacity::TooLarge));
    assert_eq!(cluster.check(&[], &spec("1", "9Gi")), Err(NoCapacity::TooLarge));
}

/// A reservation counts once: on its node, or as one that will get a place.
#[test]
fn a_reservation_is_counted_once() {
    let (small, large) = (spec("1", "1Gi"), spec("2", "1Gi"));
    let mut cluster = Cluster::of(vec![node("a", 3, 8, 10)]);
    let first = reserved(&large);
    assert_eq!(cluster.check(std::slice::from_ref(&first), &small), Ok(()));
    assert_eq!(cluster.check(&[first.clone(), reserved(&small)], &small), Err(NoCapacity::Nodes));
    let gated = with(large.clone(), json!({"schedulingGates": [{"name": "quota"}]}));
    for place in [on("a", large.clone()), large.clone(), gated] {
        cluster.pods = vec![pod_of(&first.lease, place)];
        assert_eq!(cluster.check(std::slice::from_ref(&first), &small), Ok(()), "by its pod");
        assert_eq!(cluster.check(std::slice::from_ref(&first), &large), Err(NoCapacity::Nodes));
    }
    cluster.pods = vec![];
    let from_before = Reservation { lease: lease(), demand: Demand::default() };
    assert_eq!(cluster.check(&[from_before], &spec("3", "1Gi")), Ok(()), "it says nothing");
}

/// Two nodes of 2 cores: pending pods of 1 core are spread, and one of 2 cores only fits if it comes
/// first. Nodes of 3 and 1: one of 1 core that comes first takes the place of one of 3.
#[test]
fn a_pod_must_fit_in_whichever_order_the_scheduler_takes_them() {
    let cluster = Cluster::of(vec![node("a", 2, 8, 10), node("b", 2, 8, 10)]);
    let (small, large) = (spec("1", "1Gi"), spec("2", "1Gi"));
    let pending = [reserved(&small), reserved(&small)];
    assert_eq!(cluster.check(&pending, &large), Err(NoCapacity::Nodes));
    assert_eq!(cluster.check(&pending, &small), Ok(()));
    // One core on each node: if it comes first, the pending one of 2 cores finds none.
    let pending = [reserved(&large)];
    assert_eq!(cluster.check(&pending, &small), Ok(()), "spread: on the emptier node");
    let uneven = Cluster::of(vec![node("a", 3, 8, 10), node("b", 1, 8, 10)]);
    let pending = [reserved(&spec("3", "1Gi"))];
    assert_eq!(uneven.check(&pending, &spec("1", "1Gi")), Err(NoCapacity::Nodes), "new one first");
    // What has no place in any order keeps nobody out.
    let hopeless = [reserved(&spec("64", "1Gi"))];
    assert_eq!(uneven.check(&hopeless, &spec("1", "1Gi")), Ok(()));
}

#[test]
fn pods_of_others_that_wait_come_first_unless_they_matter_less() {
    let mut cluster = Cluster::of(vec![node("a", 3, 8, 10)]);
    for (fields, expected) in [
        (json!({}), Err(NoCapacity::Nodes)),
        (json!({"priority": 5}), Err(NoCapacity::Nodes)),
        (json!({"priority": -5}), Ok(())),
        (json!({"schedulingGates": [{"name": "quota"}]}), Ok(())),
        (json!({"nodeSelector": {"pool": "none"}}), Ok(())),
    ] {
        cluster.pods = vec![pod("waiting", with(spec("2", "1Gi"), fields.clone()))];
        assert_eq!(cluster.check(&[], &spec("2", "1Gi")), expected, "{fields}");
    }
}

#[test]
fn a_host_port_is_taken_once_on_each_node() {
    let small = || spec("100m", "100Mi");
    let mut cluster = Cluster::of(vec![node("a", 4, 8, 10), node("b", 4, 8, 10)]);
    let wanted = with_port(small(), 20_000);
    cluster.pods = vec![pod("other", on("a", with_port(small(), 20_000)))];
    assert_eq!(cluster.check(&[], &wanted), Ok(()));
    let same = [reserved(&wanted)];
    assert_eq!(cluster.check(&same, &wanted), Err(NoCapacity::Port));
    assert_eq!(cluster.check(&same, &with_port(small(), 20_001)), Ok(()));
    // Another port does not help a pod that does not fit anyway, or is kept from the other node.
    let large = with_port(spec("4", "1Gi"), 20_000);
    assert_eq!(cluster.check(&same, &large), Err(NoCapacity::Nodes));
    let pinned = with(wanted.clone(), json!({"nodeSelector": {"kubernetes.io/hostname": "a"}}));
    assert_eq!(cluster.check(&[], &pinned), Err(NoCapacity::Port));
    cluster.pods[0]["spec"]["containers"][0]["ports"][0]["protocol"] = json!("UDP");
    assert_eq!(cluster.check(&same, &wanted), Ok(()), "the other protocol");
}

#[test]
fn devices_are_counted() {
    let mut gpu = spec("1", "1Gi");
    gpu["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] = json!("1");
    let cluster = Cluster::of(vec![node("a", 8, 8, 10)]);
    assert_eq!(cluster.check(&[], &gpu), Ok(()));
    assert_eq!(cluster.check(&[reserved(&gpu)], &gpu), Err(NoCapacity::Nodes));
    gpu["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] = json!("2");
    assert_eq!(cluster.check(&[], &gpu), Err(NoCapacity::TooLarge));
}
