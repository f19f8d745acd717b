//! The way to pods' SSH servers, for what carries customers there.

use crate::model::ids::PodName;
use async_trait::async_trait;
use std::error::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// The way to the SSH ports of pods.
#[async_trait]
pub trait PodStreams: Send + Sync {
    /// A new connection to this pod's SSH server. Dropping it closes it. Callers give up after some
    /// seconds.
    ///
    /// # Errors
    /// [`OpenError`]: the pod cannot be reached.
    async fn open(&self, pod: &PodName) -> Result<Box<dyn ByteStream>, OpenError>;
}

/// Bytes both ways, such as a TCP connection.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// There is no way to the pod.
#[derive(Debug, thiserror::Error)]
#[error("the pod cannot be reached: try again, and order the status of the pod if it stays so")]
pub struct OpenError(#[source] Box<dyn Error + Send + Sync>);

impl OpenError {
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }

    /// Its code, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "pod-unreachable"
    }
}
