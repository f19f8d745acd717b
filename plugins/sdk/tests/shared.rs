//! What policies have in common: durations, tiers, and public keys in hex.
#![cfg(test)]

use paygress_policy_sdk::{
    Context, Lease, Offer, Order, Payment, Price, Pricing, Problem, Problems, Purpose, Quote,
    Refusal, Resources, bought_seconds, check_least, check_owner, check_public_key, check_running,
    check_tier_ids, is_hex_of_32_bytes, least_seconds, parse, refuse_tier, seconds_for,
};
use schemars::JsonSchema;
use serde::Deserialize;

const MINUTE: Price = Price { msat: 1_000, seconds: 60 };
const FREE: Price = Price { msat: 0, seconds: 60 };

fn order(purpose: Purpose, wanted_seconds: Option<u64>) -> Order {
    Order {
        id: String::new(),
        customer: String::new(),
        purpose,
        image: None,
        tier: None,
        username: String::new(),
        wanted_seconds,
    }
}

fn extend(remaining_seconds: u64, owned_by_customer: bool) -> Order {
    let lease = Lease {
        id: String::new(),
        tier: String::new(),
        image: String::new(),
        created_at_unix_seconds: 0,
        expires_at_unix_seconds: 0,
        remaining_seconds,
        owned_by_customer,
    };
    order(Purpose::Extend(lease), None)
}

fn payment(net_sat: u64) -> Payment {
    Payment { mint: String::new(), gross_sat: net_sat, fee_sat: 0, net_sat }
}

/// The code and the message of a refusal.
fn refused(result: Result<(), Refusal>) -> Option<(String, String)> {
    result.err().map(|refusal| (refusal.code, refusal.message))
}

fn refusal(code: &str, message: &str) -> Option<(String, String)> {
    Some((code.to_owned(), message.to_owned()))
}

#[test]
fn an_amount_buys_whole_seconds() {
    assert_eq!(seconds_for(MINUTE, 0), Some(0));
    assert_eq!(seconds_for(MINUTE, 5), Some(300));
    assert_eq!(seconds_for(Price { msat: 7, seconds: 1 }, 1), Some(142));
    assert_eq!(seconds_for(FREE, 5), None);
    assert_eq!(seconds_for(Price { msat: 1, seconds: u64::MAX }, u64::MAX), Some(u64::MAX));
}

#[test]
fn at_a_price_of_zero_the_order_says_how_long() {
    let resources = Resources { cpu_millicores: 1, memory_mib: 1 };
    let quote = |price| Quote { tier: String::new(), resources, price, minimum_sat: 0 };
    for (price, wanted, bought) in
        [(MINUTE, Some(7), 300), (MINUTE, None, 300), (FREE, Some(7), 7), (FREE, None, 60)]
    {
        let order = order(Purpose::Spawn, wanted);
        assert_eq!(bought_seconds(&order, &quote(price), &payment(5), 60), bought, "{wanted:?}");
    }
}

#[test]
fn a_payment_for_less_than_the_least_is_refused() {
    let wanting = |wanted| order(Purpose::Spawn, wanted);
    assert_eq!(least_seconds(&wanting(None), 60), 60);
    assert_eq!(least_seconds(&wanting(Some(59)), 60), 60);
    assert_eq!(least_seconds(&wanting(Some(61)), 60), 61);
    let checked =
        |wanted, seconds| refused(check_least(&wanting(wanted), &payment(1), seconds, 60));
    assert_eq!(checked(None, 60), None);
    assert_eq!(checked(Some(61), 61), None);
    let message = "the token is worth 1 sat after the mint's fee and buys 60 s; the least is 61 s";
    assert_eq!(checked(Some(61), 60), refusal("insufficient_payment", message));
    assert_eq!(
        checked(None, 59),
        refusal("insufficient_payment", &message.replace("60", "59").replace("61", "60"))
    );
}

#[test]
fn a_pod_that_has_ended_is_not_extended() {
    assert_eq!(refused(check_running(&order(Purpose::Spawn, None))), None);
    assert_eq!(refused(check_running(&extend(1, false))), None);
    let ended = refusal("lease_expired", "this pod has ended; order a new one");
    assert_eq!(refused(check_running(&extend(0, true))), ended);
}

#[test]
fn only_its_customer_extends_a_pod() {
    assert_eq!(refused(check_owner(&order(Purpose::Spawn, None))), None);
    assert_eq!(refused(check_owner(&extend(0, true))), None);
    let other = refusal("not_owner", "only the customer who bought this pod may extend it");
    assert_eq!(refused(check_owner(&extend(1, false))), other);
}

#[test]
fn the_refusal_of_a_tier_names_those_for_sale() {
    let result = Err(refuse_tier(["basic", "premium"].into_iter()));
    let message = "there is no such tier; choose one of: basic, premium";
    assert_eq!(refused(result), refusal("invalid_spec", message));
}

#[test]
fn hex_of_32_bytes_is_64_lower_case_digits() {
    assert!(is_hex_of_32_bytes(&"0123456789abcdef".repeat(4)));
    // The last one has 64 bytes too.
    for (part, times) in [("", 1), ("a", 63), ("a", 65), ("A", 64), ("g", 64), ("ä", 32)] {
        let text = part.repeat(times);
        assert!(!is_hex_of_32_bytes(&text), "{text}");
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    tiers: Vec<String>,
    keys: Vec<String>,
}

paygress_policy_sdk::export!(Pricing for Settings);

impl Pricing for Settings {
    fn check(&self, problems: &mut Problems) {
        check_tier_ids(self.tiers.iter().map(String::as_str), problems);
        for (index, key) in self.keys.iter().enumerate() {
            check_public_key(key, &["keys", &index.to_string()], problems);
        }
    }

    fn offers(&self, _: &Context) -> Vec<Offer> {
        Vec::new()
    }
}

fn problems(json: &str) -> Vec<(String, String)> {
    let problems = parse::<Settings>(json).err().unwrap_or_default();
    problems.into_iter().map(|Problem { path, message }| (path, message)).collect()
}

fn problem(path: &str, message: &str) -> (String, String) {
    (path.to_owned(), message.to_owned())
}

#[test]
fn a_tier_with_the_id_of_an_earlier_one_is_reported() {
    assert!(problems(r#"{"tiers": ["a", "b"]}"#).is_empty());
    let expected = [
        problem("/tiers", "two tiers have the id a"),
        problem("/tiers", "two tiers have the id b"),
        problem("/tiers", "two tiers have the id a"),
    ];
    assert_eq!(problems(r#"{"tiers": ["a", "b", "a", "b", "a"]}"#), expected);
}

#[test]
fn a_setting_that_is_no_public_key_is_reported() {
    let key = "0f".repeat(32);
    assert!(problems(&format!(r#"{{"keys": ["{key}"]}}"#)).is_empty());
    let json = format!(r#"{{"keys": ["{key}", "{}"]}}"#, key.to_uppercase());
    let expected = [problem("/keys/1", "must be a public key of 64 lower-case hex digits")];
    assert_eq!(problems(&json), expected);
}
