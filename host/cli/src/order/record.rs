//! What became of the tokens of `paygress order keep`, on disk before each of them is sent.

use crate::private_file::{directory_of, make_private};
use anyhow::{Context, Result, anyhow, bail};
use paygress_cashu::token_amount;
use paygress_core::FileLock;
use paygress_core::model::ids::PodName;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_core::protocol::token_text;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Tokens of one record: each write holds all of them.
const TOKENS: usize = 1_000;

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TokenState {
    /// It was not sent.
    Unused,
    /// It was sent, and there is no final answer yet.
    Sent,
    /// It has extended the pod.
    Used,
    /// It was sent, and the service says that it has not taken it.
    Refused,
    /// It was taken and given back; the answer is the refund.
    Refunded,
}

/// No `Debug`: it holds tokens.
#[derive(Serialize, Deserialize)]
struct RecordedToken {
    token: String,
    sats: Sat,
    state: TokenState,
    /// A refund, or an answer that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    pod: String,
    tokens: Vec<RecordedToken>,
}

/// The token that is sent next.
pub(super) struct NextToken {
    pub(super) token: Secret,
    pub(super) state: TokenState,
}

/// The record of one pod, in a file that no other process writes.
pub(super) struct Record {
    path: PathBuf,
    content: Content,
    _lock: FileLock,
}

impl Record {
    /// Opens the record of this pod, or begins one.
    ///
    /// # Errors
    /// It is another pod's, is damaged, or is in use.
    pub(super) fn open(path: &Path, pod: &PodName) -> Result<Self> {
        make_private(directory_of(path))?;
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock =
            File::options().create(true).truncate(false).write(true).mode(0o600).open(lock_path)?;
        let lock = FileLock::try_lock(lock).with_context(|| {
            format!("{} is in use by another `paygress order keep`", path.display())
        })?;
        let content = match std::fs::read_to_string(path) {
            // What cannot be read is not quoted: it may be a token.
            Ok(text) => serde_json::from_str::<Content>(&text).map_err(|error| {
                anyhow!("{} is damaged in line {}", path.display(), error.line())
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Content { pod: pod.to_string(), tokens: Vec::new() }
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        if content.pod != pod.as_str() {
            bail!("{} is the record of {}; name another one", path.display(), content.pod);
        }
        Ok(Self { path: path.to_owned(), content, _lock: lock })
    }

    /// Adds the tokens of this text, one a line, that are not in it yet.
    ///
    /// # Errors
    /// Lines that are no tokens; the others are kept.
    pub(super) fn add(&mut self, text: &str) -> Result<()> {
        let mut problems = Vec::new();
        for (line, number) in text.lines().zip(1_u32..) {
            let token = token_text(line);
            let is_known = |entry: &RecordedToken| entry.token == token.expose();
            if token.expose().is_empty() || self.content.tokens.iter().any(is_known) {
                continue;
            }
            match token_amount(token.expose()) {
                _ if self.content.tokens.len() >= TOKENS => {
                    problems.push(format!("line {number}: a record holds {TOKENS} tokens"));
                    break;
                }
                Ok(sats) => self.content.tokens.push(RecordedToken {
                    token: token.expose().to_owned(),
                    sats,
                    state: TokenState::Unused,
                    answer: None,
                }),
                Err(refusal) => problems.push(format!("line {number}: {}", refusal.message)),
            }
        }
        self.write()?;
        if problems.is_empty() {
            return Ok(());
        }
        let (kept, problems) = (self.path.display(), problems.join("\n  "));
        bail!("tokens that can be read are kept in {kept}, and there are others:\n  {problems}")
    }

    /// The token that comes next: one that was sent without an answer, or else the first that this
    /// budget pays for.
    pub(super) fn next(&self, budget: Sat) -> Option<NextToken> {
        let left = budget.minus(self.sent());
        let tokens = &self.content.tokens;
        let sent = tokens.iter().find(|entry| entry.state == TokenState::Sent);
        let is_next =
            |entry: &&RecordedToken| entry.state == TokenState::Unused && entry.sats <= left;
        let next = sent.or_else(|| tokens.iter().find(is_next))?;
        let token = Secret::new(next.token.clone());
        Some(NextToken { token, state: next.state })
    }

    /// What was sent, whatever became of it: whether a token was taken, or a refund is good, is known
    /// from the service alone, which could have all of them.
    pub(super) fn sent(&self) -> Sat {
        self.sum(&[TokenState::Sent, TokenState::Used, TokenState::Refused, TokenState::Refunded])
    }

    /// What was spent, and what may have been.
    pub(super) fn spent(&self) -> Sat {
        self.sum(&[TokenState::Sent, TokenState::Used])
    }

    /// What is left in tokens that were not sent.
    pub(super) fn unused(&self) -> Sat {
        self.sum(&[TokenState::Unused])
    }

    /// What the service has, and says that it has not taken.
    pub(super) fn refused(&self) -> Sat {
        self.sum(&[TokenState::Refused])
    }

    fn sum(&self, states: &[TokenState]) -> Sat {
        let summed = self.content.tokens.iter().filter(|entry| states.contains(&entry.state));
        summed.map(|entry| entry.sats).fold(Sat(0), Sat::plus)
    }

    /// Writes what became of a token, with an answer that is worth something.
    ///
    /// # Errors
    /// It cannot be written: the token must not be sent then.
    pub(super) fn set(
        &mut self,
        token: &Secret,
        state: TokenState,
        answer: Option<&Secret>,
    ) -> Result<()> {
        let mut entries = self.content.tokens.iter_mut();
        if let Some(entry) = entries.find(|entry| entry.token == token.expose()) {
            entry.state = state;
            entry.answer = answer.map(|answer| answer.expose().to_owned()).or(entry.answer.take());
        }
        self.write()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file atomically.
    fn write(&self) -> Result<()> {
        let directory = directory_of(&self.path);
        let written = || -> Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(serde_json::to_string_pretty(&self.content)?.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(File::open(directory)?.sync_all()?)
        };
        written().with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of 2 and 8 sat.
    pub(crate) const TWO: &str = "cashuAeyJ0b2tlbiI6W3sibWludCI6Imh0dHBzOi8vbWludC5leGFtcGxlIiwicHJvb2ZzIjpbeyJpZCI6IjAwOWExZjI5MzI1M2U0MWUiLCJhbW91bnQiOjIsInNlY3JldCI6InMyIiwiQyI6IjAyNzliZTY2N2VmOWRjYmJhYzU1YTA2Mjk1Y2U4NzBiMDcwMjliZmNkYjJkY2UyOGQ5NTlmMjgxNWIxNmY4MTc5OCJ9XX1dLCJ1bml0Ijoic2F0In0";
    pub(crate) const EIGHT: &str = "cashuAeyJ0b2tlbiI6W3sibWludCI6Imh0dHBzOi8vbWludC5leGFtcGxlIiwicHJvb2ZzIjpbeyJpZCI6IjAwOWExZjI5MzI1M2U0MWUiLCJhbW91bnQiOjgsInNlY3JldCI6InM4IiwiQyI6IjAyNzliZTY2N2VmOWRjYmJhYzU1YTA2Mjk1Y2U4NzBiMDcwMjliZmNkYjJkY2UyOGQ5NTlmMjgxNWIxNmY4MTc5OCJ9XX1dLCJ1bml0Ijoic2F0In0";

    pub(crate) fn pod() -> PodName {
        PodName::parse("ssh-pod-abcdefghij").unwrap()
    }

    #[test]
    fn a_token_is_kept_once_with_its_amount_and_is_in_use_by_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/record.json");
        let mut record = Record::open(&path, &pod()).unwrap();
        record.add(&format!("{TWO}\n\n  cashu:{EIGHT}\n{TWO}\n")).unwrap();
        assert_eq!((record.unused(), record.spent()), (Sat(10), Sat(0)));
        let used = Record::open(&path, &pod()).err().unwrap();
        assert!(used.to_string().contains("in use"), "{used}");
        drop(record);
        let mut record = Record::open(&path, &pod()).unwrap();
        record.add(TWO).unwrap();
        assert_eq!(record.unused(), Sat(10), "it was known");
        let mode = std::fs::metadata(&path).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
        drop(record);
        let other = PodName::parse("ssh-pod-other").unwrap();
        let refused = Record::open(&path, &other).err().unwrap();
        assert!(refused.to_string().contains("the record of ssh-pod-abcdefghij"), "{refused}");
    }

    #[test]
    fn what_is_no_token_is_named_by_its_line_and_the_others_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        let mut record = Record::open(&path, &pod()).unwrap();
        let problem = record.add(&format!("cashuBsecret\n{TWO}\nhello\n")).err().unwrap();
        let problem = problem.to_string();
        assert!(problem.contains("line 1: ") && problem.contains("line 3: "), "{problem}");
        assert!(!problem.contains("secret"), "{problem}");
        drop(record);
        assert_eq!(Record::open(&path, &pod()).unwrap().unused(), Sat(2));
        std::fs::write(&path, r#"{"pod": "x", "tokens": ["cashuBsecret"]}"#).unwrap();
        let damaged = Record::open(&path, &pod()).err().unwrap();
        assert!(!format!("{damaged:#}").contains("secret"), "{damaged:#}");
    }

    #[test]
    fn a_token_without_an_answer_comes_first_and_counts_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut record = Record::open(&directory.path().join("r"), &pod()).unwrap();
        record.add(&format!("{EIGHT}\n{TWO}")).unwrap();
        let sats = |next: NextToken| if next.token.expose() == TWO { 2 } else { 8 };
        let next = |record: &Record, budget| record.next(Sat(budget)).map(sats);
        assert_eq!(
            [1, 2, 7, 8, 10].map(|budget| next(&record, budget)),
            [None, Some(2), Some(2), Some(8), Some(8)]
        );
        let eight = Secret::new(EIGHT);
        record.set(&eight, TokenState::Sent, None).unwrap();
        assert_eq!((record.spent(), next(&record, 1)), (Sat(8), Some(8)), "whatever the budget is");
        let refund = Secret::new("cashuBrefund");
        record.set(&eight, TokenState::Refunded, Some(&refund)).unwrap();
        assert_eq!((record.spent(), record.sent()), (Sat(0), Sat(8)));
        // The service says that it is a refund.
        assert_eq!([2, 9, 10].map(|budget| next(&record, budget)), [None, None, Some(2)]);
        let stored = std::fs::read_to_string(record.path()).unwrap();
        assert!(stored.contains("cashuBrefund"), "a crash loses no refund");
    }
}
