//! The `Policy` resource. Its definition, `k8s/base/policy-crd.yaml`, is generated from these types
//! by `cargo xtask generate`.

#![allow(clippy::duplicated_attributes, reason = "printcolumn(type_ = …) repeats in the derive")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use paygress_core::backend::policy::{Configured, Slot};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Clone, Debug, CustomResource, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "paygress.dev",
    version = "v1",
    kind = "Policy",
    plural = "policies",
    singular = "policy",
    shortname = "pol",
    namespaced,
    status = "PolicyStatus",
    doc = "The desired policy for one slot. All Policies of the namespace with mode Enforce are \
           applied together, or none of them is. A slot without a Policy uses the component of \
           POLICY_DIR.",
    printcolumn(name = "Slot", type_ = "string", json_path = ".spec.slot"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Valid",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Valid\")].status"
    ),
    printcolumn(
        name = "Active",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Active\")].status"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.source.oci) || has(self.digest) || self.source.oci.contains('@sha256:')",
    "message": "tags are mutable: pin an oci source by digest, in the reference or in the digest field",
}]))]
pub struct PolicySpec {
    /// The decision that this component makes. The oldest Policy for a slot takes precedence.
    #[schemars(schema_with = "slot_schema")]
    pub slot: Slot,
    /// Enforce: the component decides. Shadow: it is called beside the active one, and its results
    /// are only compared.
    #[serde(default)]
    pub mode: Mode,
    /// Where the component is.
    pub source: ComponentSource,
    /// The SHA-256 of the component, as shown by `paygress policy history`. Any other component is
    /// refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^(sha256:)?[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// The component's settings, as described by its schema.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "settings_schema")]
    pub settings: Map<String, Value>,
}

/// What the component of a `Policy` is for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
pub enum Mode {
    // No doc comments: in the definition they would take the place of the field's description.
    #[default]
    Enforce,
    Shadow,
}

/// Where a component is: in a ConfigMap, or in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.configMap) != has(self.oci)",
    "message": "set either configMap or oci",
}]))]
pub enum ComponentSource {
    /// In the binaryData of a ConfigMap of this namespace (at most 1 MiB); its signature, if any,
    /// is in the data, under KEY.sig.
    ConfigMap {
        #[schemars(length(min = 1, max = 253))]
        name: String,
        #[schemars(length(min = 1, max = 253))]
        key: String,
    },
    /// In a registry: registry.example/name:tag, or with the digest of the manifest.
    Oci(#[schemars(length(min = 1, max = 512))] String),
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The generation of the resource that the conditions describe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// When the component takes its settings, if it is in use.
    // Written as null when it is not: a merge patch keeps what is left out.
    #[serde(default)]
    #[schemars(schema_with = "configured_schema")]
    pub configured: Option<Configured>,
    /// Fetched, Verified, Valid, Active, and Ready as a summary; the message gives the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

fn slot_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": Slot::ALL.map(Slot::as_str)})
}

fn configured_schema(_: &mut SchemaGenerator) -> Schema {
    let ways = [Configured::EachCall, Configured::Snapshot].map(Configured::as_str);
    json_schema!({"type": "string", "enum": ways})
}

fn settings_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// `meta.v1.Condition` with the limits that Kubernetes sets in its own types. Written out, since
/// the feature of k8s-openapi that derives it derives the schemas of all of Kubernetes' types too.
fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string"},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {"type": "string"},
                "message": {"type": "string", "maxLength": 32_768},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "observedGeneration": {"type": "integer", "format": "int64"},
            },
        },
    })
}
