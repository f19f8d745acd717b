//! The gateway's keys: files that only the service's user may read, made at the first start.

use crate::private_file::make_private;
use anyhow::{Context, Result};
use paygress_core::model::secret::Secret;
use paygress_gateway::{EndpointKey, GatewayHostKey};
use std::io::{ErrorKind, Write};
use std::path::Path;

const HOST_KEY: &str = "gateway_host_key";
const ENDPOINT_KEY: &str = "gateway_endpoint_key";

/// The jump host's key, made if there is none.
pub(super) fn host_key(directory: &Path) -> Result<GatewayHostKey> {
    let text =
        load_or_make(&directory.join(HOST_KEY), || Ok(GatewayHostKey::generate()?.to_openssh()?))?;
    GatewayHostKey::parse(&text).with_context(|| directory.join(HOST_KEY).display().to_string())
}

/// The endpoint's key, made if there is none.
pub(super) fn endpoint_key(directory: &Path) -> Result<EndpointKey> {
    let text =
        load_or_make(&directory.join(ENDPOINT_KEY), || Ok(EndpointKey::generate().to_text()))?;
    EndpointKey::parse(&text).with_context(|| directory.join(ENDPOINT_KEY).display().to_string())
}

/// The jump host's key, of a file that must exist.
pub(super) fn existing_host_key(directory: &Path) -> Result<GatewayHostKey> {
    let path = directory.join(HOST_KEY);
    GatewayHostKey::parse(&read_existing(&path)?).with_context(|| path.display().to_string())
}

/// The endpoint's key, of a file that must exist.
pub(super) fn existing_endpoint_key(directory: &Path) -> Result<EndpointKey> {
    let path = directory.join(ENDPOINT_KEY);
    EndpointKey::parse(&read_existing(&path)?).with_context(|| path.display().to_string())
}

fn read_existing(path: &Path) -> Result<Secret> {
    let failed = || format!("the gateway's key {} cannot be read", path.display());
    std::fs::read_to_string(path).map(Secret::new).with_context(failed)
}

fn load_or_make(path: &Path, make: impl FnOnce() -> Result<Secret>) -> Result<Secret> {
    let failed = || format!("the gateway's key {} cannot be read or written", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => return Ok(Secret::new(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(failed),
    }
    let key = make()?;
    let directory = crate::private_file::directory_of(path);
    make_private(directory).with_context(failed)?;
    // Whole, or not there: another process may make one at the same time.
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(failed)?;
    writeln!(file, "{}", key.expose().trim_end()).with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(key),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            std::fs::read_to_string(path).map(Secret::new).with_context(failed)
        }
        Err(error) => Err(error.error).with_context(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_for_their_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        let (host, endpoint) = (host_key(&path).unwrap(), endpoint_key(&path).unwrap());
        let again = host_key(&path).unwrap();
        assert_eq!(host.public_line().unwrap(), again.public_line().unwrap());
        assert_eq!(endpoint.to_text(), endpoint_key(&path).unwrap().to_text());
        for file in [HOST_KEY, ENDPOINT_KEY] {
            let mode = std::fs::metadata(path.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        std::fs::write(path.join(ENDPOINT_KEY), "none").unwrap();
        let damaged = format!("{:#}", endpoint_key(&path).err().unwrap());
        assert!(damaged.contains(ENDPOINT_KEY) && damaged.contains("openssl rand"), "{damaged}");
    }
}
