//! OCI image manifests and descriptors. The same manifest is always written in the same way, so it
//! has one digest.

use crate::digest::Digest;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub(crate) const WASM: &str = "application/wasm";
/// What tools wrote before `application/wasm` was registered.
const OLD_WASM: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// How much of a registry's text is shown.
const SHOWN_CHARS: usize = 100;

/// Why a manifest is not one that is read. Texts of the registry are shown in part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    // Without its source: that quotes the manifest, which is the registry's text.
    #[error("its manifest cannot be read: line {line}: {category:?}")]
    Json { line: usize, category: serde_json::error::Category },
    #[error("it is an index of several images: name one of them by its digest")]
    Index,
    #[error("it is of type {0:?}, and not an OCI image manifest")]
    MediaType(String),
    #[error("its configuration is of type {0:?}, and not {WASM_CONFIG}")]
    ConfigType(String),
    #[error("it has {0} layers, and not one")]
    LayerCount(usize),
    #[error("its layer is of type {0:?}, and not {WASM}")]
    LayerType(String),
}

/// A blob that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn of(media_type: &str, bytes: &[u8]) -> Self {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size,
            annotations: BTreeMap::new(),
        }
    }
}

/// An OCI image manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u8,
    media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What refers to an artifact, by its `subject`.
#[derive(Deserialize)]
pub(crate) struct Index {
    #[serde(default)]
    pub(crate) manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    pub(crate) digest: Digest,
    #[serde(default)]
    pub(crate) artifact_type: Option<String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Index {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        serde_json::from_slice(bytes).map_err(json_error)
    }
}

/// What distinguishes an image manifest from other documents.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestKind {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
}

impl Manifest {
    pub(crate) fn new(
        config: Descriptor,
        layers: Vec<Descriptor>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            config,
            layers,
            annotations,
        }
    }

    /// Parses an image manifest and nothing else: what could be read as two things is rejected.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let kind: ManifestKind = serde_json::from_slice(bytes).map_err(json_error)?;
        let media_type = kind.media_type.as_deref().unwrap_or(MANIFEST);
        if kind.manifests.is_some() || [INDEX, DOCKER_LIST].contains(&media_type) {
            return Err(ManifestError::Index);
        }
        if media_type != MANIFEST {
            return Err(ManifestError::MediaType(shortened(media_type)));
        }
        serde_json::from_slice(bytes).map_err(json_error)
    }

    /// The only layer of a component.
    pub(crate) fn component(&self) -> Result<&Descriptor, ManifestError> {
        if self.config.media_type != WASM_CONFIG {
            return Err(ManifestError::ConfigType(shortened(&self.config.media_type)));
        }
        let [layer] = self.layers.as_slice() else {
            return Err(ManifestError::LayerCount(self.layers.len()));
        };
        if ![WASM, OLD_WASM].contains(&layer.media_type.as_str()) {
            return Err(ManifestError::LayerType(shortened(&layer.media_type)));
        }
        Ok(layer)
    }
}

fn json_error(error: serde_json::Error) -> ManifestError {
    ManifestError::Json { line: error.line(), category: error.classify() }
}

fn shortened(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// JSON of a value whose serialization cannot fail.
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
