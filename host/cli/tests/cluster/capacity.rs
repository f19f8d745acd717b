//! No more is sold than the cluster has room for: whoever gets no place keeps their token, and
//! learns it at once.

use crate::support::testbed::{
    AdmissionParameters, Bought, CLUSTER, FakeNodes, Market, MarketSetup, TOKEN_SAT, apply,
    is_left_out, items, kubectl, ready_nodes, remove_pods, sized, wait_for, wait_until_ready,
};
use crate::{in_workloads, objects, pods};
use serde_json::{Value, json};
use std::time::Duration;

/// How many buyers are few.
const FEW: usize = 12;
/// How long a buyer among few waits for "sold out".
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// How long one of hundreds waits for it: of a service that is not optimised, beside other programs.
/// `docs/testing.md` has the figures of release builds.
const REFUSED_OF_CROWD_WITHIN: Duration = Duration::from_secs(20);
/// How long probe pods may take, and what comes after them.
const PROBES: Duration = Duration::from_secs(120);
/// How many pods of this much CPU fit on each of the fake nodes.
const NODE_ROOM: usize = 10;
const POD_MILLICORES: u64 = 100;
/// How far the offers may be from the cluster, in thousandths.
const TOLERANCE: u64 = 20;

/// How many fake nodes: five for the crowd of 300.
fn nodes() -> usize {
    sized(1, 5)
}

/// How many come for the places of a node.
fn node_buyers() -> usize {
    sized(24, 60)
}

fn fake_nodes(nodes: usize) -> FakeNodes {
    // Together five have CPU for 54 pods, and places for 50.
    let allocatable =
        json!({"cpu": "1099m", "memory": "1Gi", "ephemeral-storage": "100Gi", "pods": "110"});
    FakeNodes::start(nodes, &allocatable)
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn of_twelve_buyers_at_a_real_node_with_room_for_two_two_get_a_pod() {
    let _alone = CLUSTER.lock();
    let (market, refused) = sell_to_two_of_twelve("twelve", 1);

    // Once a pod has ended the place is sold again, for a token that was refused.
    let job = objects("job").lines().next().unwrap().to_owned();
    kubectl(&["-n", "user-workloads", "delete", &job, "--cascade=foreground", "--wait"]);
    let mut token = refused.into_iter().next().unwrap().token;
    wait_for("a token that was refused to buy", Duration::from_secs(90), || {
        let bought = market.buy(vec![token.clone()]).remove(0);
        let is_sold = bought.is_sold();
        token = bought.token;
        is_sold
    });
    assert_eq!(market.unspent(&[token]), 0);
    drop(market);
    remove_pods();
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn of_twelve_buyers_at_two_replicas_two_get_a_pod() {
    if is_left_out("of_twelve_buyers_at_a_real_node… and two_replicas…") {
        return;
    }
    let _alone = CLUSTER.lock();
    let (market, _) = sell_to_two_of_twelve("twelve-at-two", 2);
    drop(market);
    remove_pods();
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn of_a_crowd_as_many_get_a_pod_as_fit_on_the_nodes() {
    if is_left_out("of_twelve_buyers… and two_replicas…") {
        return;
    }
    let _alone = CLUSTER.lock();
    let _nodes = fake_nodes(nodes());
    let market = Market::start("crowd", 1, POD_MILLICORES);
    sell(&market, nodes() * node_buyers(), nodes() * NODE_ROOM);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn two_replicas_sell_each_place_to_a_crowd_once() {
    let _alone = CLUSTER.lock();
    let _nodes = fake_nodes(nodes());
    let market = Market::start("two-replicas", 2, POD_MILLICORES);
    sell(&market, nodes() * node_buyers(), nodes() * NODE_ROOM);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn offers_say_how_full_the_cluster_is() {
    let _alone = CLUSTER.lock();
    let nodes = sized(2, 5);
    let _nodes = fake_nodes(nodes);
    let market = Market::start("utilisation", 1, POD_MILLICORES);
    let buyers = nodes * 4;
    let room = |pods: usize| u64::try_from(pods).unwrap();
    let (empty, left) = (room(nodes * NODE_ROOM), room(nodes * NODE_ROOM - buyers));
    market.wait_for_room(empty);
    agrees_with_the_cluster(&market);
    let bought = market.buy(market.tokens(buyers));
    for bought in &bought {
        assert!(bought.is_sold(), "there is room for it: {}", bought.answer.json()["detail"]);
    }
    market.wait_for_room(left);
    agrees_with_the_cluster(&market);
    // A pod that is not the service's: on an empty node it takes the place of six, elsewhere of as
    // many as are left there.
    let other = OtherPod::start(550, 256);
    let free: u64 = ready_nodes()
        .iter()
        .map(|node| {
            let [requested, allocatable] = requests(std::slice::from_ref(node), "cpu", milli);
            (allocatable - requested) / POD_MILLICORES
        })
        .sum();
    assert!(free < left, "{free}");
    market.wait_for_room(free);
    agrees_with_the_cluster(&market);
    drop(other);
    market.wait_for_room(left);
}

/// Two try what pods reach, and have all that is left of the node when two buyers come.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn what_probe_pods_have_of_a_node_is_sold() {
    let _alone = CLUSTER.lock();
    let server = ("SSH_SERVER_IMAGE", "paygress.local/ssh:1");
    let _set = AdmissionParameters::set(&[server]);
    remove_pods();
    let [requested, allocatable] = requests(&ready_nodes(), "cpu", milli);
    let market = Market::start_with(&MarketSetup {
        name: "probes-give-way",
        replicas: 1,
        cpu_millicores: (allocatable - requested) / 2,
        pricing: "",
        settings: &[("POD_PROBE", "true"), ("POD_READY_SECONDS", "60"), server],
    });
    let tokens = market.tokens(2);
    wait_for("two probe pods on the node", PROBES, || {
        let probes = ["get", "pod", "-l", "paygress.dev/probe", "-o"];
        let nodes = in_workloads(&[&probes[..], &["jsonpath={.items[*].spec.nodeName}"]].concat());
        nodes.split_whitespace().count() == 2
    });
    for Bought { answer, .. } in market.buy(tokens) {
        assert!((200..300).contains(&answer.status), "refused: {}", answer.json());
    }
    wait_for("both pods to run", PROBES, || {
        pods("jsonpath={.items[*].status.phase}") == "Running Running"
    });
    drop(market);
    remove_pods();
}

/// A pod of somebody else in the cluster, gone with this.
struct OtherPod;

impl OtherPod {
    const NAME: &str = "not-paygress";

    fn start(cpu_millicores: u64, memory_mib: u64) -> Self {
        let requests =
            json!({"cpu": format!("{cpu_millicores}m"), "memory": format!("{memory_mib}Mi")});
        let container = json!({"name": "main", "image": "testbed.local/pause:1", "resources": {"requests": requests}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": Self::NAME, "namespace": "default"}, "spec": {"containers": [container]}});
        apply(&pod.to_string());
        let started = Self;
        wait_until_ready("default", Self::NAME);
        started
    }
}

impl Drop for OtherPod {
    fn drop(&mut self) {
        kubectl(&["delete", "pod", Self::NAME, "--ignore-not-found", "--wait"]);
    }
}

/// At the real node, which has room for two pods. Returns those who are refused.
fn sell_to_two_of_twelve(name: &str, replicas: usize) -> (Market, Vec<Bought>) {
    const ROOM: usize = 2;
    remove_pods();
    let [requested, allocatable] = requests(&ready_nodes(), "cpu", milli);
    let pod = (allocatable - requested) / u64::try_from(ROOM).unwrap();
    let market = Market::start(name, replicas, pod);
    let refused = sell(&market, FEW, ROOM);
    (market, refused)
}

/// So many buyers at once, where there is room for so many: the others are refused at once, and
/// keep their tokens to the sat. Returns those.
fn sell(market: &Market, buyers: usize, room: usize) -> Vec<Bought> {
    market.wait_for_room(u64::try_from(room).unwrap());
    let tokens = market.tokens(buyers);
    let (sold, refused): (Vec<Bought>, Vec<Bought>) =
        market.buy(tokens).into_iter().partition(Bought::is_sold);
    println!("{buyers} buyers, room for {room}: {} sold, {} refused", sold.len(), refused.len());
    let took = |bought: &[Bought]| {
        let mut took: Vec<Duration> = bought.iter().map(|bought| bought.took).collect();
        took.sort();
        (took[took.len() / 2], took[took.len() - 1])
    };
    let (of_sold, of_refused) = (took(&sold), took(&refused));
    println!("sold within {:?} (half of them) and {:?} (all)", of_sold.0, of_sold.1);
    println!("refused within {:?} (half of them) and {:?} (all)", of_refused.0, of_refused.1);
    for Bought { answer, .. } in &refused {
        let problem = answer.is(503, "resource_unavailable");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("no node has enough left"), "another reason: {problem}");
    }
    assert_eq!(sold.len(), room, "what fits is sold");
    let kept: Vec<String> = refused.iter().map(|bought| bought.token.clone()).collect();
    let owed = u64::try_from(kept.len()).unwrap() * TOKEN_SAT;
    assert_eq!(market.unspent(&kept), owed, "every sat of a refused token is good");
    let spent: Vec<String> = sold.into_iter().map(|bought| bought.token).collect();
    assert_eq!(market.unspent(&spent), 0);

    let on_nodes = pods("jsonpath={.items[*].spec.nodeName}");
    assert_eq!(on_nodes.split_whitespace().count(), room, "each has a node: {on_nodes}");
    assert_eq!(objects("job").lines().count(), room, "nothing was begun for the others");
    market.wait_for_room(0);
    agrees_with_the_cluster(market);
    let within = if buyers > FEW { REFUSED_OF_CROWD_WITHIN } else { REFUSED_WITHIN };
    assert!(of_refused.1 <= within, "the last one was refused after {:?}", of_refused.1);
    refused
}

/// What every replica offers is what the nodes and the pods themselves say.
fn agrees_with_the_cluster(market: &Market) {
    let nodes = ready_nodes();
    let share = |[requested, allocatable]: [u64; 2]| requested * 1_000 / allocatable;
    let own =
        [("cpu", requests(&nodes, "cpu", milli)), ("memory", requests(&nodes, "memory", bytes))];
    for (resource, amounts) in own {
        let own = share(amounts);
        for offers in market.all_offers() {
            let offered = offers["utilisation_percent"][resource].as_u64();
            let offered = offered.unwrap_or_else(|| panic!("no utilisation in {offers}")) * 10;
            println!("{resource}: {offered} ‰ in the offers, {own} ‰ in the cluster");
            assert!(offered.abs_diff(own) <= TOLERANCE, "{resource}: {offered} is not {own}");
        }
    }
}

/// How much of a resource the pods on these nodes request, and how much the nodes have for pods.
fn requests(nodes: &[Value], resource: &str, amount: fn(&str) -> u64) -> [u64; 2] {
    let quantity = |value: &Value| value.as_str().map_or(0, amount);
    let allocatable =
        nodes.iter().map(|node| quantity(&node["status"]["allocatable"][resource])).sum();
    let is_there = |pod: &&Value| {
        let is_over = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
        let node = &pod["spec"]["nodeName"];
        !is_over && nodes.iter().any(|other| other["metadata"]["name"] == *node)
    };
    let requested = items(&["get", "pods", "-A", "-o", "json"])
        .iter()
        .filter(is_there)
        .flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten())
        .map(|container| quantity(&container["resources"]["requests"][resource]))
        .sum();
    [requested, allocatable]
}

/// A quantity of CPU in thousandths.
fn milli(quantity: &str) -> u64 {
    match quantity.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().unwrap(),
        None => quantity.parse::<u64>().unwrap() * 1_000,
    }
}

/// A quantity of memory in bytes.
fn bytes(quantity: &str) -> u64 {
    let units = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("", 1_u64)];
    let (number, unit) = units
        .iter()
        .find_map(|(suffix, unit)| Some((quantity.strip_suffix(*suffix)?, *unit)))
        .unwrap();
    number.parse::<u64>().unwrap() * unit
}
