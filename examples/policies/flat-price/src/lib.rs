//! A minimal pricing policy: one tier at two sat per minute, no settings.

mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/1.0", world: "pricing-policy" });
}
use bindings::exports::paygress::policy::{pricing, settings};
use bindings::paygress::policy::types::{
    Context, Offer, Order, Price, Problem, Quote, Refusal, Resources,
};

struct FlatPrice;

const SIZE: Resources = Resources { cpu_millicores: 500, memory_mib: 512 };
const PRICE: Price = Price { msat: 2_000, seconds: 60 };

impl settings::Guest for FlatPrice {
    fn schema() -> String {
        r#"{"type": "object"}"#.to_owned()
    }

    fn configure(_: String) -> Result<(), Vec<Problem>> {
        Ok(())
    }
}

impl pricing::Guest for FlatPrice {
    fn offers(_: Context) -> Vec<Offer> {
        let (name, description) = ("Flat".to_owned(), "Half a CPU, half a GiB".to_owned());
        vec![Offer {
            id: "flat".to_owned(),
            name,
            description,
            resources: SIZE,
            price: PRICE,
            minimum_sat: 1,
        }]
    }

    fn quote(order: Order, _: Context) -> Result<Quote, Refusal> {
        match order.tier.as_deref() {
            None | Some("flat") => {
                Ok(Quote { tier: "flat".to_owned(), resources: SIZE, price: PRICE, minimum_sat: 1 })
            }
            Some(_) => Err(Refusal {
                code: "invalid_spec".to_owned(),
                message: "the only tier is: flat".to_owned(),
            }),
        }
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(FlatPrice with_types_in bindings);
