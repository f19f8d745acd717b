//! The receipts of answers, in files beside the customer's key. An answer is as good without.

use crate::output::print_note;
use crate::private_file::make_private;
use anyhow::{Context, Result};
use paygress_core::error_chain;
use paygress_core::protocol::{Response, SignedReceipt, sorted};
use paygress_nostr::client::Answer;
use paygress_nostr::{PublicKey, verify_receipt};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the receipts of one service are stored.
pub(super) struct Receipts {
    directory: PathBuf,
    service: PublicKey,
}

impl Receipts {
    pub(super) fn beside(key_file: &Path, service: PublicKey) -> Self {
        Self { directory: key_file.with_file_name("receipts"), service }
    }

    /// Stores the answer's receipt, if it has one.
    pub(super) fn store(&self, answer: &Answer) {
        let Some(receipt) = answer.response.as_ref().and_then(Response::receipt) else { return };
        match self.write(receipt) {
            Ok(path) => print_note(format_args!("The receipt is in {}", path.display())),
            Err(error) => print_note(format_args!(
                "The answer's receipt was not stored: {}",
                error_chain(error.as_ref())
            )),
        }
    }

    /// Once its id is known to be one, it is a good name.
    fn write(&self, receipt: &SignedReceipt) -> Result<PathBuf> {
        let json = sorted(receipt).to_string();
        verify_receipt(&json, Some(&self.service)).context("the service's receipt is not good")?;
        make_private(&self.directory)?;
        let path = self.directory.join(format!("{}-{}.json", receipt.created_at, receipt.id));
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        writeln!(file, "{json}")?;
        file.persist(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}
