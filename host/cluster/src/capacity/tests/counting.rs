//! Quotas, offers, utilisation, and the time that it takes.

use super::*;
use crate::capacity::ready_until;
use crate::objects::PROBE;
use k8s_openapi::api::core::v1::Service;
use paygress_core::model::units::UnixTime;

fn quota(spec: Value) -> Value {
    json!({"metadata": {"name": "customers", "namespace": NAMESPACE}, "spec": spec})
}

#[test]
fn quotas_count_pods_and_orders_under_way() {
    let running = pod_of(&lease(), on("a", spec("1", "1Gi")));
    let elsewhere = pod("elsewhere", on("a", spec("1", "1Gi")));
    let mut cluster = Cluster::of(vec![node("a", 64, 64, 100)]);
    cluster.pods = vec![running, elsewhere];
    let pod = spec("1", "1Gi");
    for (spec, room) in [
        (json!({"hard": {"pods": "3"}}), 2),
        (json!({"hard": {"count/pods": "3"}}), 2),
        (json!({"hard": {"limits.cpu": "3500m"}}), 2),
        (json!({"hard": {"cpu": "3"}}), 2),
        (json!({"hard": {"requests.memory": "3Gi", "pods": "50"}}), 2),
        (json!({"hard": {"limits.memory": "4Gi"}}), 3),
        (json!({"hard": {"pods": "3"}, "scopes": ["NotTerminating", "NotBestEffort"]}), 2),
        // They are not for this pod, or are left to the dry run.
        (json!({"hard": {"pods": "1"}, "scopes": ["Terminating"]}), 9),
        (json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), 9),
        (json!({"hard": {"pods": "1"}, "scopes": ["PriorityClass"]}), 9),
        (json!({"hard": {"requests.nvidia.com/gpu": "0", "secrets": "1"}}), 9),
    ] {
        cluster.quotas = vec![quota(spec.clone())];
        let reserved: Vec<Reservation> = (0..9).map(|_| reserved(&pod)).collect();
        for (count, reserved) in (0..9).map(|count| (count, &reserved[..count])) {
            let expected = if count < room { Ok(()) } else { Err(NoCapacity::Quota) };
            assert_eq!(cluster.check(reserved, &pod), expected, "{spec}, {count} reserved");
        }
    }
}

/// The dry run of each of them passes: the API server does not know of the others.
#[test]
fn quotas_count_the_objects_of_orders_under_way() {
    let service = |spec: Value| -> Service { object(json!({"spec": spec})) };
    let services = [
        service(json!({"type": "NodePort", "ports": [{"port": 22}]})),
        service(json!({"ports": [{"port": 80}, {"port": 81}]})),
    ];
    let pod: Pod = object(json!({"spec": spec("1", "1Gi")}));
    let pod = PodDemand { objects: LeaseObjects::of(&pod, &services), ..PodDemand::of(&pod) };
    let new = pod.to_demand();
    assert_eq!(PodDemand::read(&new), Some(pod));
    let tier = tier(1);
    let mut cluster = Cluster::of(vec![node("a", 64, 64, 100)]);
    for (name, hard, used, room, offered) in [
        ("count/jobs.batch", 1, 0, 1, 1),
        ("count/jobs.batch", 12, 11, 1, 1),
        ("secrets", 5, 3, 2, 2),
        ("count/secrets", 5, 5, 0, 0),
        // A template that was not seen may have no Services.
        ("services", 9, 2, 3, 12),
        ("count/services", 9, 8, 0, 12),
        ("services.nodeports", 4, 1, 3, 12),
        ("services.loadbalancers", 0, 0, 12, 12),
        ("configmaps", 0, 1, 12, 12),
    ] {
        let mut quota = quota(json!({"hard": {name: hard.to_string()}}));
        quota["status"] = json!({"used": {name: used.to_string()}});
        cluster.quotas = vec![quota];
        let view = cluster.view();
        assert_eq!(view.count(&[], &tier, 12), offered, "{name}");
        let mut taken: Vec<Reservation> = Vec::new();
        for _ in 0..12 {
            match view.check(&taken, &new) {
                Ok(()) => taken.push(Reservation { lease: lease(), demand: new.clone() }),
                refused => assert_eq!(refused, Err(NoCapacity::Quota), "{name}"),
            }
        }
        assert_eq!(taken.len(), room, "{name}: {used} of {hard}");
    }
    // Once its pod is there, the API server counts the objects of a lease.
    let running = Reservation { lease: lease(), demand: new.clone() };
    cluster.pods = vec![pod_of(&running.lease, on("a", spec("1", "1Gi")))];
    let mut quota = quota(json!({"hard": {"count/jobs.batch": "2"}}));
    quota["status"] = json!({"used": {"count/jobs.batch": "1"}});
    cluster.quotas = vec![quota];
    assert_eq!(cluster.view().check(&[running], &new), Ok(()));
}

#[test]
fn a_pod_that_writes_to_its_customer_has_a_second_secret() {
    for (inits, secrets) in [
        (json!([]), 1),
        (json!([{"name": "paygress-ssh"}]), 1),
        (json!([{"name": "paygress-ssh"}, {"name": "paygress-reply"}]), 2),
    ] {
        let spec = with(spec("1", "1Gi"), json!({"initContainers": inits}));
        let pod: Pod = object(json!({"spec": spec}));
        assert_eq!(LeaseObjects::of(&pod, &[]).secrets, secrets, "{inits}");
    }
}

/// Without the right to read nodes and pods of the cluster.
#[test]
fn quotas_are_counted_without_the_nodes() {
    let cluster =
        Cluster { quotas: vec![quota(json!({"hard": {"limits.cpu": "4"}}))], ..Cluster::default() };
    let mut objects = cluster.objects();
    objects.set_scope(Scope::Namespace);
    assert!(objects.snapshot().is_none(), "the pods of the namespace are not listed yet");
    objects.pod_event(Event::Init);
    objects.pod_event(Event::InitApply(object(pod_of(&lease(), on("a", spec("1", "1Gi"))))));
    objects.pod_event(Event::InitDone);
    let snapshot = objects.snapshot().unwrap();
    let view = View { snapshot, shapes: Shapes::default(), allowed: Allowed::default() };
    assert_eq!(view.check(&[reserved(&spec("2", "1Gi"))], &demand(&spec("1", "1Gi"))), Ok(()));
    let full = view.check(&[reserved(&spec("3", "1Gi"))], &demand(&spec("1", "1Gi")));
    assert_eq!(full, Err(NoCapacity::Quota));
    assert_eq!(view.utilisation(), Utilisation { cpu: 250, memory: 0 });
    assert_eq!(view.node_utilisation(&[]), None, "a quota says nothing of the nodes");
    objects.without_quotas();
    assert!(objects.snapshot().is_none(), "nothing is counted then");
}

#[test]
fn nodes_that_an_autoscaler_adds_come_last() {
    let mut cluster = Cluster::of(vec![node("a", 2, 8, 10)]);
    let pod = spec("2", "1Gi");
    cluster.extra = Some("nodes=2,cpu=4,memory=8Gi");
    let view = cluster.view();
    let two = tier(2);
    assert_eq!(view.count(&[], &two, 100), 5);
    assert_eq!(view.utilisation(), Utilisation { cpu: 0, memory: 0 }, "of real nodes");
    let taken: Vec<Reservation> = (0..5).map(|_| reserved(&pod)).collect();
    assert_eq!(view.check(&taken[..4], &demand(&pod)), Ok(()));
    assert_eq!(view.check(&taken, &demand(&pod)), Err(NoCapacity::Nodes));
    assert_eq!(view.check(&[], &demand(&spec("4", "1Gi"))), Ok(()));
    assert_eq!(view.check(&[], &demand(&spec("5", "1Gi"))), Err(NoCapacity::TooLarge));
}

/// Nodes that were added are there: an autoscaler at its limit adds no more.
#[test]
fn an_autoscaler_adds_nodes_up_to_its_limit() {
    let names = ["a", "b", "c", "d"];
    for (cluster, without, limited) in [(0, 5, 3), (1, 6, 3), (3, 8, 3), (4, 9, 4)] {
        let nodes = names[..cluster].iter().map(|name| node(name, 4, 8, 10)).collect();
        let mut cluster = Cluster { extra: Some("nodes=5,cpu=4,memory=8Gi"), ..Cluster::of(nodes) };
        assert_eq!(cluster.view().count(&[], &tier(4), 100), without);
        cluster.extra = Some("nodes=5,up-to=3,cpu=4,memory=8Gi");
        assert_eq!(cluster.view().count(&[], &tier(4), 100), limited);
        // Nodes that the pods may not use are not of it.
        let mut control_plane = node("control-plane", 4, 8, 10);
        control_plane["spec"]["taints"] = json!([{"key": "control-plane", "effect": "NoSchedule"}]);
        cluster.nodes.push(control_plane);
        assert_eq!(cluster.view().count(&[], &tier(4), 100), limited);
    }
    let mut cordoned = node("b", 4, 8, 10);
    cordoned["spec"]["unschedulable"] = json!(true);
    let nodes = vec![node("a", 4, 8, 10), cordoned];
    let cluster = Cluster { extra: Some("nodes=5,up-to=3,cpu=4,memory=8Gi"), ..Cluster::of(nodes) };
    assert_eq!(cluster.view().count(&[], &tier(4), 100), 2, "one more, and not in its place");
}

/// As the ones that are sold at once: every replica sees the reservations of all.
#[test]
fn fifty_pods_fit_and_the_next_does_not() {
    let nodes = (0..10).map(|index| node(&format!("n{index}"), 5, 64, 110)).collect();
    let view = Cluster::of(nodes).view();
    let tier = tier(1);
    let mut taken = Vec::new();
    for port in 20_000..20_300 {
        let pod = with_port(spec("1", "1Gi"), port);
        let left = 50_usize.saturating_sub(taken.len());
        match view.check(&taken, &demand(&pod)) {
            Ok(()) => taken.push(reserved(&pod)),
            refused => assert_eq!((refused, left), (Err(NoCapacity::Nodes), 0)),
        }
        if port < 20_060 {
            let left = u32::try_from(50_usize.saturating_sub(taken.len())).unwrap();
            assert_eq!(view.count(&taken, &tier, 1_000), left);
            assert_eq!(view.count(&taken, &tier, 7), left.min(7));
        }
    }
    assert_eq!(taken.len(), 50);
}

/// As `kubectl describe nodes`: requests, of the nodes that customers may use.
#[test]
fn utilisation_is_that_of_the_requests() {
    let mut control_plane = node("c", 64, 64, 10);
    control_plane["spec"]["taints"] = json!([{"key": "control-plane", "effect": "NoSchedule"}]);
    let mut cluster = Cluster::of(vec![node("a", 4, 8, 10), node("b", 4, 8, 10), control_plane]);
    cluster.pods = vec![
        pod("x", on("a", spec("1500m", "1Gi"))),
        pod_of(&lease(), on("b", spec("500m", "3Gi"))),
        pod("y", on("c", spec("32", "32Gi"))),
        pod("z", spec("1", "1Gi")),
    ];
    assert_eq!(cluster.view().utilisation(), Utilisation { cpu: 250, memory: 250 });
    cluster.allowed.tolerations = vec!["control-plane".to_owned()];
    assert_eq!(cluster.view().utilisation(), Utilisation { cpu: 472, memory: 450 });
}

fn of_probe(spec: Value) -> Value {
    let mut pod = pod_of(&LeaseId::of_probe(), spec);
    pod["metadata"]["labels"][PROBE] = json!("true");
    pod
}

/// It is gone as soon as an order needs its room: neither orders nor offers see it.
#[test]
fn a_probe_pod_takes_no_room() {
    let two = spec("2", "1Gi");
    let mut cluster = Cluster::of(vec![node("a", 4, 8, 2)]);
    cluster.quotas = vec![quota(json!({"hard": {"pods": "2", "limits.cpu": "4"}}))];
    let on_node = || on("a", two.clone());
    cluster.pods = vec![of_probe(on_node()), of_probe(on_node()), of_probe(two.clone())];
    let (view, none) = (cluster.view(), Utilisation { cpu: 0, memory: 0 });
    assert_eq!((view.utilisation(), view.node_utilisation(&[])), (none, Some(none)));
    assert_eq!(view.count(&[], &tier(2), 100), 2);
    assert_eq!(view.fits(&[reserved(&two)], &tier(2)), Ok(()));
    assert_eq!(view.check(&[reserved(&two)], &demand(&two)), Ok(()));
    cluster.quotas.clear();
    assert_eq!(cluster.check(&[reserved(&two)], &two), Ok(()));
    // Those of leases do.
    cluster.pods = vec![pod_of(&lease(), on_node()), pod_of(&lease(), on_node())];
    assert_eq!(cluster.check(&[], &two), Err(NoCapacity::Nodes));
}

/// They go with its pod.
#[test]
fn the_job_and_the_secret_of_a_probe_take_no_room() {
    let one = spec("1", "1Gi");
    let services: [Service; 1] = [object(json!({"spec": {"ports": [{"port": 80}]}}))];
    let pod: Pod = object(json!({"spec": one}));
    let pod = PodDemand { objects: LeaseObjects::of(&pod, &services), ..PodDemand::of(&pod) };
    let (new, tier) = (pod.to_demand(), tier(1));
    let mut cluster = Cluster::of(vec![node("a", 64, 64, 100)]);
    cluster.pods = vec![of_probe(on("a", one.clone())), of_probe(one)];
    for (name, hard, used, room) in [
        ("count/jobs.batch", 2, 2, 2),
        ("count/jobs.batch", 4, 3, 3),
        ("secrets", 5, 5, 2),
        ("count/secrets", 3, 4, 1),
        ("count/secrets", 3, 5, 0),
        // It has not counted both yet.
        ("count/secrets", 3, 1, 3),
    ] {
        let mut quota = quota(json!({"hard": {name: hard.to_string()}}));
        quota["status"] = json!({"used": {name: used.to_string()}});
        cluster.quotas = vec![quota];
        let view = cluster.view();
        assert_eq!(view.count(&[], &tier, 12), room, "{name}: {used} of {hard}");
        let expected = if room > 0 { Ok(()) } else { Err(NoCapacity::Quota) };
        assert_eq!(view.check(&[], &new), expected, "{name}: {used} of {hard}");
    }
    // It has no Service.
    let mut full = quota(json!({"hard": {"services": "1"}}));
    full["status"] = json!({"used": {"services": "1"}});
    cluster.quotas = vec![full];
    assert_eq!(cluster.view().check(&[], &new), Err(NoCapacity::Quota));
}

/// Each order once: by its pod, or by its reservation until it has one.
#[test]
fn decisions_see_what_orders_have_reserved_of_the_nodes() {
    let one = spec("1", "1Gi");
    let (running, waiting) = (reserved(&one), reserved(&one));
    let mut cluster = Cluster::of(vec![node("a", 4, 8, 10), node("b", 4, 8, 10)]);
    cluster.pods = vec![
        pod("x", on("a", one.clone())),
        pod("waits for a node", one.clone()),
        pod_of(&running.lease, on("b", one.clone())),
        pod_of(&waiting.lease, one),
    ];
    let view = cluster.view();
    let full = |cpu, memory| Some(Utilisation { cpu, memory });
    assert_eq!(view.utilisation(), Utilisation { cpu: 250, memory: 125 });
    assert_eq!(view.node_utilisation(&[]), full(375, 187));
    let mut taken = vec![running, waiting, reserved(&spec("2", "4Gi"))];
    assert_eq!(view.node_utilisation(&taken), full(625, 437));
    taken.push(reserved(&spec("6", "1Gi")));
    assert_eq!(view.node_utilisation(&taken), full(1_375, 500), "more than there is");
}

#[test]
fn offers_count_what_the_template_of_their_tier_asks_for() {
    let mut view = Cluster::of(vec![node("a", 4, 8, 10), node("b", 4, 8, 10)]).view();
    let tier = tier(1);
    let read = |spec: Value| PodDemand::of(&object(json!({"spec": spec})));
    assert_eq!(view.count(&[], &tier, 100), 8, "no template has been seen");
    let pinned = with(spec("1", "1Gi"), json!({"nodeSelector": {"kubernetes.io/hostname": "a"}}));
    let now = Instant::now();
    view.shapes.learn(&tier, &read(with_port(pinned, 20_000)), now);
    assert_eq!(view.count(&[], &tier, 100), 4, "its nodes, and not its port");
    view.shapes.learn(&tier, &read(spec("500m", "1Gi")), now);
    assert_eq!(view.count(&[], &tier, 100), 16, "the most modest of two");
    let later = now.checked_add(Duration::from_secs(600)).unwrap();
    let forgotten = view.shapes.of(&tier, &Allowed::default(), later);
    assert_eq!(forgotten.iter().map(|pod| pod.requests.cpu).collect::<Vec<_>>(), [1_000]);
}

/// So that it is the same before and after the dry run, whatever port the pod is given.
#[test]
fn what_the_pods_of_a_tier_have_needed_is_known_but_for_their_ports() {
    let mut view = Cluster::of(vec![node("a", 4, 8, 10)]).view();
    let tier = tier(1);
    assert!(view.known_demands(&tier).is_empty(), "no template has been seen");
    let read = |spec: Value| PodDemand::of(&object(json!({"spec": spec})));
    view.shapes.learn(&tier, &read(with_port(spec("1", "1Gi"), 20_000)), Instant::now());
    let known = view.known_demands(&tier);
    assert_eq!(known, [read(spec("1", "1Gi")).to_demand()]);
    let held = [Reservation { lease: lease(), demand: known[0].clone() }];
    assert_eq!(view.count(&held, &tier, 100), 3);
    assert_eq!(view.check(&held, &known[0]), Ok(()));
}

#[test]
fn tiers_of_the_same_size_are_counted_by_their_own_templates() {
    let mut view = Cluster::of(vec![node("a", 8, 8, 10), node("b", 8, 8, 10)]).view();
    let (plain, gpu) = (tier(1), Tier { id: TierId::parse("gpu").unwrap(), ..tier(1) });
    let mut with_gpu = spec("1", "1Gi");
    with_gpu["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] = json!("1");
    for (tier, spec) in [(&plain, spec("1", "1Gi")), (&gpu, with_gpu.clone())] {
        let pod = PodDemand::of(&object(json!({"spec": spec})));
        view.shapes.learn(tier, &pod, Instant::now());
    }
    let taken = [reserved(&with_gpu), reserved(&with_gpu)];
    assert_eq!(view.count(&taken[..1], &gpu, 100), 1);
    assert_eq!(view.count(&taken, &gpu, 100), 0);
    assert_eq!(view.fits(&taken, &gpu), Err(NoCapacity::Nodes));
    assert_eq!(view.count(&taken, &plain, 100), 14);
    assert_eq!(view.fits(&taken, &plain), Ok(()));
}

/// What is refused by its tier alone is refused for the reason that the order would meet.
#[test]
fn a_tier_that_does_not_fit_is_refused_with_the_reason() {
    let mut cluster = Cluster::of(vec![node("a", 4, 8, 10), node("b", 4, 8, 10)]);
    let view = cluster.view();
    let taken = [reserved(&spec("3", "1Gi")), reserved(&spec("3", "1Gi"))];
    assert_eq!(view.fits(&taken, &tier(1)), Ok(()));
    assert_eq!(view.fits(&taken, &tier(2)), Err(NoCapacity::Nodes));
    assert_eq!(view.fits(&[], &tier(64)), Err(NoCapacity::TooLarge));
    let text = NoCapacity::TooLarge.to_string();
    assert_eq!(text, "no node is large enough for this pod");
    for cores in [1, 2, 4, 64] {
        let fits = view.fits(&taken, &tier(cores)).is_ok();
        assert_eq!(fits, view.count(&taken, &tier(cores), 1) == 1, "{cores}");
    }
    cluster.quotas = vec![quota(json!({"hard": {"limits.cpu": "3"}}))];
    let mut view = cluster.view();
    let taken = [reserved(&spec("1", "1Gi"))];
    assert_eq!(view.fits(&taken, &tier(2)), Ok(()));
    assert_eq!(view.fits(&taken, &tier(3)), Err(NoCapacity::Quota));
    assert_eq!(view.fits(&taken, &tier(4)), Err(NoCapacity::QuotaTooSmall));
    assert_eq!(view.check(&taken, &demand(&spec("4", "1Gi"))), Err(NoCapacity::QuotaTooSmall));
    // Of several templates, one may fit once a pod has ended.
    for cpu in ["64", "3"] {
        let pod = PodDemand::of(&object(json!({"spec": spec(cpu, "1Gi")})));
        view.shapes.learn(&tier(3), &pod, Instant::now());
    }
    assert_eq!(view.fits(&taken, &tier(3)), Err(NoCapacity::Quota));
    assert_eq!(view.fits(&[], &tier(3)), Ok(()));
}

#[test]
fn offers_count_the_part_that_pods_request_where_the_operator_overcommits() {
    let times = |times: u32| NonZeroU32::new(times).unwrap();
    let tier = tier(1);
    for (cpu, memory, expected) in [(1, 1, 4), (3, 1, 8), (3, 2, 11), (100, 100, 50)] {
        let mut cluster = Cluster::of(vec![node("a", 4, 8, 50)]);
        cluster.allowed.overcommit = Overcommit { cpu: times(cpu), memory: times(memory) };
        assert_eq!(cluster.view().count(&[], &tier, 100), expected, "{cpu}, {memory}");
        // Limits are what was sold.
        cluster.quotas = vec![quota(json!({"hard": {"limits.cpu": "3500m"}}))];
        assert_eq!(cluster.view().count(&[], &tier, 100), 3, "{cpu}, {memory}");
    }
}

#[test]
fn a_snapshot_is_made_once_for_each_change() {
    let mut objects = Cluster::of(vec![node("a", 4, 8, 10)]).objects();
    let first = objects.snapshot().unwrap();
    objects.node_event(Event::Apply(object(node("a", 4, 8, 10))));
    assert!(std::sync::Arc::ptr_eq(&first, &objects.snapshot().unwrap()), "a heartbeat");
    let other = pod("x", on("a", spec("4", "1Gi")));
    objects.pod_event(Event::Apply(object(other.clone())));
    let full = objects.snapshot().unwrap();
    assert!(!std::sync::Arc::ptr_eq(&first, &full));
    objects.pod_event(Event::Delete(object(other)));
    let view = View {
        snapshot: objects.snapshot().unwrap(),
        shapes: Shapes::default(),
        allowed: Allowed::default(),
    };
    assert_eq!(view.check(&[], &demand(&spec("4", "1Gi"))), Ok(()));
}

#[test]
fn an_order_is_checked_in_milliseconds_in_a_large_cluster() {
    let nodes: Vec<Value> =
        (0..1_000).map(|index| node(&format!("n{index}"), 8, 64, 110)).collect();
    let small = |port: u16| with_port(spec("1", "1Gi"), port);
    let port = |index: usize| u16::try_from(20_000 + index).unwrap();
    let taken: Vec<Reservation> = (0..5_000).map(|index| reserved(&small(port(index)))).collect();
    let running = taken.iter().enumerate().map(|(index, reserved)| {
        pod_of(&reserved.lease, on(&format!("n{}", index % 1_000), small(port(index))))
    });
    let with_pods = Cluster { pods: running.collect(), ..Cluster::of(nodes.clone()) };
    let without = Cluster::of(nodes);
    for (name, cluster, limit) in [("running", &with_pods, 100), ("without a pod", &without, 1_000)]
    {
        let mut objects = cluster.objects();
        let begun = Instant::now();
        let snapshot = objects.snapshot().unwrap();
        let made = begun.elapsed();
        let view = View { snapshot, shapes: Shapes::default(), allowed: Allowed::default() };
        let new = demand(&small(40_000));
        // The shortest: others use the same cores.
        let checks = (0..10).map(|_| {
            let begun = Instant::now();
            assert_eq!(view.check(&taken, &new), Ok(()));
            begun.elapsed()
        });
        let check = checks.min().unwrap();
        println!("5,000 leases {name}, 1,000 nodes: snapshot {made:?}, check {check:?}");
        // Generous: tests are not optimised, and share the machine.
        assert!(check < Duration::from_millis(limit), "{name}: {check:?}");
        let tier = tier(1);
        assert_eq!(view.count(&taken, &tier, 10_000), 3_000);
    }
}

#[test]
fn nodes_that_have_reported_and_are_not_ready_are_named() {
    let with_status = |name: &str, conditions: Value| {
        let mut node = node(name, 1, 1, 1);
        node["status"]["conditions"] = conditions;
        node
    };
    let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
    let cluster = Cluster::of(vec![
        with_status("ready", ready("True")),
        with_status("silent", ready("Unknown")),
        with_status("failing", ready("False")),
        with_status("new", json!([])),
        with_status("full", json!([{"type": "DiskPressure", "status": "True"}])),
    ]);
    let mut objects = cluster.objects();
    assert_eq!(objects.unready_nodes(), ["failing", "silent"]);
    objects.node_event(Event::Apply(object(with_status("failing", ready("True")))));
    objects.node_event(Event::Delete(object(with_status("silent", ready("Unknown")))));
    assert_eq!(objects.unready_nodes(), [""; 0]);
}

#[test]
fn a_node_was_ready_until_its_last_report_or_until_it_reported_that_it_is_not() {
    let at = |status: &str, reported: Option<&str>, changed: Option<&str>| {
        let mut node = node("n", 1, 1, 1);
        node["status"]["conditions"] = json!([{
            "type": "Ready", "status": status, "lastHeartbeatTime": reported,
            "lastTransitionTime": changed,
        }]);
        ready_until(&object::<Node>(node))
    };
    let (reported, changed) = (Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:50Z"));
    let first = Some(UnixTime(1_767_225_600));
    let later = Some(UnixTime(1_767_225_650));
    for (status, reported, changed, expected) in [
        ("Unknown", reported, changed, first),
        ("Unknown", None, changed, later),
        ("False", reported, changed, later),
        ("False", reported, None, None),
        ("True", reported, changed, None),
    ] {
        assert_eq!(at(status, reported, changed), expected, "{status}");
    }
}
