//! Stores the receipts of answers in files beside the customer's key. If that fails, the answer is
//! printed all the same.

use crate::output::print_note;
use crate::private_file::make_private;
use anyhow::{Context, Result, bail};
use paygress_core::error_chain;
use paygress_core::model::ids;
use paygress_core::protocol::{
    Response, SignedReceipt, is_receipt_of, receipt_contradicts, sorted,
};
use paygress_nostr::client::Answer;
use paygress_nostr::{PublicKey, verify_receipt};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where one customer's receipts of one service are stored.
pub(super) struct Receipts {
    directory: PathBuf,
    service: PublicKey,
    customer: ids::PublicKey,
}

impl Receipts {
    pub(super) fn beside(key_file: &Path, service: PublicKey, customer: &PublicKey) -> Self {
        let customer = ids::PublicKey::from_bytes(customer.to_bytes());
        Self { directory: key_file.with_file_name("receipts"), service, customer }
    }

    /// Stores the answer's receipt, if it has one.
    pub(super) fn store(&self, answer: &Answer) {
        let Some(response) = &answer.response else { return };
        let Some(receipt) = response.receipt() else { return };
        match self.write(receipt, response) {
            Ok(path) => print_note(format_args!("The receipt is in {}", path.display())),
            Err(error) => print_note(format_args!(
                "The answer's receipt was not stored: {}",
                error_chain(error.as_ref())
            )),
        }
    }

    /// Writes the receipt to a file named by its id, after the id was verified.
    fn write(&self, receipt: &SignedReceipt, response: &Response) -> Result<PathBuf> {
        let json = sorted(receipt).to_string();
        let verified = verify_receipt(&json, Some(&self.service))
            .context("the service's receipt is not good")?;
        if let Some(field) = receipt_contradicts(&verified.content, response) {
            bail!("it contradicts the answer that it came with: {field}; ask the operator");
        }
        if !is_receipt_of(&verified.content, &self.customer) {
            bail!("it is of another customer; ask the operator");
        }
        make_private(&self.directory)?;
        let path = self.directory.join(format!("{}-{}.json", receipt.created_at, receipt.id));
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        writeln!(file, "{json}")?;
        file.persist(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::backend::receipt::ReceiptSigner;
    use paygress_core::model::ids::{LeaseId, OrderId};
    use paygress_core::model::units::{Seconds, UnixTime};
    use paygress_core::protocol::{ReceiptContent, ReceiptKind, topped_up};
    use paygress_core::testing;
    use paygress_nostr::{Keys, ServiceReceipts};

    /// A receipt of ten minutes more for this customer's pod.
    fn content(lease: &LeaseId, customer: &Keys) -> ReceiptContent {
        let mut agreement = testing::agreement();
        let extended = testing::lease(lease.clone(), 1, 700);
        let order = &mut agreement.decision.order;
        order.extends = Some(extended.view(None, UnixTime(2)));
        order.customer = customer.public_key().to_hex();
        let orders = vec![testing::receipt_order(agreement)];
        testing::receipt(ReceiptKind::TopUp, lease.pod_name().as_str(), orders)
    }

    #[test]
    fn only_a_receipt_of_its_answer_and_of_this_customer_is_stored() {
        let directory = tempfile::tempdir().unwrap();
        let (service, customer, other) = (Keys::generate(), Keys::generate(), Keys::generate());
        let key_file = directory.path().join("key");
        let receipts = Receipts::beside(&key_file, service.public_key(), &customer.public_key());
        let lease = LeaseId::of(&OrderId::random());
        let good = content(&lease, &customer);
        let mut more = good.clone();
        more.orders[0].decision.grant.seconds = Seconds(1_200);
        let answer = topped_up(&lease.pod_name(), Seconds(600), UnixTime(700), None);
        let write = |content: &ReceiptContent, signer: &Keys| {
            let signer = ServiceReceipts::new(signer.clone());
            let receipt = signer.sign(sorted(content).to_string(), UnixTime(7)).unwrap();
            receipts.write(&receipt, &answer)
        };
        for (content, signer, reason) in [
            (&more, &service, "it contradicts the answer that it came with: orders.decision.grant"),
            (&content(&lease, &other), &service, "another customer"),
            (&good, &other, "not good"),
        ] {
            let refused = write(content, signer).unwrap_err().to_string();
            assert!(refused.contains(reason), "{reason}: {refused}");
        }
        let stored = || directory.path().join("receipts").exists();
        assert!(!stored());
        assert!(write(&good, &service).unwrap().exists() && stored());
    }
}
