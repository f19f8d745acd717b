//! Connections to ports of pods, for the gateway and the HTTP server, which customers come through.

use crate::model::ids::PodName;
use async_trait::async_trait;
use std::error::Error;
use std::num::NonZeroU16;
use tokio::io::{AsyncRead, AsyncWrite};

/// A port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPort {
    /// That of its SSH server.
    Ssh,
    /// Any other one, of TCP.
    Tcp(NonZeroU16),
}

/// The way to the ports of pods.
#[async_trait]
pub trait PodStreams: Send + Sync {
    /// A new connection to this port of the pod. Dropping it closes it. Callers give up after some
    /// seconds.
    ///
    /// # Errors
    /// [`OpenError`]: the pod cannot be reached, nothing listens there, or as many connections are
    /// open as there may be.
    async fn open(&self, pod: &PodName, port: PodPort) -> Result<Box<dyn ByteStream>, OpenError>;
}

/// Bytes both ways, such as a TCP connection.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// There is no way to the pod.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the pod cannot be reached: try again, and request its status if it stays so")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// As many connections as there may be are open, to this pod or to all.
    #[error("too many connections to pods are open: close some to this pod, and try again")]
    Busy,
}

impl OpenError {
    /// The pod cannot be reached.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreachable(source.into())
    }

    /// Its code, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "pod-unreachable",
            Self::Busy => "pod-busy",
        }
    }
}
