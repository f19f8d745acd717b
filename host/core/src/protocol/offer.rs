//! What is for sale, as offers say it.

use super::access_way::{OfferedWay, known};
use crate::model::decision::Digests;
use crate::model::ids::HexDigest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One tier of an offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PodSpec {
    /// What orders say.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// One or two sentences.
    pub description: String,
    /// CPU, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// The price, rounded up for old readers.
    pub rate_msats_per_sec: u64,
    /// The price, exactly: so many thousandths of a sat…
    #[serde(default)]
    #[schema(required = true)]
    pub price_msats: u64,
    /// …for so many seconds.
    #[serde(default)]
    #[schema(required = true)]
    pub price_seconds: u64,
    /// The least that is accepted, after the mint's fee.
    #[serde(default)]
    #[schema(required = true)]
    pub minimum_sats: u64,
    /// How many such pods can be had now; left out where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<u32>,
}

/// An image that orders may name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferedImage {
    /// What orders say. With `:*` at its end it stands for every tag and digest of a repository.
    pub reference: String,
    /// What it is; left out where the operator does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// How full the cluster is, in percent of what its nodes have for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UtilisationPercent {
    pub cpu: u32,
    pub memory: u32,
}

/// What is for sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferContent {
    /// What the least payment buys of the first tier.
    pub minimum_duration_seconds: u64,
    /// The mints whose tokens are accepted.
    pub whitelisted_mints: Vec<String>,
    /// What is for sale, the default tier first.
    pub pod_specs: Vec<PodSpec>,
    /// Tokens may be locked to it (NUT-11), so that nobody on the way can spend them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p2pk_pubkey: Option<String>,
    /// Left out where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilisation_percent: Option<UtilisationPercent>,
    /// Whether customers are root in their pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<bool>,
    /// Whether `run` may be `image`; left out: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_image: Option<bool>,
    /// Whether orders may have an `http_port`; left out: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_ports: Option<bool>,
    /// The images that orders may name, the default first; left out where there is no list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<OfferedImage>,
    /// The ways to pods, if there are more than their ports.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<OfferedWay>,
    /// The policies that decide; left out where no receipts are signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<OfferedPolicies>,
}

/// The policies that decide now: receipts name the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferedPolicies {
    /// Which images may be ordered.
    pub images: PolicyDigests,
    /// What a pod costs.
    pub pricing: PolicyDigests,
    /// What time a payment buys, and what a stop gives back.
    pub duration: PolicyDigests,
    /// What a pod looks like.
    pub pod_template: PolicyDigests,
}

/// What a policy is, as digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDigests {
    /// SHA-256 of the WebAssembly component, in hex.
    pub component: String,
    /// SHA-256 of its settings as canonical JSON, in hex.
    pub settings: String,
}

impl From<&Digests> for OfferedPolicies {
    fn from(digests: &Digests) -> Self {
        let settings = digests.settings.clone().unwrap_or_default();
        let policy = |component: &HexDigest, settings: HexDigest| PolicyDigests {
            component: component.to_string(),
            settings: settings.into(),
        };
        Self {
            images: policy(&digests.images, settings.images),
            pricing: policy(&digests.pricing, settings.pricing),
            duration: policy(&digests.duration, settings.duration),
            pod_template: policy(&digests.pod_template, settings.pod_template),
        }
    }
}
