//! Who listens.

use crate::protocol::{ComponentUpload, LINE_BYTES, Reply, Request};
use paygress_core::Policy;
use paygress_oci::ComponentFetcher;
use paygress_policy::{
    COMPONENT_BYTES, ComponentRef, ComponentRefs, Publisher, Revision, Source, Sources, SwapError,
    Trigger,
};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// How long a request may take to come in, and its reply to be read: a local program's, a few MB.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the registries of a request may take, all together: the next request waits.
const REGISTRIES: Duration = Duration::from_secs(120);
/// Requests at the same time: each may hold four components in memory.
const AT_ONCE: usize = 2;

/// What of a refused request is still read: four components.
const LONGEST: u64 = 128 << 20;

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
#[error("ADMIN_SOCKET {path} cannot be opened: {why}")]
pub struct SocketError {
    path: PathBuf,
    why: String,
}

/// The operator's door.
pub struct Admin {
    listener: UnixListener,
    publisher: Arc<Publisher>,
    supply: Arc<ComponentFetcher>,
    path: PathBuf,
}

impl Drop for Admin {
    fn drop(&mut self) {
        // Best effort: one that is left is found stale by the next process.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Admin {
    /// Listens at this path, for this user only.
    ///
    /// # Errors
    /// [`SocketError`]: another service listens there, or something else is there.
    pub fn bind(
        path: &Path,
        publisher: Arc<Publisher>,
        supply: Arc<ComponentFetcher>,
    ) -> Result<Self, SocketError> {
        let error = |why: String| SocketError { path: path.to_owned(), why };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|why| error(why.to_string()))?;
        }
        if let Ok(there) = std::fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                return Err(error("something else is there".to_owned()));
            }
            match std::os::unix::net::UnixStream::connect(path) {
                // A process that was killed has left it.
                Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(|why| error(why.to_string()))?;
                }
                Ok(_) => return Err(error("another service listens there".to_owned())),
                Err(why) => return Err(error(why.to_string())),
            }
        }
        let listener = UnixListener::bind(path).map_err(|why| error(why.to_string()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|why| error(why.to_string()))?;
        Ok(Self { listener, publisher, supply, path: path.to_owned() })
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the admin socket cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let (publisher, supply) = (Arc::clone(&self.publisher), Arc::clone(&self.supply));
            tokio::spawn(async move {
                if let Err(error) = serve(stream, publisher, &supply).await {
                    tracing::debug!(%error, "who asked at the admin socket went away");
                }
                drop(place);
            });
        }
    }
}

async fn serve(
    stream: UnixStream,
    publisher: Arc<Publisher>,
    supply: &ComponentFetcher,
) -> std::io::Result<()> {
    // Between `bind` and the rights of the file anybody could have come in.
    let (peer, own) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    let mut stream = BufReader::new(stream);
    let reply = if peer == own || peer == 0 {
        match tokio::time::timeout(TIMEOUT, read(&mut stream)).await {
            Ok(Ok((request, bodies))) => {
                match in_time(obtained(supply, request.parts(), bodies)).await {
                    Ok(components) => {
                        // Compiling takes its time, and goes on whoever goes away.
                        let work = tokio::task::spawn_blocking(move || {
                            answer(&publisher, request, components)
                        });
                        work.await.unwrap_or_else(|error| Reply::Refused(error.to_string()))
                    }
                    Err(why) => Reply::Refused(why),
                }
            }
            Ok(Err(why)) => Reply::Refused(why),
            Err(_) => Reply::Refused("the request did not come in time".to_owned()),
        }
    } else {
        Reply::Refused("this socket is another user's".to_owned())
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    tokio::time::timeout(TIMEOUT, stream.write_all(&line)).await??;
    stream.shutdown().await?;
    // Who is refused early is still writing; hanging up on him would take the reply from him.
    let mut rest = stream.take(LONGEST);
    tokio::time::timeout(TIMEOUT, tokio::io::copy(&mut rest, &mut tokio::io::sink()))
        .await?
        .map(drop)
}

async fn read(stream: &mut BufReader<UnixStream>) -> Result<(Request, Vec<Vec<u8>>), String> {
    let mut line = Vec::new();
    stream
        .take(LINE_BYTES)
        .read_until(b'\n', &mut line)
        .await
        .map_err(|error| error.to_string())?;
    if line.last() != Some(&b'\n') {
        return Err(format!("a request is one line of at most {LINE_BYTES} bytes"));
    }
    let request: Request = serde_json::from_slice(&line)
        .map_err(|error| format!("the request cannot be read: {error}"))?;
    let mut bodies = Vec::new();
    for part in request.parts() {
        if bodies.len() >= 4 {
            return Err("there are four slots".to_owned());
        }
        if usize::try_from(part.bytes).ok().is_none_or(|bytes| bytes > COMPONENT_BYTES) {
            return Err(format!(
                "the {} component has {} bytes, and a policy may have {COMPONENT_BYTES}",
                part.slot, part.bytes
            ));
        }
        let mut body = Vec::new();
        stream.take(part.bytes).read_to_end(&mut body).await.map_err(|error| error.to_string())?;
        if u64::try_from(body.len()).ok() != Some(part.bytes) {
            return Err(format!("the {} component was cut short", part.slot));
        }
        bodies.push(body);
    }
    Ok((request, bodies))
}

/// Ends what takes the registries longer.
async fn in_time<T>(obtained: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let slow =
        |_| Err(format!("not taken: the registry took longer than {} s", REGISTRIES.as_secs()));
    tokio::time::timeout(REGISTRIES, obtained).await.unwrap_or_else(slow)
}

/// The components of a request, verified: those that came with it, and those in a registry.
async fn obtained(
    supply: &ComponentFetcher,
    parts: &[ComponentUpload],
    bodies: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, String> {
    let mut components = Vec::new();
    for (part, body) in parts.iter().zip(bodies) {
        let component = match &part.reference {
            Some(reference) => supply.pull(reference).await.map(|artifact| artifact.component),
            None => supply
                .judge(&format!("the {} component", part.slot), &body, part.signature.as_deref())
                .map(|()| body),
        };
        components.push(component.map_err(|why| format!("not taken: {why}"))?);
    }
    Ok(components)
}

fn sources(
    publisher: &Publisher,
    parts: Vec<ComponentUpload>,
    bodies: Vec<Vec<u8>>,
) -> Result<Sources, String> {
    let mut sources = Sources::new();
    for (ComponentUpload { slot, settings, .. }, component) in parts.into_iter().zip(bodies) {
        let settings = settings.map_or_else(
            || publisher.settings(slot),
            |settings| serde_json::Value::Object(settings).to_string(),
        );
        if sources.insert(slot, Source { component, settings }).is_some() {
            return Err(format!("the slot {slot} is named twice"));
        }
    }
    if sources.is_empty() { Err("name a slot and a component".to_owned()) } else { Ok(sources) }
}

/// A publication as it is told: a thousand of them with their settings would be too much.
fn without_settings(publication: Revision) -> Revision {
    let bare = |fillings: ComponentRefs| -> ComponentRefs {
        fillings
            .into_iter()
            .map(|(slot, filling)| (slot, ComponentRef { settings: String::new(), ..filling }))
            .collect()
    };
    Revision { set: bare(publication.set), folder: ComponentRefs::new(), ..publication }
}

fn answer(publisher: &Publisher, request: Request, bodies: Vec<Vec<u8>>) -> Reply {
    let published = |published: Result<_, SwapError>| {
        published.map(Reply::Published).map_err(|error| error.to_string())
    };
    let shadow = |report: Option<_>| {
        report.map(Reply::Shadow).ok_or_else(|| "there is no shadow".to_owned())
    };
    let answer = match request {
        Request::Swap(parts) => sources(publisher, parts, bodies)
            .and_then(|sources| published(publisher.publish(&sources, Trigger::Operator))),
        Request::Rollback(to) => published(publisher.rollback(to)),
        Request::History => {
            Ok(Reply::History(publisher.history().into_iter().map(without_settings).collect()))
        }
        Request::Report => Ok(Reply::Report(publisher.host().report())),
        Request::ShadowStart(parts) => sources(publisher, parts, bodies).and_then(|sources| {
            publisher
                .host()
                .start_shadow(sources)
                .map(|()| Reply::Done)
                .map_err(|error| error.to_string())
        }),
        Request::ShadowReport => shadow(publisher.host().shadow_report()),
        Request::ShadowStop => shadow(publisher.host().stop_shadow()),
        Request::Promote => published(publisher.promote()),
    };
    answer.unwrap_or_else(Reply::Refused)
}
