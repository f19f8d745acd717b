//! Keys and signatures are those of openssl, and so those of cosign.
#![cfg(test)]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use paygress_oci::{KeyError, Keys, SigningKey, Unverified};
use std::path::Path;
use std::process::Command;

const BLOB: &[u8] = b"a policy";

fn openssl(directory: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("openssl has to be installed");
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A directory with a key in `key.pem`, `key.pub`.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    openssl(
        directory.path(),
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem",
    );
    openssl(directory.path(), "pkey -in key.pem -pubout -out key.pub");
    std::fs::write(directory.path().join("blob"), BLOB).unwrap();
    directory
}

fn text(directory: &tempfile::TempDir, name: &str) -> String {
    std::fs::read_to_string(directory.path().join(name)).unwrap()
}

#[test]
fn openssl_verifies_what_we_sign() {
    let directory = directory();
    let key = SigningKey::from_pem(&text(&directory, "key.pem")).unwrap();
    assert_eq!(key.public_pem(), text(&directory, "key.pub"));
    std::fs::write(
        directory.path().join("signature"),
        BASE64_STANDARD.decode(key.sign_blob(BLOB)).unwrap(),
    )
    .unwrap();
    openssl(directory.path(), "dgst -sha256 -verify key.pub -signature signature blob");
}

#[test]
fn we_verify_what_openssl_signs() {
    let directory = directory();
    let mut keys = Keys::default();
    keys.add("ours", &text(&directory, "key.pub")).unwrap();
    // A signature has two forms, of which openssl makes either; some of these are of each.
    for _ in 0..8 {
        openssl(directory.path(), "dgst -sha256 -sign key.pem -out signature blob");
        let signature =
            BASE64_STANDARD.encode(std::fs::read(directory.path().join("signature")).unwrap());
        assert_eq!(keys.verify_blob(BLOB, &format!("{signature}\n")).unwrap(), "ours");
        assert!(matches!(
            keys.verify_blob(b"another", &signature),
            Err(Unverified::UnknownKey { .. })
        ));
        let without_keys = Keys::default().verify_blob(BLOB, &signature).map(str::to_owned);
        assert!(matches!(without_keys, Err(Unverified::UnknownKey { .. })));
    }
    assert_eq!(
        keys.add("ours", &text(&directory, "key.pub")),
        Err(KeyError::Duplicate("ours".to_owned()))
    );
}

#[test]
fn other_keys_are_refused() {
    let directory = directory();
    openssl(
        directory.path(),
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out long.pem",
    );
    openssl(directory.path(), "pkey -in long.pem -pubout -out long.pub");
    openssl(directory.path(), "genpkey -algorithm ED25519 -out edwards.pem");
    openssl(directory.path(), "pkey -in edwards.pem -pubout -out edwards.pub");
    openssl(directory.path(), "pkey -in key.pem -aes256 -passout pass:secret -out locked.pem");
    openssl(directory.path(), "ec -in key.pem -out older.pem");
    let private = |name| SigningKey::from_pem(&text(&directory, name)).unwrap_err();
    assert_eq!(private("long.pem"), KeyError::NotPrivate);
    assert_eq!(private("edwards.pem"), KeyError::NotPrivate);
    assert_eq!(private("key.pub"), KeyError::NotPrivate);
    assert_eq!(private("locked.pem"), KeyError::Encrypted);
    assert_eq!(private("older.pem"), KeyError::OldFormat);
    let cosign = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n";
    assert_eq!(SigningKey::from_pem(cosign).unwrap_err(), KeyError::Encrypted);
    for name in ["long.pub", "edwards.pub", "key.pem", "blob"] {
        assert_eq!(
            Keys::default().add("it", &text(&directory, name)),
            Err(KeyError::NotPublic("it".to_owned()))
        );
    }
}

#[test]
fn private_keys_are_not_shown() {
    let key = SigningKey::from_pem(&text(&directory(), "key.pem")).unwrap();
    assert_eq!(format!("{key:?}"), "SigningKey(…)");
}
