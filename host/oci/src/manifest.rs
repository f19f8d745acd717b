//! What a registry keeps: manifests, and the configurations that they name. Written the same way
//! every time.

use crate::digest::Digest;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const WASM: &str = "application/wasm";
/// What came before the type above was registered.
const OLD_WASM: &str = "application/vnd.wasm.content.layer.v1+wasm";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// What `oras pull` calls the file.
const TITLE: &str = "org.opencontainers.image.title";
const FILE: &str = "component.wasm";
/// When nobody says when it was made: the same component has the same digest always.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

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

/// An image manifest of OCI.
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

/// What tells a manifest from other things.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
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

    /// Reads an image manifest and nothing else: what could be read as two things is neither.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let broken = |error: serde_json::Error| {
            format!("its manifest cannot be read: line {}: {:?}", error.line(), error.classify())
        };
        let kind: Kind = serde_json::from_slice(bytes).map_err(broken)?;
        let media_type = kind.media_type.as_deref().unwrap_or(MANIFEST);
        if kind.manifests.is_some() || [INDEX, DOCKER_LIST].contains(&media_type) {
            return Err(
                "it is an index of several images: name one of them by its digest".to_owned()
            );
        }
        if media_type != MANIFEST {
            return Err(format!(
                "it is of type {}, and not an OCI image manifest",
                quoted(media_type)
            ));
        }
        serde_json::from_slice(bytes).map_err(broken)
    }

    /// The one layer of a component.
    pub(crate) fn component(&self) -> Result<&Descriptor, String> {
        if self.config.media_type != WASM_CONFIG {
            return Err(format!(
                "its configuration is of type {}, and not {WASM_CONFIG}",
                quoted(&self.config.media_type)
            ));
        }
        let [layer] = self.layers.as_slice() else {
            return Err(format!("it has {} layers, and not one", self.layers.len()));
        };
        if ![WASM, OLD_WASM].contains(&layer.media_type.as_str()) {
            return Err(format!(
                "its layer is of type {}, and not {WASM}",
                quoted(&layer.media_type)
            ));
        }
        Ok(layer)
    }
}

/// A stranger's word, as long as it may be in a log.
fn quoted(word: &str) -> String {
    format!("{:?}", word.chars().take(100).collect::<String>())
}

/// A component's configuration, in the form of the CNCF's artefacts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WasmConfig<'a> {
    created: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a str>,
    architecture: &'a str,
    os: &'a str,
    layer_digests: [Digest; 1],
    component: Interfaces<'a>,
}

#[derive(Serialize)]
struct Interfaces<'a> {
    exports: &'a [String],
    imports: &'a [String],
    target: Option<&'a str>,
}

/// The configuration of a component, and the layer that the component is.
pub(crate) fn describe(package: &crate::Package<'_>) -> (Vec<u8>, Descriptor, Descriptor) {
    let mut layer = Descriptor::of(WASM, package.component);
    layer.annotations.insert(TITLE.to_owned(), FILE.to_owned());
    let config = written(&WasmConfig {
        created: package.created.unwrap_or(NO_TIME),
        author: package.author,
        architecture: "wasm",
        os: "wasip2",
        layer_digests: [layer.digest],
        component: Interfaces { exports: package.exports, imports: package.imports, target: None },
    });
    let described = Descriptor::of(WASM_CONFIG, &config);
    (config, described, layer)
}

/// The configuration that cosign writes for signatures: an image's, with nothing in it but the
/// layers.
pub(crate) fn describe_signatures(layers: &[Descriptor]) -> (Vec<u8>, Descriptor) {
    let layers = layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
    let config = written(&serde_json::json!({
        "architecture": "", "config": {}, "created": "0001-01-01T00:00:00Z", "history": [{"created": "0001-01-01T00:00:00Z"}],
        "os": "", "rootfs": {"diff_ids": layers, "type": "layers"},
    }));
    let described = Descriptor::of(IMAGE_CONFIG, &config);
    (config, described)
}

/// JSON of what always can be written as JSON.
pub(crate) fn written(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
