//! The settings, their schema and their mistakes that the modules of the other languages are held to
//! as well.
#![cfg(test)]

use paygress_policy_sdk::{Context, Offer, Pricing, Problem, Problems, parse, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Of every kind")]
struct Settings {
    /// A "comment".
    #[schemars(range(min = 1, max = 3_600))]
    seconds: u64,
    enabled: bool,
    image: String,
    #[schemars(length(max = 2))]
    labels: Vec<String>,
    mode: Mode,
    #[schemars(length(max = 2))]
    steps: Vec<Step>,
}

#[derive(Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Slow,
    VeryFast,
}

#[derive(Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[schemars(range(min = 1, max = 90))]
    percent: u64,
    #[serde(default)]
    #[schemars(range(min = 0, max = 3_650))]
    days: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seconds: 60,
            enabled: false,
            image: "a:1".to_owned(),
            labels: Vec::new(),
            mode: Mode::Slow,
            steps: Vec::new(),
        }
    }
}

impl Pricing for Settings {
    fn check(&self, problems: &mut Problems) {
        if self.enabled && self.seconds > 100 {
            problems.add_last(&["seconds"], "must not be more than 100 when enabled");
        }
    }

    fn offers(&self, _: &Context) -> Vec<Offer> {
        Vec::new()
    }
}

paygress_policy_sdk::export!(Pricing for Settings);

#[test]
fn the_schema_and_the_problems_are_those_of_every_language() {
    let expected: Value = serde_json::from_str(include_str!("cases.json")).unwrap();
    assert_eq!(schema::<Settings>(), expected["schema"]);
    for case in expected["cases"].as_array().unwrap() {
        let problems = parse::<Settings>(&case["settings"].to_string()).err().unwrap_or_default();
        let problems: Vec<Value> =
            problems.iter().map(|Problem { path, message }| json!([path, message])).collect();
        assert_eq!(Value::Array(problems), case["problems"], "{}", case["settings"]);
    }
}
