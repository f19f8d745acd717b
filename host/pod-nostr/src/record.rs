//! Top-ups on disk, before they are sent and after they were answered: a key, a token and an answer
//! are worth money.

use crate::output::print_note;
use paygress_core::model::secret::Secret;
use paygress_nostr::{Keys, nsec};
use paygress_regular_file::read_text;
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Below the user's home.
const DIRECTORY: &str = ".paygress/top-ups";
/// A token and an answer, each as large as a message.
const RECORD_BYTES: usize = 256 << 10;
/// Of a public key, in a file's name.
const NAME_CHARS: usize = 16;

/// Why a record cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("there is no home for the record of a top-up, and nothing was sent; set HOME")]
    NoHome,
    #[error("{path} cannot be read or written")]
    File { path: PathBuf, source: io::Error },
}

/// What is sent, and by which key. No `Debug`: it holds secrets.
#[derive(Serialize, Deserialize)]
pub(crate) struct Content {
    /// The key that the answer and any refund go to, as nsec.
    pub(crate) key: String,
    pub(crate) service: String,
    pub(crate) relays: Vec<String>,
    pub(crate) pod: String,
    pub(crate) token: String,
    /// None: it may have been sent, and has no final answer yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
}

impl Content {
    pub(crate) fn new(
        keys: &Keys,
        service: String,
        relays: Vec<String>,
        pod: String,
        token: &Secret,
    ) -> Self {
        let (key, token) = (nsec(keys), token.expose().to_owned());
        Self { key, service, relays, pod, token, answer: None }
    }
}

/// One top-up.
pub(crate) struct Record {
    pub(crate) content: Content,
    path: PathBuf,
}

impl Record {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the final answer, with the refund that it may hold.
    pub(crate) fn close(&mut self, answer: &Secret) -> Result<(), RecordError> {
        self.content.answer = Some(answer.expose().to_owned());
        self.write()
    }

    /// Whole, or as before; for its user alone.
    fn write(&self) -> Result<(), RecordError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let written = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(serde_json::to_string_pretty(&self.content)?.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map(drop).map_err(|error| error.error)
        };
        written().map_err(failed(&self.path))
    }
}

/// The user's records.
pub(crate) struct Records {
    directory: PathBuf,
}

impl Records {
    pub(crate) fn open() -> Result<Self, RecordError> {
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        Self::at(home.ok_or(RecordError::NoHome)?.join(DIRECTORY))
    }

    fn at(directory: PathBuf) -> Result<Self, RecordError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(failed(&directory))?;
        Ok(Self { directory })
    }

    /// Writes a record: after this the top-up may be sent.
    pub(crate) fn begin(&self, keys: &Keys, content: Content) -> Result<Record, RecordError> {
        let name: String = keys.public_key().to_hex().chars().take(NAME_CHARS).collect();
        let record = Record { content, path: self.directory.join(format!("{name}.json")) };
        record.write()?;
        Ok(record)
    }

    /// Those without a final answer. What cannot be read is named.
    pub(crate) fn pending(&self) -> Result<Vec<Record>, RecordError> {
        let listed = std::fs::read_dir(&self.directory).and_then(|entries| {
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            paths.collect::<io::Result<Vec<PathBuf>>>()
        });
        let mut files = listed.map_err(failed(&self.directory))?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        let mut pending = Vec::new();
        for path in files {
            let text = read_text(&path, RECORD_BYTES).map(Secret::new);
            // What is wrong is not quoted: it may be a token.
            let content: Option<Content> =
                text.ok().and_then(|text| serde_json::from_str(text.expose()).ok());
            match content {
                Some(Content { answer: Some(_), .. }) => {}
                Some(content) => pending.push(Record { content, path }),
                None => print_note(format_args!(
                    "{} cannot be read; it may hold a token",
                    path.display()
                )),
            }
        }
        Ok(pending)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    fn a_record_is_pending_until_it_has_its_answer_and_is_its_users_alone() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("home/.paygress/top-ups");
        let records = Records::at(place.clone()).unwrap();
        let (keys, token) = (Keys::generate(), Secret::new("cashuBtoken"));
        let relays = vec!["wss://a.example".to_owned()];
        let content = Content::new(&keys, "npub1a".to_owned(), relays, "pod".to_owned(), &token);
        let record = records.begin(&keys, content).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(record.path()), mode(&place)), (0o600, 0o700));
        std::fs::write(place.join("damaged.json"), "cashuBtoken").unwrap();
        // Whoever has made the image may have put it there.
        let made = Command::new("mkfifo").arg(place.join("fifo.json")).status().unwrap();
        assert!(made.success());
        let mut pending = records.pending().unwrap();
        assert_eq!(pending.len(), 1);
        let Content { key, token, .. } = &pending[0].content;
        assert_eq!((key, token.as_str()), (&nsec(&keys), "cashuBtoken"));
        pending[0].close(&Secret::new("cashuBrefund")).unwrap();
        assert!(records.pending().unwrap().is_empty());
        let stored = std::fs::read_to_string(record.path()).unwrap();
        assert!(stored.contains("cashuBrefund"), "a crash loses no refund");
    }
}
