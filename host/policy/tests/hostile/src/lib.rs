//! A pricing policy for tests that misbehaves on demand.
//!
//! It behaves until the order's tier names a fault; the settings may name one for `configure`:
//! `{"configure": "spin"}`.
#![allow(clippy::panic, clippy::arithmetic_side_effects, clippy::as_conversions)]

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../../wit/1.0", world: "pricing-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{Policy, bindings};
    bindings::export!(Policy with_types_in bindings);
}

use bindings::exports::paygress::policy::{pricing, settings};
use bindings::paygress::policy::types::{
    Context, Offer, Order, Price, Problem, Quote, Refusal, Resources,
};
use std::hint::black_box;

/// The policy.
pub struct Policy;

impl settings::Guest for Policy {
    fn schema() -> String {
        "{}".to_owned()
    }

    fn configure(json: String) -> Result<(), Vec<Problem>> {
        let settings: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        match settings.get("configure").and_then(serde_json::Value::as_str) {
            Some("problems") => Err((0..1_000)
                .map(|_| Problem { path: "/x".to_owned(), message: "no".to_owned() })
                .collect()),
            Some(fault) => {
                let _ = misbehave(fault);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl pricing::Guest for Policy {
    fn offers(context: Context) -> Vec<Offer> {
        // With this many active leases it offers a large text.
        let description = "x".repeat(if context.active_leases == 7 { 1_000_000 } else { 10 });
        let offer = || Offer {
            id: "a".to_owned(),
            name: "a".to_owned(),
            description: description.clone(),
            resources: Resources { cpu_millicores: 1, memory_mib: 1 },
            price: Price { msat: 1, seconds: 1 },
            minimum_sat: 1,
        };
        vec![offer()]
    }

    fn quote(order: Order, _: Context) -> Result<Quote, Refusal> {
        misbehave(order.tier.as_deref().unwrap_or_default())
    }
}

fn recurse(depth: u64) -> u64 {
    let page = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + page[0] }
}

fn misbehave(fault: &str) -> Result<Quote, Refusal> {
    // long: one arm for each misbehaviour.
    let mut quote = Quote {
        tier: "a".to_owned(),
        resources: Resources { cpu_millicores: 1, memory_mib: 1 },
        price: Price { msat: 1_000, seconds: 60 },
        minimum_sat: 1,
    };
    match fault {
        "spin" => loop {
            black_box(0);
        },
        "allocate" => {
            let mut hoard = Vec::new();
            loop {
                // Not written to: on a busy machine the deadline must not pass first.
                hoard.push(black_box(Vec::<u8>::with_capacity(1 << 20)));
            }
        }
        "recurse" => quote.price.msat = recurse(black_box(0)),
        "panic" => panic!("a policy that panics"),
        "divide" => quote.price.msat = 1 / black_box(0_u64),
        "zero-seconds" => quote.price.seconds = 0,
        "all-the-money" => quote.price.msat = u64::MAX,
        "no-resources" => quote.resources.cpu_millicores = 0,
        "too-many-resources" => quote.resources.memory_mib = u32::MAX,
        "long-tier" => quote.tier = "a".repeat(10_000),
        "huge-tier" => quote.tier = "a".repeat(30 << 20),
        "hundred-megabytes" => quote.tier = "a".repeat(100_000_000),
        "unknown-code" => {
            return Err(Refusal {
                code: "token_already_spent".to_owned(),
                message: "lies".to_owned(),
            });
        }
        "silent-refusal" => {
            return Err(Refusal { code: "invalid_spec".to_owned(), message: String::new() });
        }
        "refuse" => {
            return Err(Refusal {
                code: "invalid_spec".to_owned(),
                message: "no such tier".to_owned(),
            });
        }
        "escape" => quote.tier = "\u{1b}[2Ja".to_owned(),
        "long-code" => {
            return Err(Refusal { code: "\u{1}".repeat(500_000), message: "no".to_owned() });
        }
        _ => {}
    }
    Ok(quote)
}
