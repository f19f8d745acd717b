//! Keys and certificates, as openssl makes them, and what is signed.

use super::command::{built, text};
use paygress_core::backend::policy::Slot;
use std::path::Path;
use std::process::Command;

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).to_string_lossy().into_owned()
}

/// A key for signatures: the files of the private one, and of the public one.
pub fn key(directory: &Path, name: &str) -> (String, String) {
    let (private, public) =
        (path(directory, &format!("{name}.key")), path(directory, &format!("{name}.pub")));
    openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
        &private,
    ]);
    openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    (private, public)
}

/// Files of the default policies, each signed with this key.
pub fn write_signed_policies(directory: &Path, key: &str) {
    for slot in Slot::ALL {
        let file = directory.join(format!("{slot}.wasm"));
        std::fs::copy(built(&format!("plugins/{slot}.wasm")), &file).unwrap();
        let mut sign = Command::new(env!("CARGO_BIN_EXE_paygress"));
        sign.args(["policy", "sign", "--key", key]).arg(&file).env_clear();
        let output = sign.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

/// A server's certificate for this address, which nobody trusts yet: the files of its key and of
/// itself.
pub fn certificate(directory: &Path, address: &str) -> (String, String) {
    let (private, public) = (path(directory, "server.key"), path(directory, "server.pem"));
    let names = format!("subjectAltName=IP:{address}");
    let key =
        ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", &private];
    let what = [
        "req",
        "-x509",
        "-subj",
        "/CN=a registry",
        "-days",
        "1",
        "-addext",
        &names,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    openssl(&[&what[..], &key, &["-out", &public]].concat());
    (private, public)
}
