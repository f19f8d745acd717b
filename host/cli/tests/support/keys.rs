//! Keys and certificates, as openssl makes them.

use super::command::text;
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
