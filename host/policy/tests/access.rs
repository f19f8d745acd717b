//! What templates learn of what was sold, and say of their pods, in each version of the contract.
#![cfg(test)]

use paygress_core::Policy;
use paygress_core::backend::policy::{
    EgressRule, Grant, Placement, PortRange, Price, Protocol, Quote, Rendered, Resources, Slot,
};
use paygress_core::model::access::{AccessMode, AccessModes};
use paygress_core::model::ids::{ImageRef, TierId};
use paygress_core::model::order::OrderView;
use paygress_core::model::units::{Msat, Sat, Seconds};
use paygress_policy::{BoxError, Host, LoadError, PolicyEngine, Source, Sources, sample_placement};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

fn file(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; build the policies first: cargo xtask plugins", path.display())
    })
}

/// The default policies, with this template.
fn sources(template: &str) -> Sources {
    let source = |slot: Slot| match slot {
        Slot::PodTemplate => (slot, Source::plain(file(template))),
        slot => (slot, Source::plain(file(&format!("target/plugins/{slot}.wasm")))),
    };
    Slot::ALL.into_iter().map(source).collect()
}

async fn rendered(host: &Host, access: AccessModes) -> Rendered {
    rendered_for(host, access, "basic").await
}

/// For an order that names no tier, with the one that was quoted.
async fn rendered_for(host: &Host, access: AccessModes, tier: &str) -> Rendered {
    let resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };
    let sample = sample_placement(ImageRef::of_test_case(), resources);
    let host_port = access.has_port().then_some(20_427);
    let placement = Placement { host_port, access, ..sample };
    let order = OrderView { username: "user".to_owned(), ..OrderView::default() };
    let grant = Grant { seconds: Seconds(60), note: None };
    let price = Price { msat: Msat(1_000), seconds: Seconds(60) };
    let quote = Quote { tier: TierId::parse(tier).unwrap(), resources, price, minimum: Sat(1) };
    host.current().render(&order, &quote, &grant, &placement).await.unwrap()
}

fn host_port(rendered: &Rendered) -> Value {
    let template: Value = serde_json::from_str(&rendered.pod_template_json).unwrap();
    template["spec"]["containers"][0]["ports"][0]["hostPort"].clone()
}

fn node_ports(rendered: &Rendered) -> Vec<Value> {
    let read = |service: &String| -> Value { serde_json::from_str(service).unwrap() };
    let ports = |service: Value| service["spec"]["ports"][0]["nodePort"].clone();
    rendered.services_json.iter().map(read).map(ports).collect()
}

const TEMPLATE: &str = "target/plugins/pod-template.wasm";
/// Of a contract that knows of no access.
const OLD_TEMPLATE: &str = "host/cli/tests/fixtures/v0.1.0/components/pod-template.wasm";

#[tokio::test]
async fn the_default_template_opens_the_port_that_is_sold() {
    let host = Host::load(PolicyEngine::start(None).unwrap(), &sources(TEMPLATE)).unwrap();
    let port = json!(20_427);
    for (access, expected) in [
        (AccessModes::default(), (port.clone(), vec![])),
        (AccessModes::new([AccessMode::NodePort]).unwrap(), (Value::Null, vec![port])),
        (AccessModes::gateway(), (Value::Null, vec![])),
    ] {
        let rendered = rendered(&host, access.clone()).await;
        assert_eq!((host_port(&rendered), node_ports(&rendered)), expected, "{access:?}");
    }
}

#[tokio::test]
async fn a_template_of_an_earlier_contract_is_given_the_port_0_where_there_is_none() {
    let host = Host::load(PolicyEngine::start(None).unwrap(), &sources(OLD_TEMPLATE)).unwrap();
    for (access, port) in [(AccessModes::default(), 20_427), (AccessModes::gateway(), 0)] {
        assert_eq!(host_port(&rendered(&host, access).await), json!(port));
    }
}

#[tokio::test]
async fn the_default_template_says_what_the_pods_of_a_tier_may_connect_to() {
    let settings = json!({"egress": {
        "mirror": {"cidrs": ["192.0.2.0/24"], "ports": ["443/tcp", "8000-8100/udp"]},
        "closed": {"cidrs": []},
    }});
    let mut sources = sources(TEMPLATE);
    sources.get_mut(&Slot::PodTemplate).unwrap().settings = settings.to_string();
    let host = Host::load(PolicyEngine::start(None).unwrap(), &sources).unwrap();
    let ports = vec![
        PortRange { protocol: Protocol::Tcp, first: 443, last: 443 },
        PortRange { protocol: Protocol::Udp, first: 8_000, last: 8_100 },
    ];
    let mirror = EgressRule { cidrs: vec!["192.0.2.0/24".to_owned()], ports };
    for (tier, expected) in
        [("basic", None), ("mirror", Some(vec![mirror])), ("closed", Some(vec![]))]
    {
        let rendered = rendered_for(&host, AccessModes::default(), tier).await;
        assert_eq!(rendered.egress, expected, "{tier}");
    }
    let old = Host::load(PolicyEngine::start(None).unwrap(), &self::sources(OLD_TEMPLATE)).unwrap();
    assert_eq!(rendered_for(&old, AccessModes::default(), "mirror").await.egress, None);
}

/// What is sold decides whether a template is activated, before the first order.
#[test]
fn templates_are_loaded_with_the_access_that_is_sold() {
    let load = |access: AccessModes| -> Result<Arc<Host>, Vec<LoadError>> {
        let guard = |_: &Rendered, placement: &Placement| match placement.host_port {
            Some(_) => Err(BoxError::from("a port is not sold")),
            None => Ok(()),
        };
        let engine = PolicyEngine::start(None).unwrap();
        Host::load(
            engine.with_access(access).with_template_guard(Box::new(guard)),
            &sources(TEMPLATE),
        )
    };
    assert!(load(AccessModes::gateway()).is_ok());
    let errors = load(AccessModes::default()).err().unwrap();
    assert!(errors[0].to_string().contains("a port is not sold"), "{}", errors[0]);
}
