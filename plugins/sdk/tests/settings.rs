//! What settings are, and how their mistakes are reported.
#![cfg(test)]

use paygress_policy_sdk::{Context, Offer, Pricing, Problem, Problems, parse, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Of every kind")]
struct Settings {
    /// A comment
    /// of two lines.
    #[schemars(range(min = 1, max = 3_600))]
    seconds: u64,
    balance: i64,
    small: u32,
    #[schemars(length(max = 2))]
    labels: Vec<String>,
    mode: Mode,
    even: Even,
    limits: BTreeMap<String, Limit>,
    evens: Vec<Even>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Slow,
    VeryFast,
}

/// It has a rule that no schema has.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(try_from = "u64")]
struct Even(u64);

impl TryFrom<u64> for Even {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, &'static str> {
        match number % 2 {
            0 => Ok(Self(number)),
            _ => Err("must be even"),
        }
    }
}

impl JsonSchema for Even {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Even".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        u64::json_schema(generator)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Limit {
    #[schemars(range(min = 1, max = 9))]
    most: u64,
    note: Option<String>,
    next: Option<Even>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seconds: 60,
            balance: -1,
            small: 0,
            labels: Vec::new(),
            mode: Mode::Slow,
            even: Even(0),
            limits: BTreeMap::new(),
            evens: Vec::new(),
        }
    }
}

impl Pricing for Settings {
    fn check(&self, problems: &mut Problems) {
        if self.seconds == 13 {
            problems.add(&["seconds"], "brings bad luck");
        }
        for (index, label) in self.labels.iter().enumerate() {
            if label == "no" {
                problems.add(&["labels", &index.to_string()], "must not be no");
            }
        }
        if self.limits.get("only").is_some_and(|limit| limit.most == 1) {
            problems.add(&["limits", "only", "most"], "must be more than 1");
        }
        if self.small > 10 && self.balance < 0 {
            problems.add_last(&["small"], "must not be more than 10 without a balance");
        }
    }

    fn offers(&self, _: &Context) -> Vec<Offer> {
        Vec::new()
    }
}

paygress_policy_sdk::export!(Pricing for Settings);

fn problems(json: &str) -> Vec<(String, String)> {
    let problems = parse::<Settings>(json).err().unwrap_or_default();
    problems.into_iter().map(|Problem { path, message }| (path, message)).collect()
}

fn expect(json: &str, expected: &[(&str, &str)]) {
    let found = problems(json);
    let found: Vec<_> = found.iter().map(|(path, message)| (&**path, &**message)).collect();
    assert_eq!(found, expected, "{json}");
}

#[test]
fn what_is_left_out_has_its_default() {
    let settings = parse::<Settings>(r#"{"mode": "very-fast", "limits": {"a": {"most": 9}}}"#);
    let settings = settings.unwrap();
    assert_eq!((settings.seconds, settings.mode, &settings.even), (60, Mode::VeryFast, &Even(0)));
    let limit = &settings.limits["a"];
    assert_eq!((limit.most, &limit.note, &limit.next), (9, &None, &None));
}

#[test]
fn the_schema_says_no_more_than_operators_need() {
    let schema = schema::<Settings>();
    assert_eq!(schema["title"], "Of every kind");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(
        schema["properties"]["seconds"],
        json!({
            "type": "integer", "minimum": 1, "maximum": 3_600, "default": 60,
            "description": "A comment of two lines."
        })
    );
    assert_eq!(
        schema["properties"]["mode"],
        json!({"enum": ["slow", "very-fast"], "default": "slow"})
    );
    assert_eq!(
        schema["properties"]["limits"]["additionalProperties"]["properties"]["note"],
        json!({"type": "string"})
    );
    assert_eq!(schema["properties"]["small"]["maximum"], u32::MAX);
}

#[test]
fn every_mistake_is_reported_in_the_order_of_the_fields() {
    expect(
        r#"{"typo": 1, "even": 3, "mode": "fast", "limits": {"b": {"most": 0, "x": 1}, "a": {}, "a/b": 1},
            "labels": ["a", 1, "b", "c"], "small": 4294967296, "balance": 1.5, "seconds": null}"#,
        &[
            ("/seconds", "must be a whole number from 1 to 3600"),
            ("/balance", "must be a whole number from -9223372036854775808 to 9223372036854775807"),
            ("/small", "must be a whole number from 0 to 4294967295"),
            ("/labels/1", "must be a text"),
            ("/labels", "must have at most 2 entries"),
            ("/mode", "must be slow or very-fast"),
            ("/even", "must be even"),
            ("/limits/a/most", "is missing"),
            ("/limits/a~1b", "must be a JSON object"),
            ("/limits/a~1b/most", "is missing"),
            ("/limits/b/most", "must be a whole number from 1 to 9"),
            ("/limits/b/x", "is not a setting; known are: most, note, next"),
            (
                "/typo",
                "is not a setting; known are: seconds, balance, small, labels, mode, even, limits, evens",
            ),
        ],
    );
}

#[test]
fn what_does_not_deserialize_is_reported_at_once_too() {
    expect(
        r#"{"limits": {"a": {"most": 1, "next": 1}, "b": {"most": 1, "next": 5}}, "even": 1}"#,
        &[
            ("/even", "must be even"),
            ("/limits/a/next", "must be even"),
            ("/limits/b/next", "must be even"),
        ],
    );
}

#[test]
fn the_policys_own_checks_see_what_is_right() {
    expect(
        r#"{"seconds": 13, "small": 11, "mode": 1, "typo": 1}"#,
        &[
            ("/seconds", "brings bad luck"),
            ("/mode", "must be a text of 1 to 512 bytes"),
            ("/small", "must not be more than 10 without a balance"),
            (
                "/typo",
                "is not a setting; known are: seconds, balance, small, labels, mode, even, limits, evens",
            ),
        ],
    );
}

#[test]
fn entries_of_a_list_are_named_by_their_own_place() {
    expect(
        r#"{"labels": [1, "a", "no"], "evens": [1, 2, "x", 3, 5, 6]}"#,
        &[
            ("/labels/0", "must be a text"),
            ("/labels/2", "must not be no"),
            ("/evens/0", "must be even"),
            ("/evens/2", "must be a whole number from 0 to 18446744073709551615"),
            ("/evens/3", "must be even"),
            ("/evens/4", "must be even"),
        ],
    );
}

/// Not by the policy's own checks as well, which see what stands in its place.
#[test]
fn a_setting_that_is_wrong_is_reported_once() {
    for (json, message) in [
        (r#"{"limits": {"only": {"most": 1}}}"#, "must be more than 1"),
        (r#"{"limits": {"only": {"most": 0}}}"#, "must be a whole number from 1 to 9"),
        (r#"{"limits": {"only": {}}}"#, "is missing"),
    ] {
        expect(json, &[("/limits/only/most", message)]);
    }
}

#[test]
fn an_answer_is_bounded() {
    let many: Vec<String> = (0..5_000).map(|n| format!("\"ü{n}\": 1")).collect();
    let found = problems(&format!("{{{}, \"{}\": 1}}", many.join(", "), "a".repeat(1_000)));
    assert_eq!(found.len(), 64);
    assert!(found.iter().all(|(path, message)| path.len() <= 500 && message.len() <= 500));
    expect("[]", &[("", "must be a JSON object")]);
    let found = problems("nonsense");
    assert!(found.len() == 1 && found[0].1.starts_with("is not JSON: "), "{found:?}");
}
