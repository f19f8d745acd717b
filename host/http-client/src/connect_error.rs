//! Why there is no connection, as text. The libraries' own errors say "client error (Connect)" and
//! repeat the cause in their terms.

use crate::address::NotPublic;
use crate::proxy::{ProxyFailure, TunnelError};
use hyper_util::client::legacy;
use rustls::{CertificateError, Error as RustlsError};
use std::error::Error;
use std::fmt;
use std::io;

/// Why there is no connection, or no TLS session on it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("its name has no address")]
    NoAddress,
    /// It is not connected to: another server has named it.
    #[error("it leads to a private address")]
    PrivateAddress,
    #[error("the connection was refused: nothing listens there")]
    Refused,
    #[error("there is no route to it")]
    NoRoute,
    #[error("the connection took too long")]
    TimedOut,
    #[error("its certificate is not by an authority that is trusted here")]
    UnknownIssuer,
    #[error("its certificate is for another name")]
    OtherName,
    #[error("its certificate has expired or is not valid yet; check the clocks")]
    Expired,
    #[error("it does not speak TLS there")]
    NotTls,
    #[error("TLS failed: {0}")]
    Tls(RustlsError),
    /// Nothing was sent to the server.
    #[error("the proxy {proxy} {problem}")]
    Proxy { proxy: String, problem: ProxyProblem },
    /// As the system says it.
    #[error("{0}")]
    Other(String),
}

/// What a proxy did instead of connecting us to the server.
#[derive(Debug)]
pub enum ProxyProblem {
    /// It wants a user and a password, or other ones.
    Denied,
    /// It does not connect to this server.
    Refused,
    Unreachable(Box<ConnectError>),
}

impl fmt::Display for ProxyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str(
                "requires a user and a password: write http://user:password@host:port, percent-encoded",
            ),
            Self::Refused => f.write_str("does not connect to it"),
            Self::Unreachable(why) => write!(f, "cannot be reached: {why}"),
        }
    }
}

impl ConnectError {
    /// Of an error for which `is_connect` holds.
    pub(crate) fn of(error: legacy::Error) -> Self {
        classify(&error)
    }

    /// Of another client's error, if it is that there is no connection.
    #[must_use]
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let client = causes(error).find_map(|cause| cause.downcast_ref::<legacy::Error>())?;
        client.is_connect().then(|| classify(client))
    }
}

pub(crate) fn classify(error: &(dyn Error + 'static)) -> ConnectError {
    if causes(error).any(|cause| cause.is::<NotPublic>()) {
        return ConnectError::PrivateAddress;
    }
    let mut last = error;
    for cause in causes(error) {
        if let Some(failure) = cause.downcast_ref::<ProxyFailure>() {
            return of_proxy(failure.proxy.clone(), &failure.source);
        }
        // Of a client that does not say which proxy it is.
        if let Some(failure) = cause.downcast_ref::<TunnelError>() {
            return of_proxy("of the connection".to_owned(), failure);
        }
        if let Some(tls) = cause.downcast_ref::<RustlsError>() {
            return of_tls(tls);
        }
        if let Some(known) = cause.downcast_ref::<io::Error>().and_then(of_io) {
            return known;
        }
        // What the system says of a name depends on its resolver.
        if cause.to_string() == "dns error" {
            return ConnectError::NoAddress;
        }
        last = cause;
    }
    ConnectError::Other(last.to_string())
}

fn of_proxy(proxy: String, source: &TunnelError) -> ConnectError {
    let problem = match source {
        TunnelError::ProxyAuthRequired => ProxyProblem::Denied,
        TunnelError::ConnectFailed(source) => {
            ProxyProblem::Unreachable(Box::new(classify(&**source)))
        }
        TunnelError::Io(source) => ProxyProblem::Unreachable(Box::new(classify(source))),
        _ => ProxyProblem::Refused,
    };
    ConnectError::Proxy { proxy, problem }
}

fn of_io(error: &io::Error) -> Option<ConnectError> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(ConnectError::Refused),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some(ConnectError::NoRoute)
        }
        io::ErrorKind::TimedOut => Some(ConnectError::TimedOut),
        _ => None,
    }
}

fn of_tls(error: &RustlsError) -> ConnectError {
    match error {
        RustlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            ConnectError::UnknownIssuer
        }
        RustlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => ConnectError::OtherName,
        RustlsError::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => ConnectError::Expired,
        RustlsError::InvalidMessage(_) => ConnectError::NotTls,
        other => ConnectError::Tls(other.clone()),
    }
}

/// An error and what caused it. An [`io::Error`] does not name the error that it wraps as its source,
/// but that one's.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| next(*error))
}

fn next<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
