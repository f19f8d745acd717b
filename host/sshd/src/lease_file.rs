//! Follows the file with the end of the lease. Its directory is a volume, whose files the kubelet
//! replaces by renaming a link; the local runtime renames the file.

use crate::lease_end::{END_FILE, LeaseEnd, MAX_END_BYTES};
use crate::terminals::Terminals;
use paygress_regular_file::read_at_most;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often the file is read again though nothing has happened: where pods have a kernel of their
/// own (gVisor, Kata), the node's events do not arrive in them.
const REREAD: Duration = Duration::from_secs(60);
/// The same where there is no inotify: a user has 128 instances of it, and pods of one user id share
/// them.
const POLL: Duration = Duration::from_secs(5);

#[derive(PartialEq, Eq)]
enum EndFile {
    /// Missing or empty: the pod has just started.
    Unknown,
    Known(LeaseEnd),
    Broken(String),
}

fn read(file: &Path) -> EndFile {
    match read_at_most(file, MAX_END_BYTES.saturating_add(1)) {
        Ok(bytes) if bytes.is_empty() => EndFile::Unknown,
        Ok(bytes) => match LeaseEnd::parse(&bytes) {
            Ok(end) => EndFile::Known(end),
            Err(error) => EndFile::Broken(error.to_string()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => EndFile::Unknown,
        Err(error) => EndFile::Broken(error.to_string()),
    }
}

/// Lets terminals show what the file in this directory says, until it is dropped. Ends at once
/// where there is no such directory.
pub(crate) async fn follow(directory: PathBuf, terminals: Arc<Terminals>) {
    if !directory.is_dir() {
        return;
    }
    // Before the file is read: no change is lost.
    let changes = Changes::of(&directory);
    let (file, mut latest) = (directory.join(END_FILE), EndFile::Unknown);
    loop {
        // A clock may have jumped, and the end may have moved, since the last look.
        let path = file.clone();
        if let Ok(found) = tokio::task::spawn_blocking(move || read(&path)).await
            && found != latest
        {
            if let EndFile::Broken(why) = &found {
                tracing::warn!(why, file = %file.display(), "the end of the lease is ignored");
            }
            latest = found;
        }
        let end = match &latest {
            EndFile::Known(end) => Some(end.clone()),
            // What was known before may still be so.
            EndFile::Unknown | EndFile::Broken(_) => None,
        };
        let next = terminals.update(end);
        let pause = next.map_or(changes.reread(), |next| next.min(changes.reread()));
        tokio::select! {
            () = changes.next() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The changes of a directory; none where inotify cannot be had.
struct Changes(Option<AsyncFd<OwnedFd>>);

impl Changes {
    fn of(directory: &Path) -> Self {
        let watch = || -> io::Result<AsyncFd<OwnedFd>> {
            let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let changes = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::CREATE;
            inotify::add_watch(&events, directory, changes)?;
            // What replaces it is unsafe for owners of descriptors that close them early, or change
            // them: this one does not.
            #[expect(deprecated, reason = "unsafe code is denied here, and not needed")]
            AsyncFd::with_interest(events, Interest::READABLE)
        };
        let watch = watch();
        if let Err(error) = &watch {
            tracing::debug!(%error, "there is no inotify; the end of the lease is polled");
        }
        Self(watch.ok())
    }

    fn reread(&self) -> Duration {
        if self.0.is_some() { REREAD } else { POLL }
    }

    /// Waits for a change; forever if none is noticed.
    async fn next(&self) {
        let Some(events) = &self.0 else { return std::future::pending().await };
        let Ok(mut ready) = events.readable().await else { return std::future::pending().await };
        let mut buffer = [0_u8; 4_096];
        // What has changed does not matter: the file is read.
        while rustix::io::read(events.get_ref(), &mut buffer).is_ok() {}
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// As the kubelet does: the files of another directory, by another link.
    fn publish(volume: &Path, version: &str, content: &str) {
        std::fs::create_dir(volume.join(version)).unwrap();
        std::fs::write(volume.join(version).join(END_FILE), content).unwrap();
        let link = volume.join("..data_tmp");
        std::os::unix::fs::symlink(version, &link).unwrap();
        std::fs::rename(link, volume.join("..data")).unwrap();
    }

    fn end_in(seconds: u64) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        LeaseEnd::new(now.as_secs().saturating_add(seconds), vec![600]).unwrap().to_json()
    }

    #[tokio::test]
    async fn a_volume_of_the_kubelet_is_followed() {
        let volume = tempfile::tempdir().unwrap();
        publish(volume.path(), "..1", "");
        std::os::unix::fs::symlink(format!("..data/{END_FILE}"), volume.path().join(END_FILE))
            .unwrap();
        let terminals = Arc::new(Terminals::default());
        let mut lines = terminals.open();
        let following = tokio::spawn(follow(volume.path().to_owned(), Arc::clone(&terminals)));
        for (version, content, expected) in [
            ("..2", end_in(300), "This pod ends at "),
            ("..3", end_in(900), "This pod was extended until "),
            ("..4", "broken".to_owned(), ""),
            ("..5", end_in(400), "This pod ends at "),
        ] {
            publish(volume.path(), version, &content);
            if !expected.is_empty() {
                let line = timeout(TIMEOUT, lines.next()).await.expect(version).unwrap();
                let line = String::from_utf8(line.to_vec()).unwrap();
                assert!(line.contains(expected), "{version}: {line}");
            }
        }
        following.abort();
    }

    #[test]
    fn what_cannot_be_read_is_broken_and_what_is_missing_unknown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(END_FILE);
        assert!(read(&file) == EndFile::Unknown);
        std::fs::write(&file, "").unwrap();
        assert!(read(&file) == EndFile::Unknown);
        let padded = format!("{}{}", " ".repeat(1_025), end_in(1));
        for broken in ["x", "{}", padded.as_str()] {
            std::fs::write(&file, broken).unwrap();
            assert!(matches!(read(&file), EndFile::Broken(_)), "{broken:?}");
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(matches!(read(&file), EndFile::Broken(_)));
    }
}
