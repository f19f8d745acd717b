//! What a request brings: its line, and its components, verified.

use crate::protocol::{ComponentUpload, REQUEST_BYTES, Request};
use paygress_core::backend::policy::Slot;
use paygress_oci::{ComponentFetcher, FetchError};
use paygress_policy::COMPONENT_BYTES;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;

/// How long a request may take to arrive: a local client's, a few MB.
pub(crate) const RECEIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the registries of a request may take together: the next request waits.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a request is refused before it reaches the publisher. The client is shown the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the request did not arrive within {} s", RECEIVE_TIMEOUT.as_secs())]
    TooSlow,
    #[error("the request cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("a request is one line of at most {REQUEST_BYTES} bytes")]
    NotALine,
    #[error("the request cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("there are four slots")]
    TooManySlots,
    #[error("the {slot} component has {bytes} bytes; a policy may have {COMPONENT_BYTES}")]
    TooLarge { slot: Slot, bytes: u64 },
    #[error("the {0} component was cut short")]
    CutShort(Slot),
    #[error("rejected: {0}")]
    Fetch(#[from] FetchError),
    #[error("rejected: the registry took longer than {} s", REGISTRY_TIMEOUT.as_secs())]
    RegistryTooSlow,
}

/// A request and its components.
pub(crate) struct Received {
    pub(crate) request: Request,
    pub(crate) components: Vec<Vec<u8>>,
}

/// Receives a request, and fetches its components from registries.
pub(crate) async fn receive(
    stream: &mut BufReader<UnixStream>,
    fetcher: &ComponentFetcher,
) -> Result<Received, UploadError> {
    let Received { request, components } = tokio::time::timeout(RECEIVE_TIMEOUT, read(stream))
        .await
        .map_err(|_| UploadError::TooSlow)??;
    let components =
        tokio::time::timeout(REGISTRY_TIMEOUT, verify(fetcher, request.uploads(), components))
            .await
            .map_err(|_| UploadError::RegistryTooSlow)??;
    Ok(Received { request, components })
}

async fn read(stream: &mut BufReader<UnixStream>) -> Result<Received, UploadError> {
    let mut line = Vec::new();
    stream.take(REQUEST_BYTES).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(UploadError::NotALine);
    }
    let request: Request = serde_json::from_slice(&line)?;
    if request.uploads().len() > Slot::ALL.len() {
        return Err(UploadError::TooManySlots);
    }
    let mut components = Vec::new();
    for ComponentUpload { slot, bytes, .. } in request.uploads() {
        if usize::try_from(*bytes).ok().is_none_or(|bytes| bytes > COMPONENT_BYTES) {
            return Err(UploadError::TooLarge { slot: *slot, bytes: *bytes });
        }
        let mut component = Vec::new();
        stream.take(*bytes).read_to_end(&mut component).await?;
        if u64::try_from(component.len()).ok() != Some(*bytes) {
            return Err(UploadError::CutShort(*slot));
        }
        components.push(component);
    }
    Ok(Received { request, components })
}

async fn verify(
    fetcher: &ComponentFetcher,
    uploads: &[ComponentUpload],
    received: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, UploadError> {
    let mut components = Vec::new();
    for (ComponentUpload { slot, reference, signature, .. }, bytes) in uploads.iter().zip(received)
    {
        components.push(match reference {
            Some(reference) => fetcher.pull(reference).await?.component,
            None => {
                let name = format!("the {slot} component");
                fetcher.verify(&name, &bytes, signature.as_deref())?;
                bytes
            }
        });
    }
    Ok(components)
}
