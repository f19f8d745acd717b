//! TLS as a client without a certificate of its own, trusting what the system trusts and what
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` add.

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::{load_certs_from_paths, load_native_certs};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE_VARIABLE: &str = "SSL_CERT_FILE";
const DIRECTORIES_VARIABLE: &str = "SSL_CERT_DIR";

/// Where systems keep all their roots in one file; those of Debian, Fedora, openSUSE, Alpine and
/// what is derived from them.
const SYSTEM_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// This build offers no version of TLS that is considered safe.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
    #[error("{FILE_VARIABLE}: {path} has no certificate in PEM that can be read")]
    CertificateFile {
        path: PathBuf,
        #[source]
        source: Option<rustls_native_certs::Error>,
    },
}

/// The TLS configuration of all outgoing connections; also for connections that do not speak HTTP.
pub fn tls_config() -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted(std::env::var_os)?);
    // Named explicitly: a process-wide default provider would be set by whichever library is first.
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    Ok(config
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The system's roots and those of the variables. Other programs take the variables instead of the
/// system's; here they add to it, so that one file is enough for a registry of one's own.
fn trusted(
    variable: impl Fn(&'static str) -> Option<OsString>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let given = |name| variable(name).filter(|value| !value.is_empty());
    let (file, directories) = (given(FILE_VARIABLE), given(DIRECTORIES_VARIABLE));
    if file.is_none() && directories.is_none() {
        return Ok(load_native_certs().certs);
    }
    // The library looks at the variables only, if there are any.
    let system = SYSTEM_FILES.iter().map(Path::new).find(|path| path.exists());
    let mut found = load_certs_from_paths(system, None).certs;
    if let Some(path) = file.map(PathBuf::from) {
        let mut added = load_certs_from_paths(Some(&path), None);
        if added.certs.is_empty() {
            return Err(TlsError::CertificateFile { path, source: added.errors.pop() });
        }
        found.append(&mut added.certs);
    }
    // A search path, whose directories need not exist.
    for directory in std::env::split_paths(&directories.unwrap_or_default()) {
        found.append(&mut load_certs_from_paths(None, Some(&directory)).certs);
    }
    found.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    found.dedup();
    Ok(found)
}

/// Connections for HTTP/1.1, with TLS if the URL's scheme is https.
pub(crate) fn https_or_http<C>(tls: ClientConfig, connector: C) -> HttpsConnector<C> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    builder.enable_http1().wrap_connector(connector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A certificate that no system has.
    const OWN: &str = include_str!("../tests/own-root.pem");

    fn of(variables: &[(&'static str, &Path)]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        trusted(|name| variables.get(name).map(|path| path.as_os_str().to_owned()))
    }

    #[test]
    fn the_variables_add_to_what_the_system_trusts() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("own.pem");
        std::fs::write(&file, OWN).unwrap();
        let own = load_certs_from_paths(Some(&file), None).certs;
        assert_eq!(own.len(), 1);
        let missing = directory.path().join("missing");
        let system = load_certs_from_paths(
            SYSTEM_FILES.iter().map(Path::new).find(|path| path.exists()),
            None,
        )
        .certs;
        assert!(!system.is_empty(), "this system has roots");
        for variables in [
            &[(FILE_VARIABLE, file.as_path())][..],
            &[(DIRECTORIES_VARIABLE, directory.path())],
            &[(FILE_VARIABLE, file.as_path()), (DIRECTORIES_VARIABLE, directory.path())],
            &[(FILE_VARIABLE, file.as_path()), (DIRECTORIES_VARIABLE, missing.as_path())],
        ] {
            let trusted = of(variables).unwrap();
            assert_eq!(trusted.len(), system.len() + 1, "{variables:?}");
            assert!(trusted.contains(&own[0]) && system.iter().all(|each| trusted.contains(each)));
        }
        assert!(!of(&[]).unwrap().contains(&own[0]));
    }

    #[test]
    fn a_file_without_a_certificate_is_an_error_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        for path in [empty, directory.path().join("missing.pem")] {
            let error = of(&[(FILE_VARIABLE, &path)]).unwrap_err().to_string();
            assert!(error.contains(&*path.to_string_lossy()) && error.contains("SSL_CERT_FILE"));
        }
    }
}
