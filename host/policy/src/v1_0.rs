//! Conversions between the types of contract 1.0 and those of `paygress-core`.
//!
//! A guest's output is checked here against the ranges that `wit/1.0/types.wit` documents.

use crate::bindings::common::paygress::policy::types as wit;
use paygress_core::backend::policy::{
    FaultKind, Grant, LeaseView, Offer, Payment, Placement, Price, Quote, Rendered, Resources,
};
use paygress_core::model::ids::{ImageRef, TierId};
use paygress_core::model::order::OrderView;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::{Msat, Sat, Seconds};
use paygress_core::sanitize::{is_plain, plain};

pub(crate) const TEN_YEARS: u64 = 315_360_000;
const ALL_MONEY_MSAT: u64 = 2_100_000_000_000_000_000;
const ALL_MONEY_SAT: u64 = 2_100_000_000_000_000;
const SCHEMA_BYTES: usize = 65_536;
const TEMPLATE_BYTES: usize = 65_536;
const SERVICE_BYTES: usize = 16_384;
const SERVICES: usize = 4;
const OFFERS: usize = 64;

type Checked<T> = Result<T, FaultKind>;

pub(crate) fn invalid<T>(reason: impl Into<String>) -> Checked<T> {
    Err(FaultKind::InvalidOutput(reason.into()))
}

/// Checks a text's length in bytes.
fn sized(name: &str, text: String, min: usize, max: usize) -> Checked<String> {
    if (min..=max).contains(&text.len()) {
        Ok(text)
    } else {
        invalid(format!("{name} has {} bytes instead of {min} to {max}", text.len()))
    }
}

/// Checks a line of text that is shown to people, also in terminals.
pub(crate) fn text(name: &str, text: String, min: usize, max: usize) -> Checked<String> {
    let text = sized(name, text, min, max)?;
    match text.chars().all(is_plain) {
        true => Ok(text),
        false => invalid(format!("{name} has a control character; it must be one line of text")),
    }
}

fn tier(name: &str, id: String) -> Checked<TierId> {
    let bytes = id.len();
    TierId::parse(id).or_else(|error| invalid(format!("{name}, of {bytes} bytes, is {error}")))
}

pub(crate) fn check_schema(schema: &str) -> Checked<()> {
    if schema.len() > SCHEMA_BYTES {
        return invalid(format!("a settings schema of {} bytes", schema.len()));
    }
    match serde_json::from_str::<serde_json::Value>(schema) {
        Ok(serde_json::Value::Object(_)) => Ok(()),
        _ => invalid("a settings schema that is not a JSON object"),
    }
}

pub(crate) fn lease(view: &LeaseView) -> wit::Lease {
    wit::Lease {
        id: view.id.clone(),
        tier: view.tier.to_string(),
        image: view.image.to_string(),
        created_at_unix_seconds: view.created_at.0,
        expires_at_unix_seconds: view.expires_at.0,
        remaining_seconds: view.remaining.0,
        owned_by_customer: view.owned_by_customer,
    }
}

fn resources(resources: Resources) -> wit::Resources {
    wit::Resources { cpu_millicores: resources.cpu_millicores, memory_mib: resources.memory_mib }
}

pub(crate) fn order(view: &OrderView) -> wit::Order {
    wit::Order {
        id: view.id.clone(),
        customer: view.customer.clone(),
        purpose: view
            .extends
            .as_ref()
            .map_or(wit::Purpose::Spawn, |view| wit::Purpose::Extend(lease(view))),
        image: view.image.clone(),
        tier: view.tier.clone(),
        username: view.username.clone(),
        wanted_seconds: view.wanted.map(|seconds| seconds.0),
    }
}

pub(crate) fn quote(quote: &Quote) -> wit::Quote {
    wit::Quote {
        tier: quote.tier.to_string(),
        resources: resources(quote.resources),
        price: wit::Price { msat: quote.price.msat.0, seconds: quote.price.seconds.0 },
        minimum_sat: quote.minimum.0,
    }
}

pub(crate) fn payment(payment: &Payment) -> wit::Payment {
    wit::Payment {
        mint: payment.mint.to_string(),
        gross_sat: payment.gross.0,
        fee_sat: payment.fee.0,
        net_sat: payment.net.0,
    }
}

pub(crate) fn grant(grant: &Grant) -> wit::Grant {
    wit::Grant { seconds: grant.seconds.0, note: grant.note.clone() }
}

pub(crate) fn placement(placement: &Placement) -> wit::Placement {
    wit::Placement {
        pod_name: placement.pod_name.clone(),
        image: placement.image.to_string(),
        resources: resources(placement.resources),
        // 0 is none, for Kubernetes too.
        host_port: placement.host_port.unwrap_or_default(),
        container_port: placement.container_port,
        secret_name: placement.secret_name.clone(),
        secret_mount_path: placement.secret_mount_path.clone(),
    }
}

pub(crate) fn refusal(refusal: wit::Refusal) -> Checked<Refusal> {
    let Some(code) = ErrorType::of_policy(&refusal.code) else {
        return invalid(format!(
            "the refusal code {}, which a policy may not use",
            plain(&refusal.code, 40)
        ));
    };
    Ok(Refusal::new(code, text("the refusal's message", refusal.message, 1, 500)?))
}

fn checked_resources(of: wit::Resources) -> Checked<Resources> {
    if !(1..=1_000_000).contains(&of.cpu_millicores) || !(1..=16_777_216).contains(&of.memory_mib) {
        return invalid(format!("{} mCPU and {} MiB", of.cpu_millicores, of.memory_mib));
    }
    Ok(Resources { cpu_millicores: of.cpu_millicores, memory_mib: of.memory_mib })
}

fn checked_price(price: wit::Price) -> Checked<Price> {
    if price.msat > ALL_MONEY_MSAT || !(1..=TEN_YEARS).contains(&price.seconds) {
        return invalid(format!("a price of {} msat for {} s", price.msat, price.seconds));
    }
    Ok(Price { msat: Msat(price.msat), seconds: Seconds(price.seconds) })
}

fn checked_minimum(sat: u64) -> Checked<Sat> {
    if sat > ALL_MONEY_SAT { invalid(format!("a minimum of {sat} sat")) } else { Ok(Sat(sat)) }
}

pub(crate) fn checked_image(image: wit::ImageRef) -> Checked<ImageRef> {
    let bytes = image.reference.len();
    let image = ImageRef::parse(image.reference);
    image.or_else(|error| invalid(format!("the image, of {bytes} bytes, is {error}")))
}

pub(crate) fn checked_offers(offers: Vec<wit::Offer>) -> Checked<Vec<Offer>> {
    if !(1..=OFFERS).contains(&offers.len()) {
        return invalid(format!("{} offers", offers.len()));
    }
    let offer = |offer: wit::Offer| {
        Ok(Offer {
            id: tier("an offer's id", offer.id)?,
            name: text("an offer's name", offer.name, 1, 100)?,
            description: text("an offer's description", offer.description, 0, 500)?,
            resources: checked_resources(offer.resources)?,
            price: checked_price(offer.price)?,
            minimum: checked_minimum(offer.minimum_sat)?,
        })
    };
    offers.into_iter().map(offer).collect()
}

pub(crate) fn checked_quote(quote: wit::Quote) -> Checked<Quote> {
    Ok(Quote {
        tier: tier("the tier", quote.tier)?,
        resources: checked_resources(quote.resources)?,
        price: checked_price(quote.price)?,
        minimum: checked_minimum(quote.minimum_sat)?,
    })
}

pub(crate) fn checked_grant(grant: wit::Grant) -> Checked<Grant> {
    if !(1..=TEN_YEARS).contains(&grant.seconds) {
        return invalid(format!("a grant of {} s", grant.seconds));
    }
    Ok(Grant {
        seconds: Seconds(grant.seconds),
        note: grant.note.map(|note| text("the note", note, 0, 500)).transpose()?,
    })
}

pub(crate) fn checked_rendered(rendered: wit::Rendered) -> Checked<Rendered> {
    if rendered.services_json.len() > SERVICES {
        return invalid(format!("{} Services", rendered.services_json.len()));
    }
    Ok(Rendered {
        pod_template_json: sized(
            "the pod template",
            rendered.pod_template_json,
            2,
            TEMPLATE_BYTES,
        )?,
        services_json: rendered
            .services_json
            .into_iter()
            .map(|service| sized("a Service", service, 2, SERVICE_BYTES))
            .collect::<Checked<_>>()?,
        egress: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_outside_the_range_of_the_contract_is_a_fault() {
        let checked =
            |reference: &str| checked_image(wit::ImageRef { reference: reference.to_owned() });
        let long = "x".repeat(512);
        for good in ["debian:13", &long] {
            assert_eq!(checked(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\nb", &"x".repeat(513)] {
            let Err(FaultKind::InvalidOutput(reason)) = checked(bad) else {
                panic!("{bad:?} is an image")
            };
            assert!(reason.contains("1 to 512 bytes"), "{reason}");
        }
    }
}
