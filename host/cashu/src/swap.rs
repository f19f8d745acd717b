//! Swaps (NUT-03): receiving a token, and finding out how an interrupted swap ended.

use crate::conditions;
use crate::counters::Spender;
use crate::crypto::proof_ys;
use crate::error::{
    MintError, MintWalletError, ResponseError, SignatureError, UnavailableReason, Unresolved, codes,
};
use crate::keyset::split;
use crate::mint_wallet::{MintWallet, Result, UnblindError, leave_open, order_signatures};
use crate::operation::{Operation, OperationData, OperationOutcome, OperationState, total};
use crate::purpose::Purpose;
use crate::tables::EndResult;
use cdk::nuts::{Id, Proofs, PublicKey, RestoreRequest, State, SwapRequest, SwapResponse};
use paygress_core::model::units::{Seconds, UnixTime};
use std::time::Duration;

/// Attempts to receive a token, with new outputs each: the keyset may have been rotated, or the
/// derivation counters used before.
const RECEIVE_ATTEMPTS: usize = 2;
/// How long a swap's request may take, its wait for others and its repetition included…
const REQUEST_TIME: Duration = Duration::from_secs(300);
/// …and how long after its start it can no longer be on its way: longer than a server keeps a
/// request whose sender has hung up.
const REQUEST_LIFETIME: Seconds = Seconds(900);

/// What is known of a swap's last request.
enum LastRequest {
    /// It had no valid answer.
    Failed(MintError),
    /// It may be on its way.
    InFlight,
    /// It has no answer, and can no longer be on its way.
    Over,
}

/// Why a swap whose inputs are unspent will not be done.
struct SwapRefusal {
    /// The mint has signed an output before: the derivation counters were used already.
    is_any_output_signed: bool,
    /// The mint's own, if this process has seen one.
    error: Option<MintError>,
}

/// The outputs of an operation at the mint.
enum SignedOutputs {
    /// All of them are signed as requested and unspent.
    Ours(Proofs),
    NotOurs,
    Invalid(SignatureError),
}

impl MintWallet {
    /// Swaps proofs for proofs of this wallet.
    pub(crate) async fn receive(
        &self,
        purpose: &Purpose,
        inputs: Proofs,
    ) -> Result<OperationOutcome> {
        self.ensure_restored().await?;
        let mut outcome = OperationOutcome::Failed(None);
        let mut agreed = None;
        for _ in 0..RECEIVE_ATTEMPTS {
            // What is tried again is what was agreed on, or nothing.
            let fee = self.fee(&inputs).await?;
            let agreed = *agreed.get_or_insert(fee);
            if fee > agreed {
                return Err(MintWalletError::FeeRaised { agreed, fee });
            }
            let (keyset, amounts) =
                self.outputs_for_payment(total(&inputs).saturating_sub(fee)).await?;
            let data = OperationData {
                inputs: inputs.clone(),
                keyset: Some(keyset),
                amounts,
                ..OperationData::default()
            };
            let operation = Operation::new(purpose.clone(), &self.mint, data);
            let Some(operation) = self.begin_receive(operation).await? else {
                return self.resume_latest(purpose).await;
            };
            outcome = self.perform_swap(&operation).await?;
            if !self.prepare_retry(&outcome).await? {
                break;
            }
        }
        Ok(outcome)
    }

    /// The keyset and the amounts of the outputs that a token is swapped for.
    pub(crate) async fn outputs_for_payment(&self, net: u64) -> Result<(Id, Vec<u64>)> {
        let keyset = self.active_keyset().await?;
        Ok((keyset.info.id, split(net, &keyset.keys, Spender::External)?))
    }

    /// Whether a swap that failed so can be tried again with other outputs. Refreshes what they
    /// are made from.
    pub(crate) async fn prepare_retry(&self, outcome: &OperationOutcome) -> Result<bool> {
        let OperationOutcome::Failed(Some(MintError::Rejected { code, .. })) = outcome else {
            return Ok(false);
        };
        if !codes::is_about_outputs(*code) {
            return Ok(false);
        }
        self.client.refresh_keysets().await?;
        Ok(true)
    }

    /// How the last operation of this purpose ended.
    pub(crate) async fn resume_latest(&self, purpose: &Purpose) -> Result<OperationOutcome> {
        match self.store.latest(purpose).await? {
            None => Ok(OperationOutcome::Failed(None)),
            Some(operation) => self.resume(operation).await,
        }
    }

    /// Finishes an operation that another process, or an earlier attempt, may have begun.
    pub(crate) async fn resume(&self, operation: Operation) -> Result<OperationOutcome> {
        match operation.state {
            OperationState::Done => Ok(OperationOutcome::Done(Box::new(operation))),
            OperationState::Failed if operation.data.spent_elsewhere => {
                Ok(OperationOutcome::SpentElsewhere)
            }
            OperationState::Failed => Ok(OperationOutcome::Failed(None)),
            OperationState::Open if operation.data.quote.is_some() => {
                self.resume_payment(&operation).await
            }
            OperationState::Open => match self.check_swap(&operation).await? {
                // Its inputs are unspent, and the request still stands: repeat it unchanged.
                OperationOutcome::Unknown(_) => match self.store.renew(&operation).await? {
                    Some(operation) => self.perform_swap(&operation).await,
                    // Another process has found out how it ended.
                    None => Ok(OperationOutcome::Unknown(Unresolved::SwapInFlight)),
                },
                known => Ok(known),
            },
        }
    }

    /// How an open swap has ended, as far as the mint says so without another request of it.
    async fn check_swap(&self, operation: &Operation) -> Result<OperationOutcome> {
        leave_open(self.resolve_swap(operation, LastRequest::InFlight).await)
    }

    /// As [`MintWallet::resume_latest`], without requesting a swap once more: nobody wants what it
    /// would bring. It has failed once no request can be on its way, its inputs are unspent and its
    /// outputs are not signed. Then nothing more is begun.
    pub(crate) async fn close_latest(&self, purpose: &Purpose) -> Result<OperationOutcome> {
        let outcome = match self.store.latest(purpose).await? {
            None => OperationOutcome::Failed(None),
            Some(open) if open.state == OperationState::Open => {
                let request = match self.is_request_over(&open).await? {
                    true => LastRequest::Over,
                    false => LastRequest::InFlight,
                };
                leave_open(self.resolve_swap(&open, request).await)?
            }
            Some(ended) => self.resume(ended).await?,
        };
        match outcome {
            OperationOutcome::Failed(_) => self.close(purpose, outcome).await,
            known => Ok(known),
        }
    }

    /// Lets nothing more be begun for this purpose, whose order is about to be refused. Gives
    /// `failed`, unless another process has begun something.
    pub(crate) async fn close(
        &self,
        purpose: &Purpose,
        failed: OperationOutcome,
    ) -> Result<OperationOutcome> {
        match self.store.close(purpose, &self.mint).await? {
            None => Ok(failed),
            Some(done) if done.state == OperationState::Done => {
                Ok(OperationOutcome::Done(Box::new(done)))
            }
            Some(_) => Ok(OperationOutcome::Unknown(Unresolved::SwapInFlight)),
        }
    }

    async fn is_request_over(&self, operation: &Operation) -> Result<bool> {
        let now = UnixTime::now();
        let requested_at = operation.data.requested_at.unwrap_or(self.opened_at);
        if requested_at > now {
            // By a clock that was wrong. It counts from now on.
            self.store.renew(operation).await?;
            return Ok(false);
        }
        // A clock that jumps between two processes does not shorten it.
        Ok(now.since(requested_at.max(self.opened_at)) > REQUEST_LIFETIME)
    }

    /// Resumes every open operation, and swaps proofs whose keyset ends. Returns how many operations
    /// are still open.
    pub(crate) async fn recover(&self) -> Result<usize> {
        self.ensure_restored().await?;
        self.store.forget_failed().await?;
        let mut open = 0_usize;
        for operation in self.store.open_operations(&self.mint).await? {
            let outcome = match operation.purpose {
                // Whether a payment is still wanted, its order knows.
                Purpose::Receive { .. } => self.check_swap(&operation).await?,
                _ => self.resume(operation).await?,
            };
            if let OperationOutcome::Unknown(reason) = outcome {
                tracing::debug!(mint = %self.mint, %reason, "an operation stays open");
                open = open.saturating_add(1);
            }
        }
        // For payment requests, which name the mint's fee; not knowing it hinders nothing else.
        if let Ok(keysets) = self.keysets(|_| false).await {
            open = open.saturating_add(self.rotate_proofs(&keysets).await);
        }
        Ok(open)
    }

    /// Requests the swap. If the response leaves a doubt, it is resolved at once.
    pub(crate) async fn perform_swap(&self, operation: &Operation) -> Result<OperationOutcome> {
        leave_open(self.request_swap(operation).await)
    }

    async fn request_swap(&self, operation: &Operation) -> Result<OperationOutcome> {
        let outputs = self.outputs(&operation.data).await?;
        let inputs = operation.data.inputs.clone();
        let mut request = SwapRequest::new(inputs, outputs.blinded_messages());
        conditions::sign_all(&mut request, self.p2pk_secret_key.as_ref());
        let error = match self.send_swap(&request).await {
            Ok(response) => match self.unblind(outputs, response.signatures).await {
                Ok(proofs) => {
                    return self.complete_swap(operation, proofs).await.map(OperationOutcome::Done);
                }
                Err(UnblindError::Signatures(error)) => {
                    MintError::InvalidResponse(ResponseError::Signatures(error))
                }
                // The swap was done, and its outputs are unblinded once the mint sends its keys.
                Err(UnblindError::Mint(error)) => {
                    return Ok(OperationOutcome::Unknown(error.into()));
                }
            },
            Err(error) => error,
        };
        let (mint, purpose) = (&self.mint, &operation.purpose);
        if !operation.data.has_own_inputs && error.is_about_token() {
            // Anybody can send such tokens, without end.
            tracing::debug!(%mint, %purpose, %error, "token was rejected");
        } else {
            tracing::warn!(%mint, %purpose, %error, "swap was not confirmed");
        }
        self.resolve_swap(operation, LastRequest::Failed(error)).await
    }

    /// Sends the request, and once more if the mint may then answer otherwise.
    async fn send_swap(
        &self,
        request: &SwapRequest,
    ) -> std::result::Result<SwapResponse, MintError> {
        let sent = async {
            match self.client.swap(request).await {
                Err(MintError::Rejected { code, .. }) if codes::is_transient(code) => {
                    self.client.swap(request).await
                }
                response => response,
            }
        };
        tokio::time::timeout(REQUEST_TIME, sent)
            .await
            .unwrap_or(Err(MintError::Unavailable(UnavailableReason::Queue)))
    }

    /// Finds out how a swap ended from its inputs' states (NUT-07) and its outputs' signatures
    /// (NUT-09).
    async fn resolve_swap(
        &self,
        operation: &Operation,
        request: LastRequest,
    ) -> Result<OperationOutcome> {
        let unknown = |reason| Ok(OperationOutcome::Unknown(reason));
        // In this order: a swap whose outputs are unsigned, and whose inputs are unspent even
        // later, was not done meanwhile.
        let refusal = self.refusal_of(operation, request).await;
        let ys = proof_ys(&self.client.share, &operation.data.inputs).await?;
        let states = match self.client.states(&ys).await {
            Ok(states) => states,
            Err(error) => return unknown(error.into()),
        };
        if states.contains(&State::Spent) {
            return self.resolve_spent(operation, &states).await;
        }
        if states.iter().any(|state| *state != State::Unspent) {
            return unknown(Unresolved::ProofsPending);
        }
        let refusal = match refusal {
            Ok(refusal) => refusal,
            Err(reason) => return unknown(reason),
        };
        // Refused, or no longer on its way, and the inputs are unspent: it will not be done.
        let failed = OperationOutcome::Failed(refusal.error);
        let outcome = self.fail(operation, &states, failed).await?;
        if let Some(keyset) = operation.data.keyset.filter(|_| refusal.is_any_output_signed) {
            self.restore_refused(keyset).await;
        }
        Ok(outcome)
    }

    /// Why a swap whose inputs turn out to be unspent will not be done, or why that is not known.
    async fn refusal_of(
        &self,
        operation: &Operation,
        request: LastRequest,
    ) -> std::result::Result<SwapRefusal, Unresolved> {
        let (code, detail) = match request {
            LastRequest::Failed(MintError::Rejected { code, detail }) => (code, Some(detail)),
            LastRequest::Failed(error) => return Err(error.into()),
            LastRequest::InFlight => return Err(Unresolved::SwapInFlight),
            LastRequest::Over => (codes::NONE, None),
        };
        let is_any_output_signed = self
            .is_any_output_signed(operation, code)
            .await
            .map_err(|error| Unresolved::Check(Box::new(error)))?;
        let code = if is_any_output_signed { codes::SIGNED } else { code };
        let error = detail.map(|detail| MintError::Rejected { code, detail });
        Ok(SwapRefusal { is_any_output_signed, error })
    }

    /// How a swap ended whose inputs are spent: by it, if the mint has signed its outputs.
    async fn resolve_spent(
        &self,
        operation: &Operation,
        states: &[State],
    ) -> Result<OperationOutcome> {
        match self.signed_outputs(operation).await {
            Ok(SignedOutputs::Ours(proofs)) => {
                self.complete_swap(operation, proofs).await.map(OperationOutcome::Done)
            }
            Ok(SignedOutputs::NotOurs) => {
                self.fail(operation, states, OperationOutcome::SpentElsewhere).await
            }
            Ok(SignedOutputs::Invalid(error)) => {
                Ok(OperationOutcome::Unknown(Unresolved::Signatures(error)))
            }
            Err(error @ MintWalletError::Store(_)) => Err(error),
            Err(error) => Ok(OperationOutcome::Unknown(Unresolved::Check(Box::new(error)))),
        }
    }

    /// Stores that an operation was not done. Gives `outcome`, unless another process has found out
    /// that it was.
    pub(crate) async fn fail(
        &self,
        operation: &Operation,
        states: &[State],
        outcome: OperationOutcome,
    ) -> Result<OperationOutcome> {
        match self.store.fail(operation, states).await? {
            EndResult::Ended => Ok(outcome),
            EndResult::Renewed => Ok(OperationOutcome::Unknown(Unresolved::SwapInFlight)),
            EndResult::AlreadyEnded => match self.store.latest(&operation.purpose).await? {
                Some(latest) if latest.state == OperationState::Done => {
                    Ok(OperationOutcome::Done(Box::new(latest)))
                }
                _ => Ok(outcome),
            },
        }
    }

    /// Whether the mint has signed any of the outputs of a swap that it refused with this code.
    async fn is_any_output_signed(&self, operation: &Operation, code: u32) -> Result<bool> {
        let outputs = self.outputs(&operation.data).await?.blinded_messages();
        let ours: Vec<_> = outputs.iter().map(|output| output.blinded_secret).collect();
        match self.client.restore(&RestoreRequest { outputs }).await {
            Ok(response) => {
                Ok(response.outputs.iter().any(|output| ours.contains(&output.blinded_secret)))
            }
            // A mint without NUT-09, which has read the swap and refused it.
            Err(MintError::Rejected { .. }) if codes::is_of_table(code) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn signed_outputs(&self, operation: &Operation) -> Result<SignedOutputs> {
        let outputs = self.outputs(&operation.data).await?;
        let blinded = outputs.blinded_messages();
        let messages: Vec<_> = blinded.iter().map(|message| message.blinded_secret).collect();
        let response = self.client.restore(&RestoreRequest { outputs: blinded }).await?;
        let signatures = order_signatures(&messages, response.outputs, response.signatures);
        let Some(signatures) = signatures.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(SignedOutputs::NotOurs);
        };
        let proofs = match self.unblind(outputs, signatures).await {
            Ok(proofs) => proofs,
            Err(UnblindError::Signatures(error)) => return Ok(SignedOutputs::Invalid(error)),
            Err(UnblindError::Mint(error)) => return Err(error.into()),
        };
        // Outputs of an older use of the same counters have other amounts, or are spent.
        let amounts: Vec<u64> = proofs.iter().map(|proof| proof.amount.to_u64()).collect();
        if amounts != operation.data.amounts {
            return Ok(SignedOutputs::NotOurs);
        }
        let ys = proof_ys(&self.client.share, &proofs).await?;
        let states = self.client.states(&ys).await?;
        let are_unspent = states.iter().all(|state| *state == State::Unspent);
        // What is in the wallet already has paid for something else.
        let are_new = !self.store.has_any(ys.iter().map(PublicKey::to_hex).collect()).await?;
        Ok(if are_unspent && are_new {
            SignedOutputs::Ours(proofs)
        } else {
            SignedOutputs::NotOurs
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeMint, OneKey, wallet_at};
    use cdk::Amount;
    use cdk::nuts::Proof;
    use cdk::secret::Secret;
    use paygress_core::model::ids::OrderId;
    use std::str::FromStr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn operation(wallet: &MintWallet, first_counter: u32) -> Operation {
        let data = OperationData {
            keyset: Some(Id::from_str("009a1f293253e41e").unwrap()),
            amounts: vec![1],
            first_counter,
            ..OperationData::default()
        };
        Operation::new(Purpose::Receive { order: OrderId::random() }, &wallet.mint, data)
    }

    #[tokio::test]
    async fn a_swap_that_the_mint_has_done_is_not_refused_when_its_keys_are_missing() {
        let mint = FakeMint::start(|path, _| match path {
            "/v1/swap" => ("200 OK", r#"{"signatures":[]}"#.to_owned()),
            _ => ("500 Internal Server Error", "{}".to_owned()),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = mint.wallet(directory.path()).await;
        let outcome = wallet.perform_swap(&operation(&wallet, 0)).await;
        assert!(
            matches!(
                &outcome,
                Ok(OperationOutcome::Unknown(Unresolved::Mint(MintError::Unavailable(_))))
            ),
            "{outcome:?}"
        );
    }

    #[tokio::test]
    async fn a_stored_operation_stays_open_when_its_request_cannot_be_made() {
        let directory = tempfile::tempdir().unwrap();
        let wallet = wallet_at("http://127.0.0.1:1", directory.path()).await;
        let outcome = wallet.perform_swap(&operation(&wallet, u32::MAX)).await;
        assert!(
            matches!(&outcome, Ok(OperationOutcome::Unknown(Unresolved::Check(_)))),
            "{outcome:?}"
        );
    }

    #[tokio::test]
    async fn a_mint_that_raises_its_fee_before_the_second_attempt_takes_nothing() {
        let (key, swaps) = (OneKey::new(), Arc::new(AtomicUsize::new(0)));
        let (id, c) = (key.keyset.id, cdk::nuts::SecretKey::generate().public_key());
        let seen = Arc::clone(&swaps);
        let mint = FakeMint::start(move |path, body| match path {
            "/v1/keysets" if seen.load(Ordering::SeqCst) == 0 => key.keysets(0),
            "/v1/keysets" => key.keysets(2_000),
            "/v1/swap" => {
                seen.fetch_add(1, Ordering::SeqCst);
                ("400 Bad Request", r#"{"code":12002,"detail":"inactive"}"#.to_owned())
            }
            "/v1/restore" => OneKey::none_signed(),
            "/v1/checkstate" => OneKey::unspent(body),
            _ => key.keys(),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = mint.wallet(directory.path()).await;
        let purpose = Purpose::Receive { order: OrderId::random() };
        let proof = Proof::new(Amount::from(4), id, Secret::generate(), c);
        let outcome = wallet.receive(&purpose, vec![proof]).await;
        assert!(
            matches!(&outcome, Err(MintWalletError::FeeRaised { agreed: 0, fee: 2 })),
            "{outcome:?}"
        );
        assert_eq!(swaps.load(Ordering::SeqCst), 1);
        let latest = wallet.store.latest(&purpose).await.unwrap().unwrap();
        assert_eq!(latest.state, OperationState::Failed);
    }
}
