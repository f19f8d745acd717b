//! What the tests of registries share.
#![allow(dead_code, unreachable_pub)]

use paygress_oci::testing::TestRegistry;
use paygress_oci::{
    Digest, Error, Package, Reference, Registry, RegistryOptions, SigningKey, Timeouts,
};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

pub const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 a policy";
pub const LIMIT: usize = 1 << 20;

pub fn with_timeouts(head: Duration, whole: Duration) -> Registry {
    let timeouts = Timeouts { connect: head, head, whole };
    Registry::with_options(&RegistryOptions { timeouts, ..RegistryOptions::default() }).unwrap()
}

pub fn reference(server: &TestRegistry, rest: &str) -> Reference {
    format!("oci://{}/{rest}", server.host()).parse().unwrap()
}

pub async fn push(
    client: &Registry,
    reference: &Reference,
    component: &[u8],
) -> Result<Digest, Error> {
    let annotations =
        BTreeMap::from([("org.opencontainers.image.title".to_owned(), "pricing".to_owned())]);
    let exports = ["paygress:policy/pricing@1.0.0".to_owned()];
    let package = Package {
        component,
        exports: &exports,
        imports: &[],
        author: Some("A"),
        created: None,
        annotations: &annotations,
    };
    client.push(reference, &package).await
}

pub fn key() -> SigningKey {
    let command = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let made = Command::new("openssl").args(command).output().expect("openssl has to be installed");
    assert!(made.status.success());
    SigningKey::from_pem(&String::from_utf8(made.stdout).unwrap()).unwrap()
}
