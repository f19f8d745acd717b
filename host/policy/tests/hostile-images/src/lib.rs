//! An images policy for tests that admits every image, and whose list misbehaves: the number of
//! active leases says how.
#![allow(clippy::panic)]

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../../wit/1.2", world: "images-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{Policy, bindings};
    bindings::export!(Policy with_types_in bindings);
}

use bindings::exports::paygress::policy::images::{self, ImageOffer};
use bindings::exports::paygress::policy::settings;
use bindings::paygress::policy::types::{Context, ImageRef, Order, Problem, Refusal};
use std::hint::black_box;

/// The policy.
pub struct Policy;

impl settings::Guest for Policy {
    fn schema() -> String {
        "{}".to_owned()
    }

    fn configure(_: String) -> Result<(), Vec<Problem>> {
        Ok(())
    }
}

impl images::Guest for Policy {
    fn admit(order: Order, _: Context) -> Result<ImageRef, Refusal> {
        let reference = order.image.unwrap_or_else(|| "registry.example/ssh:1".to_owned());
        Ok(ImageRef { reference })
    }

    fn catalog(context: Context) -> Vec<ImageOffer> {
        match context.active_leases {
            1 => (0..1_000).map(|_| image("debian:13")).collect(),
            2 => vec![image(&"a".repeat(1_000_000))],
            3 => (0..64).map(|_| image(&"a".repeat(512))).collect(),
            4 => vec![image("\u{1b}[2J")],
            5 => panic!("a list that panics"),
            6 => loop {
                black_box(0);
            },
            _ => vec![image("debian:13")],
        }
    }
}

fn image(reference: &str) -> ImageOffer {
    ImageOffer { reference: reference.to_owned(), description: None }
}
