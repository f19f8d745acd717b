//! A component as an artifact: what is pushed and pulled, in the form of the CNCF's Wasm artifacts.

use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest, WASM, WASM_CONFIG, to_json};
use serde::Serialize;
use std::collections::BTreeMap;

/// The file name that `oras pull` gives the layer.
const TITLE: &str = "org.opencontainers.image.title";
const FILE: &str = "component.wasm";
/// The creation time if none is given: the same component always has the same digest.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// A component that was pulled: its bytes have the digests that name them. Whether it is signed by
/// a known key is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    pub component: Vec<u8>,
    /// What is signed, and what a reference is pinned to.
    pub manifest_digest: Digest,
    pub annotations: BTreeMap<String, String>,
}

/// A component to push. The same package has the same digest, wherever and whenever it is pushed.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    pub component: &'a [u8],
    /// The interfaces that it exports, as `paygress:policy/pricing@1.0.0`.
    pub exports: &'a [String],
    pub imports: &'a [String],
    pub author: Option<&'a str>,
    /// In the form of RFC 3339.
    pub created: Option<&'a str>,
    pub annotations: &'a BTreeMap<String, String>,
}

/// The blobs and the manifest of a package.
pub(crate) struct Encoded {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) digest: Digest,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig<'a> {
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

impl Package<'_> {
    pub(crate) fn encode(&self) -> Encoded {
        let mut layer = Descriptor::of(WASM, self.component);
        layer.annotations.insert(TITLE.to_owned(), FILE.to_owned());
        let config = to_json(&WasmConfig {
            created: self.created.unwrap_or(NO_TIME),
            author: self.author,
            architecture: "wasm",
            os: "wasip2",
            layer_digests: [layer.digest],
            component: Interfaces { exports: self.exports, imports: self.imports, target: None },
        });
        let descriptor = Descriptor::of(WASM_CONFIG, &config);
        let manifest = to_json(&Manifest::new(descriptor, vec![layer], self.annotations.clone()));
        Encoded { config, digest: Digest::of(&manifest), manifest }
    }
}
