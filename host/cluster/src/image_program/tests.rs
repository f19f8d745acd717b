use super::*;
use crate::ssh_server::{PodForm, PodUser, ServerVolume, SshServer};
use serde_json::{Value, json};
use std::num::NonZeroU32;

const SERVER: &str = "example.com/server:1";

/// As the guard completes it, with what an operator's template may have besides.
fn template() -> Value {
    let amounts = json!({"cpu": "1000m", "memory": "1024Mi", "ephemeral-storage": "2Gi", "nvidia.com/gpu": "1"});
    json!({"spec": {
        "restartPolicy": "OnFailure",
        "containers": [{
            "name": "ssh",
            "image": "nginx:1",
            "args": ["--serve"],
            "env": [{"name": "A", "value": "b"}],
            "ports": [{"name": "ssh", "containerPort": 2222, "hostPort": 20_500}],
            "readinessProbe": {"tcpSocket": {"port": 2222}},
            "resources": {"limits": amounts, "requests": amounts},
            "securityContext": {"runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [
                {"name": "login", "mountPath": "/run/paygress/login", "readOnly": true},
                {"name": "work", "mountPath": "/work"},
            ],
        }],
        "volumes": [
            {"name": "login", "secret": {"secretName": "ssh-pod-a"}},
            {"name": "work", "emptyDir": {}},
        ],
    }})
}

fn resources(cpu_millicores: u32, memory_mib: u32) -> Resources {
    Resources { cpu_millicores, memory_mib }
}

/// With the host's server, and the program of an order over so much.
fn added(
    template: Value,
    user: PodUser,
    sold: Resources,
    overcommit: Overcommit,
) -> Result<Value, Refusal> {
    let mut typed: PodTemplateSpec = serde_json::from_value(template).unwrap();
    let form = PodForm { user, volume: ServerVolume::Copy };
    SshServer { image: SERVER, form }.install(&mut typed, 2_222);
    ImageProgram { server_image: SERVER, services: &[], sold, overcommit }.add(&mut typed)?;
    Ok(serde_json::to_value(typed).unwrap()["spec"].clone())
}

fn sold(template: Value, user: PodUser) -> Value {
    added(template, user, resources(1_000, 1_024), Overcommit::default()).unwrap()
}

#[test]
fn server_and_program_are_sidecars_in_this_order_and_the_holder_has_the_port() {
    let spec = sold(template(), PodUser::Template);
    let [install, server, program] = [0, 1, 2].map(|at| &spec["initContainers"][at]);
    let names = [install, server, program].map(|container| container["name"].as_str().unwrap());
    assert_eq!(names, ["paygress-ssh", "ssh", "paygress-image"]);
    let policies = [install, server, program].map(|container| &container["restartPolicy"]);
    assert_eq!(policies, [&Value::Null, &json!("Always"), &json!("Always")]);
    assert_eq!(spec["initContainers"].as_array().unwrap().len(), 3);
    assert_eq!(spec["restartPolicy"], "Never", "its Job counts no restarts");

    assert_eq!(server["command"][0], "/.paygress/paygress-sshd");
    assert_eq!(server["readinessProbe"], json!({"tcpSocket": {"port": 2222}}));
    // What the image says, and nothing of the login.
    assert_eq!(
        program,
        &json!({
            "name": "paygress-image",
            "image": "nginx:1",
            "env": [{"name": "A", "value": "b"}],
            "resources": program["resources"],
            "restartPolicy": "Always",
            "securityContext": server["securityContext"],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}],
        })
    );
    let [holder] = spec["containers"].as_array().unwrap().as_slice() else { panic!("{spec}") };
    assert_eq!((&holder["name"], &holder["image"]), (&json!("paygress-pod"), &json!(SERVER)));
    assert_eq!(holder["command"], json!(["/bin/paygress-sshd", "hold"]));
    assert_eq!(holder["ports"], template()["spec"]["containers"][0]["ports"]);
    // A probe may name it.
    assert_eq!(server["ports"], json!([{"name": "ssh", "containerPort": 2222}]));
    assert_eq!(holder["volumeMounts"], Value::Null);
}

#[test]
fn all_containers_have_the_user_and_the_capabilities_of_the_servers() {
    for user in [PodUser::Template, PodUser::Root] {
        let spec = sold(template(), user);
        let server = &spec["initContainers"][1]["securityContext"];
        assert_eq!(server["runAsUser"] == json!(0), user == PodUser::Root);
        for other in ["/initContainers/0", "/initContainers/2", "/containers/0"] {
            let context = &spec.pointer(other).unwrap()["securityContext"];
            assert_eq!(context, server, "{other}, {user:?}");
        }
    }
}

/// A quantity of the side (`limits`, `requests`) of the containers that run together.
fn amounts(spec: &Value, side: &str, name: &str) -> [u64; 3] {
    ["/initContainers/1", "/initContainers/2", "/containers/0"].map(|container| {
        let amounts = &spec.pointer(container).unwrap()["resources"][side];
        let Some(text) = amounts[name].as_str() else { return 0 };
        text.trim_end_matches(['m', 'M', 'i']).parse().unwrap()
    })
}

#[test]
fn what_was_sold_is_divided_and_nothing_is_there_twice() {
    let spec = sold(template(), PodUser::Template);
    for side in ["limits", "requests"] {
        assert_eq!(amounts(&spec, side, "cpu"), [490, 490, 20], "{side}");
        assert_eq!(amounts(&spec, side, "memory"), [496, 496, 32], "{side}");
        assert_eq!(amounts(&spec, side, "nvidia.com/gpu"), [0, 1, 0], "{side}");
        let half = 1 << 30;
        assert_eq!(amounts(&spec, side, "ephemeral-storage"), [half, half, 16], "{side}");
    }
    // It runs before the others do.
    assert_eq!(spec["initContainers"][0]["resources"]["limits"]["cpu"], "1000m");
}

/// As the admission policy wants it of each container.
#[test]
fn requests_are_the_operators_part_of_each_share() {
    let of = |number: u32| NonZeroU32::new(number).unwrap();
    let overcommit = Overcommit { cpu: of(3), memory: of(2) };
    let spec = added(template(), PodUser::Template, resources(1_001, 1_025), overcommit).unwrap();
    assert_eq!(amounts(&spec, "limits", "cpu"), [490, 491, 20]);
    assert_eq!(amounts(&spec, "limits", "memory"), [496, 497, 32]);
    assert_eq!(amounts(&spec, "requests", "cpu"), [164, 164, 7]);
    assert_eq!(amounts(&spec, "requests", "memory"), [248, 249, 16]);
}

#[test]
fn a_tier_that_is_too_small_is_refused_and_so_is_a_template_of_another_kind() {
    let refused = |template: Value, sold: Resources| {
        let added = added(template, PodUser::Template, sold, Overcommit::default());
        added.err().map(|refusal| refusal.code)
    };
    for (cpu, memory, expected) in [
        (60, 96, None),
        (59, 96, Some(ErrorType::InvalidSpec)),
        (60, 95, Some(ErrorType::InvalidSpec)),
        (0, 0, Some(ErrorType::InvalidSpec)),
    ] {
        assert_eq!(refused(template(), resources(cpu, memory)), expected, "{cpu}, {memory}");
    }
    let with = |field: &str, value: Value| {
        let mut changed = template();
        changed["spec"]["containers"][0][field] = value;
        refused(changed, resources(1_000, 1_024))
    };
    let invalid = Some(ErrorType::InvalidRequest);
    assert_eq!(with("command", json!(["/usr/sbin/sshd", "-D"])), invalid, "a server of its own");
    assert_eq!(with("ports", json!([{"containerPort": 2222}])), None, "by the gateway alone");
    let mut without_server: PodTemplateSpec = serde_json::from_value(template()).unwrap();
    let program = ImageProgram {
        server_image: "",
        services: &[],
        sold: resources(1_000, 1_024),
        overcommit: Overcommit::default(),
    };
    assert_eq!(program.add(&mut without_server).err().map(|refusal| refusal.code), invalid);
    // With the server, and customers who come through a Service.
    let [within, node_port]: [Service; 2] = ["ClusterIP", "NodePort"]
        .map(|kind| serde_json::from_value(json!({"spec": {"type": kind}})).unwrap());
    for (service, expected) in [(within, None), (node_port, invalid)] {
        let mut typed: PodTemplateSpec = serde_json::from_value(template()).unwrap();
        let form = PodForm { user: PodUser::Template, volume: ServerVolume::Copy };
        SshServer { image: SERVER, form }.install(&mut typed, 2_222);
        let program = ImageProgram { server_image: SERVER, services: &[service], ..program };
        assert_eq!(program.add(&mut typed).err().map(|refusal| refusal.code), expected);
    }
}

#[test]
fn the_server_is_the_one_before_the_program_and_without_a_program_there_is_none() {
    let found = |names: &[&'static str]| server_sidecar(names, |name| name).copied();
    assert_eq!(found(&["paygress-ssh", "ssh", PROGRAM_CONTAINER]), Some("ssh"));
    assert_eq!(found(&["mesh", "paygress-ssh", "any", PROGRAM_CONTAINER]), Some("any"));
    for names in [&[][..], &["paygress-ssh"], &["paygress-ssh", "mesh"], &[PROGRAM_CONTAINER]] {
        assert_eq!(found(names), None, "{names:?}");
    }
}
