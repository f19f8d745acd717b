//! Keys and signatures are those of openssl, and so those of cosign.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use paygress_oci::{KeyError, Keys, SigningKey, Unverified};
use std::path::Path;
use std::process::Command;

const BLOB: &[u8] = b"a policy";

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl has to be installed");
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A folder with a key in `key.pem`, `key.pub`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    openssl(folder.path(), "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem");
    openssl(folder.path(), "pkey -in key.pem -pubout -out key.pub");
    std::fs::write(folder.path().join("blob"), BLOB).unwrap();
    folder
}

fn text(folder: &tempfile::TempDir, name: &str) -> String {
    std::fs::read_to_string(folder.path().join(name)).unwrap()
}

#[test]
fn openssl_verifies_what_we_sign() {
    let folder = folder();
    let key = SigningKey::from_pem(&text(&folder, "key.pem")).unwrap();
    assert_eq!(key.public_pem(), text(&folder, "key.pub"));
    std::fs::write(
        folder.path().join("signature"),
        BASE64_STANDARD.decode(key.sign_blob(BLOB)).unwrap(),
    )
    .unwrap();
    openssl(folder.path(), "dgst -sha256 -verify key.pub -signature signature blob");
}

#[test]
fn we_verify_what_openssl_signs() {
    let folder = folder();
    let mut keys = Keys::default();
    keys.add("ours", &text(&folder, "key.pub")).unwrap();
    // Openssl does not care for the smaller of the two forms that a signature has; some of these
    // are of either.
    for _ in 0..8 {
        openssl(folder.path(), "dgst -sha256 -sign key.pem -out signature blob");
        let signature =
            BASE64_STANDARD.encode(std::fs::read(folder.path().join("signature")).unwrap());
        assert_eq!(keys.verify_blob(BLOB, &format!("{signature}\n")).unwrap(), "ours");
        assert!(matches!(
            keys.verify_blob(b"another", &signature),
            Err(Unverified::UnknownKey { .. })
        ));
        let nobody = Keys::default().verify_blob(BLOB, &signature).map(str::to_owned);
        assert!(matches!(nobody, Err(Unverified::UnknownKey { .. })));
    }
    assert_eq!(
        keys.add("ours", &text(&folder, "key.pub")),
        Err(KeyError::Twice("ours".to_owned()))
    );
}

#[test]
fn other_keys_are_refused() {
    let folder = folder();
    openssl(folder.path(), "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out long.pem");
    openssl(folder.path(), "pkey -in long.pem -pubout -out long.pub");
    openssl(folder.path(), "genpkey -algorithm ED25519 -out edwards.pem");
    openssl(folder.path(), "pkey -in edwards.pem -pubout -out edwards.pub");
    openssl(folder.path(), "pkey -in key.pem -aes256 -passout pass:word -out locked.pem");
    openssl(folder.path(), "ec -in key.pem -out older.pem");
    let private = |name| SigningKey::from_pem(&text(&folder, name)).unwrap_err();
    assert_eq!(private("long.pem"), KeyError::NotPrivate);
    assert_eq!(private("edwards.pem"), KeyError::NotPrivate);
    assert_eq!(private("key.pub"), KeyError::NotPrivate);
    assert_eq!(private("locked.pem"), KeyError::Encrypted);
    assert_eq!(private("older.pem"), KeyError::Older);
    let cosign = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n";
    assert_eq!(SigningKey::from_pem(cosign).unwrap_err(), KeyError::Encrypted);
    for name in ["long.pub", "edwards.pub", "key.pem", "blob"] {
        assert_eq!(
            Keys::default().add("it", &text(&folder, name)),
            Err(KeyError::NotPublic("it".to_owned()))
        );
    }
}

#[test]
fn private_keys_are_not_shown() {
    let key = SigningKey::from_pem(&text(&folder(), "key.pem")).unwrap();
    assert_eq!(format!("{key:?}"), "SigningKey(…)");
}
