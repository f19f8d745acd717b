//! The wire of version 0.1.0: its clients read the same bytes and are read the same way.
//! See `fixtures/v0.1.0/README.md`.

use paygress_core::model::order::Purchase;
use paygress_core::model::refusal::Refusal;
use paygress_core::protocol::{OfferContent, Request, Response, is_response};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Properties that its document left out, and optional ones that were added since.
const ADDED_PROPERTIES: &[&str] = &[
    "AccessDetails.access",
    "AccessDetails.http_login_url",
    "AccessDetails.http_url",
    "AccessDetails.known_hosts",
    "AccessDetails.receipt",
    "AccessDetails.root",
    "AccessDetails.ssh_host_keys",
    "OfferContent.access",
    "OfferContent.http_ports",
    "OfferContent.images",
    "OfferContent.policies",
    "OfferContent.root",
    "OfferContent.run_image",
    "OfferContent.utilisation_percent",
    "OverviewView.warnings",
    "PodSpec.available",
    "PolicyView.configured",
    "Problem.bearer_token",
    "Problem.end_reason",
    "Problem.pod_name",
    "Problem.receipt",
    "Problem.refund_fee_sats",
    "Readiness.warnings",
    "Request.http_port",
    "Request.http_public",
    "Request.notices",
    "Request.run",
    "StageEvent.end_reason",
    "StageEvent.notice_seconds",
    "StatusResponse.access",
    "StatusResponse.end_reason",
    "StatusResponse.image_program",
    "StopResponse.end_reason",
    "StopResponse.receipt",
    "StopResponse.refund_pending",
    "Stopped.end_reason",
    "Stopped.receipt",
    "Stopped.refund_pending",
    "Spawned.access",
    "Spawned.http_login_url",
    "Spawned.http_url",
    "Spawned.known_hosts",
    "Spawned.receipt",
    "Spawned.root",
    "Spawned.ssh_host_keys",
    "StatusResponse.http_login_url",
    "StatusResponse.http_url",
    "StatusResponse.known_hosts",
    "StatusResponse.root",
    "StatusResponse.ssh_host_keys",
    "ToppedUp.receipt",
    "TopUpResponse.receipt",
];

/// Properties that every price had, and that are left out of the price of another customer's pod.
const OWNERS_PROPERTIES: &[&str] = &[
    "PaymentRequired.cpu_millicores",
    "PaymentRequired.memory_mb",
    "PaymentRequired.tier",
    "Price.cpu_millicores",
    "Price.memory_mb",
    "Price.tier",
];

/// `AnswerType` listed the tags of all responses; each response has its own tag now.
const REPLACED_SCHEMAS: &[&str] = &["AnswerType"];

/// The `type` that each of these responses has always been sent with.
const SENT_TAGS: &[(&str, &str)] = &[
    ("AccessDetails", "access_details"),
    ("Spawned", "access_details"),
    ("TopUpResponse", "top_up_response"),
    ("ToppedUp", "top_up_response"),
    ("StatusResponse", "status_response"),
    ("StopResponse", "stop_response"),
    ("Stopped", "stop_response"),
];

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v0.1.0/wire").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn lines(name: &str) -> Vec<Value> {
    let lines: Vec<Value> =
        fixture(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty(), "{name} is empty");
    lines
}

#[test]
fn every_recorded_response_parses_and_has_the_same_bytes() {
    for recorded in lines("answers.jsonl") {
        let (name, json) = (&recorded["name"], recorded["json"].as_str().unwrap());
        let response: Response = serde_json::from_str(json).unwrap_or_else(|error| {
            panic!("{name} does not parse: {error}");
        });
        assert_eq!(response.to_json(), json, "{name}");
        assert!(is_response(json), "{name}");
    }
}

fn describe(parsed: Result<Request, Refusal>) -> Value {
    match parsed {
        Err(refusal) => json!({ "kind": "error", "code": refusal.code }),
        Ok(Request::Status { pod }) => json!({ "kind": "status", "pod": pod }),
        Ok(Request::Stop { pod }) => json!({ "kind": "stop", "pod": pod }),
        Ok(Request::Buy { token, purchase, password, notices }) => {
            assert!(!notices, "no client of version 0.1.0 expects them");
            let token = token.map(|token| token.expose().to_owned());
            let password = password.map(|password| password.expose().to_owned());
            match purchase {
                Purchase::TopUp { pod } => {
                    json!({ "kind": "top-up", "token": token, "pod": pod, "password": password })
                }
                Purchase::Spawn { image, tier, username, public_key, wanted, run: _, http: _ } => {
                    json!({
                        "kind": "spawn", "token": token, "image": image, "tier": tier,
                        "username": username, "public_key": public_key, "wanted_seconds": wanted,
                        "password": password,
                    })
                }
            }
        }
    }
}

#[test]
fn every_recorded_request_is_read_as_before() {
    for recorded in lines("requests.jsonl") {
        let text = recorded["text"].as_str().unwrap();
        let mut parsed = describe(Request::parse(text));
        let mut expected = recorded["parsed"].clone();
        // The service made the password, and makes none any more for a customer with a key; the code
        // of an error is stable, its text is not.
        if expected["password"] == "made" && !expected["public_key"].is_null() {
            expected["password"] = Value::Null;
        }
        if expected["password"] == "made" {
            assert!(parsed["password"].as_str().is_some_and(|made| made.len() >= 8), "{text}");
            parsed["password"] = json!("made");
        }
        // Since then a tier may be longer.
        if expected["message"] == "tier is longer than 64 bytes" {
            assert_ne!(parsed["kind"], "error", "{text}");
            continue;
        }
        if expected["kind"] == "error" {
            expected = json!({ "kind": "error", "code": expected["code"] });
        }
        assert_eq!(parsed, expected, "{text}");
        assert_eq!(is_response(text), recorded["is_answer"], "{text}");
    }
}

#[test]
fn every_recorded_offer_parses_and_has_the_same_bytes() {
    for recorded in lines("offers.jsonl") {
        let json = recorded["content"].as_str().unwrap();
        let offer: OfferContent = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&offer).unwrap(), json);
    }
}

/// What a schema says of a value, without descriptions and bounds. Schemas that it refers to are
/// compared under their own names.
fn describe_schema(schema: &Value) -> Value {
    let parts = |keyword: &str| -> Vec<Value> {
        schema[keyword].as_array().into_iter().flatten().map(describe_schema).collect()
    };
    json!({
        "$ref": schema["$ref"],
        "type": schema["type"],
        "format": schema["format"],
        "enum": schema["enum"],
        "items": schema.get("items").map(describe_schema),
        "oneOf": parts("oneOf"),
        "anyOf": parts("anyOf"),
        "allOf": parts("allOf"),
    })
}

fn resolve<'a>(document: &'a Value, path: &str) -> &'a Value {
    document.pointer(path.trim_start_matches('#')).unwrap()
}

/// The texts that a response's `type` may have. Version 0.1.0 described it as one of all tags, and
/// sent the one of [`SENT_TAGS`].
fn tag_values(document: &Value, response: &str, path: &str) -> Value {
    let values = resolve(document, path)["enum"].clone();
    if !path.ends_with("/AnswerType") {
        return values;
    }
    let (_, sent) = SENT_TAGS.iter().find(|(name, _)| *name == response).unwrap();
    assert!(values.as_array().unwrap().contains(&json!(sent)), "{response}: {sent}");
    json!([sent])
}

/// What the OpenAPI document promises: operations, and properties with their types.
#[derive(Debug, Default)]
struct Contract {
    operations: BTreeSet<String>,
    schemas: BTreeSet<String>,
    properties: BTreeMap<String, Value>,
}

impl Contract {
    fn read(document: &Value) -> Self {
        let mut contract = Self::default();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                contract.read_operation(&format!("{method} {path}"), operation);
            }
        }
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for (name, schema) in schemas {
            contract.schemas.insert(name.clone());
            contract.read_properties(document, name, schema);
        }
        contract
    }

    fn read_operation(&mut self, name: &str, operation: &Value) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let required = parameter["required"] == true;
            let parameter = format!("{} in {}", parameter["name"], parameter["in"]);
            self.operations.insert(format!("{name}: {parameter}, required: {required}"));
        }
        let bodies = operation["requestBody"]["content"].as_object();
        for (content, body) in bodies.into_iter().flatten() {
            self.operations.insert(format!("{name} takes {content}: {}", body["schema"]));
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            self.operations.insert(format!("{name}: {status}"));
            for (content, body) in response["content"].as_object().into_iter().flatten() {
                self.operations
                    .insert(format!("{name}: {status} is {content}: {}", body["schema"]["$ref"]));
            }
        }
    }

    /// The schema's own properties, and those of the parts that it is made of.
    fn read_properties(&mut self, document: &Value, name: &str, schema: &Value) {
        if let Some(path) = schema["$ref"].as_str() {
            return self.read_properties(document, name, resolve(document, path));
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.read_properties(document, name, part);
        }
        let required: Vec<&Value> = schema["required"].as_array().into_iter().flatten().collect();
        for (property, value) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.iter().any(|required| *required == property);
            let kind = match value["$ref"].as_str().filter(|_| property == "type") {
                Some(path) => tag_values(document, name, path),
                None => describe_schema(value),
            };
            self.properties.insert(format!("{name}.{property}"), json!([kind, is_required]));
        }
        let alternatives = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
        if alternatives.is_some() {
            self.properties.insert(format!("{name} alternatives"), describe_schema(schema));
        }
        if !schema["enum"].is_null() {
            self.properties.insert(format!("{name} values"), schema["enum"].clone());
        }
    }
}

#[test]
fn the_openapi_document_promises_what_it_promised() {
    let recorded = Contract::read(&serde_json::from_str(&fixture("openapi.json")).unwrap());
    let current = Contract::read(&serde_json::from_str(paygress_http::openapi()).unwrap());
    let missing: Vec<&String> = recorded.operations.difference(&current.operations).collect();
    assert!(missing.is_empty(), "operations are missing: {missing:#?}");
    for schema in recorded.schemas.difference(&current.schemas) {
        assert!(REPLACED_SCHEMAS.contains(&schema.as_str()), "the schema {schema} is missing");
    }
    for (property, described) in &recorded.properties {
        let schema = property.split(['.', ' ']).next().unwrap();
        if REPLACED_SCHEMAS.contains(&schema) {
            continue;
        }
        let mut described = described.clone();
        if OWNERS_PROPERTIES.contains(&property.as_str()) {
            assert_eq!(described[1], true, "{property}");
            described[1] = json!(false);
        }
        assert_eq!(current.properties.get(property), Some(&described), "{property}");
    }
    for property in current.properties.keys() {
        let (schema, name) = property.split_once(['.', ' ']).unwrap_or((property, ""));
        let is_of_problem = schema == "PaymentRequired"
            && ADDED_PROPERTIES.contains(&format!("Problem.{name}").as_str());
        assert!(
            recorded.properties.contains_key(property)
                || ADDED_PROPERTIES.contains(&property.as_str())
                || is_of_problem
                || !recorded.schemas.contains(schema),
            "{property} was added"
        );
    }
}
