//! Swaps (NUT-03): receiving a token, and finding out how an interrupted swap ended.

use crate::conditions;
use crate::crypto::proof_ys;
use crate::error::{MintError, MintWalletError, ResponseError, SignatureError, Unresolved, codes};
use crate::keyset::split;
use crate::mint_wallet::{MintWallet, Result, UnblindError, leave_open, order_signatures};
use crate::operation::{Operation, OperationData, OperationOutcome, OperationState, total};
use crate::purpose::Purpose;
use cdk::nuts::{Proofs, RestoreRequest, State, SwapRequest};
use paygress_core::model::units::{Seconds, UnixTime};

/// Attempts at one purpose with new outputs each: the keyset may have been rotated, or the
/// derivation counters used before.
pub(crate) const MAX_ATTEMPTS: usize = 3;
/// How long failed operations are kept.
const FAILED_KEPT: Seconds = Seconds(30 * 86_400);

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
        for _ in 0..MAX_ATTEMPTS {
            let fee = self.fee(&inputs).await?;
            let net = total(&inputs).saturating_sub(fee);
            let keyset = self.active_keyset().await?;
            let data = OperationData {
                inputs: inputs.clone(),
                keyset: Some(keyset.info.id),
                amounts: split(net, &keyset.keys)?,
                ..OperationData::default()
            };
            let operation = Operation::new(purpose.clone(), &self.mint, data);
            let Some(operation) = self.store.begin(operation, Vec::new()).await? else {
                return self.resume_latest(purpose).await;
            };
            outcome = self.perform_swap(&operation).await?;
            if !self.prepare_retry(&outcome).await? {
                break;
            }
        }
        Ok(outcome)
    }

    /// Whether a swap that failed so can be tried again with other outputs. Refreshes what they
    /// are made from.
    pub(crate) async fn prepare_retry(&self, outcome: &OperationOutcome) -> Result<bool> {
        let OperationOutcome::Failed(Some(MintError::Rejected { code, .. })) = outcome else {
            return Ok(false);
        };
        match *code {
            codes::KEYSET_INACTIVE | codes::KEYSET_EXPIRED => {
                self.client.forget_keysets().await;
                Ok(true)
            }
            // Counters that were used before: the store is older than the seed's last use.
            codes::SIGNED => self.restore().await.map(|_| true),
            _ => Ok(false),
        }
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
            OperationState::Open => match leave_open(self.resolve_swap(&operation, None).await)? {
                // Its inputs are unspent, and the request still stands: repeat it unchanged.
                OperationOutcome::Unknown(_) => self.perform_swap(&operation).await,
                known => Ok(known),
            },
        }
    }

    /// Resumes every open operation. Returns how many are still open.
    pub(crate) async fn recover(&self) -> Result<usize> {
        self.ensure_restored().await?;
        self.store.forget_failed(UnixTime::now().minus(FAILED_KEPT)).await?;
        let mut open = 0_usize;
        for operation in self.store.open_operations(&self.mint).await? {
            if let OperationOutcome::Unknown(reason) = self.resume(operation).await? {
                tracing::debug!(mint = %self.mint, %reason, "an operation stays open");
                open = open.saturating_add(1);
            }
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
        let error = match self.client.swap(&request).await {
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
        let purpose = &operation.purpose;
        tracing::warn!(mint = %self.mint, %purpose, %error, "swap was not confirmed");
        self.resolve_swap(operation, Some(error)).await
    }

    /// Finds out how a swap ended from its inputs' states (NUT-07) and its outputs' signatures
    /// (NUT-09). `error` is the mint's response to it, if this process has made the request.
    async fn resolve_swap(
        &self,
        operation: &Operation,
        error: Option<MintError>,
    ) -> Result<OperationOutcome> {
        let unknown = |reason| Ok(OperationOutcome::Unknown(reason));
        let ys = proof_ys(&operation.data.inputs).await?;
        let states = match self.client.states(&ys).await {
            Ok(states) => states,
            Err(error) => return unknown(error.into()),
        };
        if states.contains(&State::Spent) {
            // By this swap, if the mint has signed its outputs.
            return match self.signed_outputs(operation).await {
                Ok(SignedOutputs::Ours(proofs)) => {
                    self.complete_swap(operation, proofs).await.map(OperationOutcome::Done)
                }
                Ok(SignedOutputs::NotOurs) => {
                    self.store.fail(operation, &states).await?;
                    Ok(OperationOutcome::SpentElsewhere)
                }
                Ok(SignedOutputs::Invalid(error)) => unknown(Unresolved::Signatures(error)),
                Err(error @ MintWalletError::Store(_)) => Err(error),
                Err(error) => unknown(Unresolved::Check(Box::new(error))),
            };
        }
        if states.iter().any(|state| *state != State::Unspent) {
            return unknown(Unresolved::ProofsPending);
        }
        match error {
            // Rejected with a reason, and the inputs are unspent: it will not be done.
            Some(MintError::Rejected { code, .. }) if codes::is_final(code) => {
                self.store.fail(operation, &states).await?;
                Ok(OperationOutcome::Failed(error))
            }
            Some(error) => unknown(error.into()),
            None => unknown(Unresolved::SwapInFlight),
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
        let states = self.client.states(&proof_ys(&proofs).await?).await?;
        let are_unspent = states.iter().all(|state| *state == State::Unspent);
        Ok(if are_unspent { SignedOutputs::Ours(proofs) } else { SignedOutputs::NotOurs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::MintClient;
    use crate::http::JsonClient;
    use crate::seed::Seed;
    use crate::wallet_store::WalletStore;
    use cdk::nuts::Id;
    use paygress_core::model::ids::{MintUrl, OrderId};
    use std::str::FromStr;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A mint that confirms every swap, and has no answer to anything else.
    async fn confirm_swaps(listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let is_whole = |request: &[u8]| {
                let end = if request.starts_with(b"POST ") { "}" } else { "\r\n\r\n" };
                request.ends_with(end.as_bytes())
            };
            while !is_whole(&request) && stream.read_buf(&mut request).await.unwrap() > 0 {}
            let (status, body) = if request.starts_with(b"POST /v1/swap ") {
                ("200 OK", r#"{"signatures":[]}"#)
            } else {
                ("500 Internal Server Error", "{}")
            };
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}");
            stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        }
    }

    async fn wallet_at(url: &str, directory: &std::path::Path) -> MintWallet {
        let http = JsonClient::open().await.unwrap();
        let client = MintClient::new(cdk::mint_url::MintUrl::from_str(url).unwrap(), http);
        let store = WalletStore::sqlite(&directory.join("wallet.sqlite")).await.unwrap();
        let seed = Seed::load_or_create(&directory.join("mnemonic")).await.unwrap();
        MintWallet::new(client, MintUrl::parse(url).unwrap(), store, Arc::new(seed))
    }

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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mint = tokio::spawn(confirm_swaps(listener));
        let directory = tempfile::tempdir().unwrap();
        let wallet = wallet_at(&url, directory.path()).await;
        let outcome = wallet.perform_swap(&operation(&wallet, 0)).await;
        assert!(
            matches!(
                &outcome,
                Ok(OperationOutcome::Unknown(Unresolved::Mint(MintError::Unavailable(_))))
            ),
            "{outcome:?}"
        );
        mint.abort();
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
}
