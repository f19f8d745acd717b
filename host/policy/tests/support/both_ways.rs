//! Replays orders over a component that takes its settings in each call, and over a snapshot of it.
//! Other crates' tests include this file.
#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod arguments;

use arguments::Arguments;
use paygress_core::backend::policy::{
    Configured, Context, CustomerHistory, Grant, LeaseView, Payment, Placement, Price, Quote,
    Resources, Slot, Utilisation,
};
use paygress_core::model::ids::{ImageRef, MintUrl, TierId};
use paygress_core::model::order::OrderView;
use paygress_core::model::units::{Msat, Sat, Seconds, UnixTime};
use paygress_policy::{Harness, PolicyEngine, sample_placement};
use std::path::Path;
use std::sync::Arc;

/// How many orders are replayed: some hundred, unless `POLICY_REPLAYS` names another number.
fn replays() -> u64 {
    std::env::var("POLICY_REPLAYS").map_or(300, |number| number.parse().unwrap())
}

pub(crate) struct BothWays {
    each_call: Arc<PolicyEngine>,
    snapshots: Arc<PolicyEngine>,
}

impl BothWays {
    /// With a cache the component itself is compiled once for both.
    pub(crate) fn start(cache: Option<&Path>) -> Self {
        let each_call = PolicyEngine::start(cache).unwrap();
        Self { snapshots: each_call.with_snapshots(), each_call }
    }

    /// Asserts that all orders are decided the same, in the same memory. Which way the second was.
    pub(crate) fn assert_same(
        &self,
        what: &str,
        slot: Slot,
        component: &[u8],
        settings: &str,
    ) -> Configured {
        let load = |engine| Harness::load(engine, slot, component, settings).unwrap();
        let (before, after) = (load(&self.each_call), load(&self.snapshots));
        assert_eq!(before.configured(), Configured::EachCall);
        assert_eq!(before.schema(), after.schema());
        for seed in 0..replays() {
            let arguments = Arguments::random(&mut Random(seed));
            for (_, call) in arguments.calls(slot) {
                let (expected, found) = (before.call(call).unwrap(), after.call(call).unwrap());
                assert_eq!(found.result, expected.result, "{what}, order {seed}: {call:?}");
                assert_eq!(found.memory_bytes, expected.memory_bytes, "{what}: {call:?}");
            }
        }
        after.configured()
    }
}

/// SplitMix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn small(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(bound.into())).unwrap()
    }

    fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[usize::try_from(self.below(values.len().try_into().unwrap())).unwrap()].clone()
    }
}

const TIERS: [&str; 6] = ["basic", "standard", "premium", "flat", "gpu", "\u{1f980}"];
const IMAGES: [&str; 5] =
    ["alpine:3", "docker.io/library/alpine:3", "ghcr.io/example/tools:1", "debian:13", "a b"];

fn lease(random: &mut Random) -> LeaseView {
    let created_at = random.below(2_000_000_000);
    let remaining = random.below(100_000);
    LeaseView {
        id: format!("lease{}", random.below(1_000)),
        tier: TierId::parse(random.one_of(&TIERS)).unwrap(),
        image: ImageRef::parse(random.one_of(&IMAGES)).unwrap(),
        created_at: UnixTime(created_at),
        expires_at: UnixTime(created_at + remaining),
        remaining: Seconds(remaining),
        owned_by_customer: random.below(2) == 0,
    }
}

fn history(random: &mut Random) -> CustomerHistory {
    let orders = random.small(100);
    let ago = |random: &mut Random, most: u64| (orders > 0).then(|| Seconds(random.below(most)));
    CustomerHistory {
        orders,
        first_ago: ago(random, 1_000_000),
        last_day_paid: Sat(random.below(1_000_000)),
        last_day_bought: Seconds(random.below(1_000_000)),
        last_day_first_ago: ago(random, 86_400),
        last_day_undecided: random.small(3),
    }
}

fn utilisation(random: &mut Random) -> Utilisation {
    Utilisation { cpu: random.small(1_500), memory: random.small(1_500) }
}

fn order(random: &mut Random) -> OrderView {
    let key = format!("{:016x}", random.next()).repeat(4);
    OrderView {
        id: format!("{:x}", random.next()),
        customer: random.one_of(&[String::new(), format!("bearer:{key}"), key]),
        extends: (random.below(4) == 0).then(|| lease(random)),
        image: (random.below(2) == 0).then(|| random.one_of(&IMAGES).to_owned()),
        tier: (random.below(2) == 0).then(|| random.one_of(&TIERS).to_owned()),
        username: "x".repeat(usize::try_from(random.below(32)).unwrap()),
        wanted: (random.below(2) == 0).then(|| Seconds(random.below(1_000_000))),
    }
}

impl Arguments {
    fn random(random: &mut Random) -> Self {
        let resources = Resources {
            cpu_millicores: 1 + random.small(8_000),
            memory_mib: 1 + random.small(65_536),
        };
        let gross = random.below(1_000_000);
        let fee = random.below(gross + 1);
        let port = 20_000 + u16::try_from(random.below(10_000)).unwrap();
        let image = ImageRef::parse(random.one_of(&IMAGES)).unwrap();
        Self {
            order: order(random),
            context: Context {
                now: UnixTime(random.below(2_000_000_000)),
                capacity_leases: random.small(100),
                active_leases: random.small(100),
                customer_leases: (0..random.below(5)).map(|_| lease(random)).collect(),
                history: (random.below(4) != 0).then(|| history(random)),
                utilisation: (random.below(4) != 0).then(|| utilisation(random)),
            },
            quote: Quote {
                tier: TierId::parse(random.one_of(&TIERS)).unwrap(),
                resources,
                price: Price {
                    msat: Msat(random.below(1_000_000)),
                    seconds: Seconds(1 + random.below(86_400)),
                },
                minimum: Sat(random.below(100)),
            },
            payment: Payment {
                mint: MintUrl::of_test_case(),
                gross: Sat(gross),
                fee: Sat(fee),
                net: Sat(gross - fee),
            },
            grant: Grant { seconds: Seconds(1 + random.below(1_000_000)), note: None },
            placement: Placement { host_port: Some(port), ..sample_placement(image, resources) },
        }
    }
}
