//! One mint's drawer: what is done there with the purse. Every way through it can be cut anywhere
//! and gone again.
//!
//! ```text
//! begin (on disk) ─▶ ask the mint ─▶ yes ─▶ done (on disk)
//!                        └─ no, or nothing ─▶ resolve: signed? ─▶ done
//!                                                      spent by others, or never taken ─▶ failed
//!                                                      nobody knows ─▶ stays open, asked again
//! ```

use crate::client::{Asked, MintClient, MintError, active, codes};
use crate::seed::Seed;
use crate::wallet_store::{self, Operation, OperationData, OperationState, WalletStore, total};
use cdk::Amount;
use cdk::amount::FeeAndAmounts;
use cdk::dhke::construct_proofs;
use cdk::nuts::{
    BlindSignature, CurrencyUnit, KeySet, KeySetInfo, PreMintSecrets, Proof, Proofs, PublicKey,
    RestoreRequest, State, SwapRequest, Token,
};
use paygress_core::model::units::{MintUrl, Seconds, UnixTime};
use paygress_store::db::DatabaseError;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Attempts at one swap with outputs of its own: a keyset that was rotated, places of the seed that
/// were used before.
const ATTEMPTS: usize = 3;
/// Proofs in one request of ours: mints take 1 000 (cdk-mintd's default).
const INPUTS: usize = 500;
/// Operations that came to nothing are kept for so long.
const FAILED_KEPT: Seconds = Seconds(30 * 86_400);
/// Places of the seed that a restore asks for at once…
const BATCH: u32 = 100;
/// …and how many such batches without a signature end it. (NUT-13 has three; swaps that were
/// refused may leave larger gaps.)
const EMPTY_BATCHES: u32 = 10;

/// Why something was not done with a mint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WalletFault {
    #[error(transparent)]
    MintClient(#[from] MintError),
    #[error("the purse's database failed: {0}")]
    WalletStore(#[from] DatabaseError),
    /// The proofs that the purse was to spend do not make so much.
    #[error("the purse holds {0} sat at this mint, and that is not enough")]
    TooLittle(u64),
    #[error("{0}")]
    Crypto(String),
}

pub(crate) fn crypto(error: impl std::fmt::Display) -> WalletFault {
    WalletFault::Crypto(error.to_string())
}

/// How an operation ended, as far as anybody knows.
#[derive(Clone, Debug)]
pub(crate) enum OperationOutcome {
    Done(Box<Operation>),
    /// Nothing was taken, and nothing will be; what the mint had said.
    NotDone(Option<MintError>),
    SpentElsewhere,
    Unknown(String),
}

pub(crate) struct MintWallet {
    pub(crate) mint: MintClient,
    pub(crate) name: MintUrl,
    pub(crate) wallet_store: WalletStore,
    pub(crate) seed: Arc<Seed>,
    restored: Mutex<bool>,
}

/// What is chosen to be handed out or paid with.
pub(crate) enum Selection {
    /// These proofs make the amount: no mint is needed.
    Exact(Proofs),
    /// These are swapped.
    Swap { inputs: Proofs, fee: u64 },
}

impl MintWallet {
    pub(crate) fn new(mint: MintClient, wallet_store: WalletStore, seed: Arc<Seed>) -> Self {
        let name = MintUrl(mint.url.to_string());
        Self { mint, name, wallet_store, seed, restored: Mutex::new(false) }
    }

    /// Makes sure that the purse knows this mint's part of the seed. A known seed on a new disk
    /// asks the mint first: otherwise its outputs would be those of long ago.
    pub(crate) async fn ready(&self) -> Result<(), WalletFault> {
        let mut restored = self.restored.lock().await;
        if !*restored {
            if !self.wallet_store.is_restored(&self.name, !self.seed.known).await? {
                self.restore().await?;
            }
            *restored = true;
        }
        Ok(())
    }

    /// The keyset to take new money in, with its keys.
    pub(crate) async fn signing(&self) -> Result<(KeySetInfo, Arc<KeySet>), WalletFault> {
        let now = Seconds(UnixTime::now().0);
        let keysets = self.mint.keysets(|keysets| active(keysets, now).is_none()).await?;
        let keyset = active(&keysets, now).ok_or_else(|| {
            MintError::InvalidResponse("it has no active keyset in sat".to_owned())
        })?;
        Ok((keyset.clone(), self.mint.keys(keyset.id).await?))
    }

    /// What the mint keeps when these are spent.
    pub(crate) async fn fee(&self, proofs: &[Proof]) -> Result<u64, WalletFault> {
        let missing = |keysets: &[KeySetInfo]| {
            proofs.iter().any(|proof| !keysets.iter().any(|keyset| keyset.id == proof.keyset_id))
        };
        let keysets = self.mint.keysets(missing).await?;
        let mut ppk: u64 = 0;
        for proof in proofs {
            let keyset = keysets.iter().find(|keyset| keyset.id == proof.keyset_id);
            let unknown = || MintError::Rejected {
                code: codes::KEYSET_UNKNOWN,
                detail: "a keyset is not the mint's".to_owned(),
            };
            ppk = ppk.saturating_add(keyset.ok_or_else(unknown)?.input_fee_ppk);
        }
        Ok(ppk.div_ceil(1_000))
    }

    /// The places of the seed as secrets and blinded messages of these amounts.
    pub(crate) fn outputs(&self, work: &OperationData) -> Result<PreMintSecrets, WalletFault> {
        let Some(keyset) = work.keyset else {
            return Err(WalletFault::Crypto("an operation without outputs".to_owned()));
        };
        let count = u32::try_from(work.amounts.len()).map_err(crypto)?;
        let end = work
            .start
            .checked_add(count)
            .ok_or_else(|| WalletFault::Crypto("a keyset's counter has run out".to_owned()))?;
        let mut outputs = PreMintSecrets::restore_batch(keyset, &self.seed.bytes, work.start, end)
            .map_err(crypto)?;
        for (output, amount) in outputs.secrets.iter_mut().zip(&work.amounts) {
            output.amount = Amount::from(*amount);
            output.blinded_message.amount = Amount::from(*amount);
        }
        Ok(outputs)
    }

    /// Takes in the proofs of a stranger: from now on they are ours.
    pub(crate) async fn take(
        &self,
        purpose: &str,
        inputs: Proofs,
    ) -> Result<OperationOutcome, WalletFault> {
        self.ready().await?;
        let mut outcome = OperationOutcome::Failed(None);
        for _ in 0..ATTEMPTS {
            let fee = self.fee(&inputs).await?;
            let net = total(&inputs).saturating_sub(fee);
            let (keyset, keys) = self.signing().await?;
            let work = OperationData {
                inputs: inputs.clone(),
                keyset: Some(keyset.id),
                amounts: split(net, &keys)?,
                ..OperationData::default()
            };
            let Some(operation) =
                self.begin(Operation::new(purpose, &self.name, work), Vec::new()).await?
            else {
                return self.finish_latest(purpose).await;
            };
            outcome = self.perform(&operation).await?;
            if !self.try_anew(&outcome).await? {
                break;
            }
        }
        Ok(outcome)
    }

    /// Whether a swap that was not done may be done with other outputs.
    async fn try_anew(&self, outcome: &OperationOutcome) -> Result<bool, WalletFault> {
        match outcome {
            OperationOutcome::Failed(Some(MintError::Rejected {
                code: codes::KEYSET_INACTIVE | codes::KEYSET_EXPIRED,
                ..
            })) => {
                self.mint.forget_keysets().await;
                Ok(true)
            }
            // Places that were used before: the purse is older than the seed's last use.
            OperationOutcome::Failed(Some(MintError::Rejected { code: codes::SIGNED, .. })) => {
                self.restore().await.map(|_| true)
            }
            _ => Ok(false),
        }
    }

    /// Writes an operation down, with the purse's own proofs that it holds; `None` when one of its
    /// purpose is open or done.
    pub(crate) async fn begin(
        &self,
        operation: Operation,
        held: Proofs,
    ) -> Result<Option<Operation>, WalletFault> {
        let begun = self.wallet_store.transact(move |transaction| {
            if wallet_store::latest(transaction, &operation.purpose)?
                .is_some_and(|latest| latest.state != OperationState::Failed)
            {
                return Ok(None);
            }
            let mut operation = operation.clone();
            wallet_store::check_free(transaction, &held)?;
            if let Some(keyset) = operation.work.keyset {
                operation.work.start = wallet_store::reserve_places(
                    transaction,
                    keyset,
                    operation.work.amounts.len(),
                )?;
            }
            wallet_store::insert(transaction, &mut operation)?;
            wallet_store::hold(transaction, &held, "held", &operation.id)?;
            Ok::<_, DatabaseError>(Some(operation))
        });
        Ok(begun.await?)
    }

    /// What became of the last operation of this purpose.
    pub(crate) async fn finish_latest(
        &self,
        purpose: &str,
    ) -> Result<OperationOutcome, WalletFault> {
        match self.wallet_store.latest(purpose).await? {
            None => Ok(OperationOutcome::Failed(None)),
            Some(operation) => self.finish(operation).await,
        }
    }

    /// Finishes an operation that another process, or an earlier attempt, may have begun.
    pub(crate) async fn finish(
        &self,
        operation: Operation,
    ) -> Result<OperationOutcome, WalletFault> {
        match operation.state {
            OperationState::Done => Ok(OperationOutcome::Done(Box::new(operation))),
            OperationState::Failed if operation.work.spent_elsewhere => {
                Ok(OperationOutcome::SpentElsewhere)
            }
            OperationState::Failed => Ok(OperationOutcome::Failed(None)),
            OperationState::Open if operation.work.quote.is_some() => {
                self.settle_payment(&operation).await
            }
            OperationState::Open => match self.resolve(&operation, None).await? {
                // Not taken, and its words still stand: ask again in the same ones.
                OperationOutcome::Unknown(_) => self.perform(&operation).await,
                known => Ok(known),
            },
        }
    }

    /// Asks the mint to do the swap. A doubt is looked into at once.
    async fn perform(&self, operation: &Operation) -> Result<OperationOutcome, WalletFault> {
        let outputs = self.outputs(&operation.work)?;
        let request = SwapRequest::new(operation.work.inputs.clone(), outputs.blinded_messages());
        let fault = match self.mint.swap(&request).await {
            Ok(answer) => match self.unblind(&outputs, answer.signatures).await {
                Ok(got) => return self.done(operation, got).await.map(OperationOutcome::Done),
                Err(WalletFault::Crypto(why)) => MintError::InvalidResponse(why),
                Err(other) => return Err(other),
            },
            Err(fault) => fault,
        };
        tracing::warn!(mint = %self.name, purpose = operation.purpose, %fault, "a swap's answer is not a yes");
        self.resolve(operation, Some(fault)).await
    }

    async fn done(
        &self,
        operation: &Operation,
        got: Proofs,
    ) -> Result<Box<Operation>, WalletFault> {
        let fee = total(&operation.work.inputs).saturating_sub(total(&got));
        Ok(Box::new(self.wallet_store.done(operation, got, fee, 0).await?))
    }

    /// Finds out how a swap ended, from what the mint knows of its inputs and outputs.
    async fn resolve(
        &self,
        operation: &Operation,
        fault: Option<MintError>,
    ) -> Result<OperationOutcome, WalletFault> {
        let unknown = |why: String| Ok(OperationOutcome::Unknown(why));
        let states = match self.mint.states(&ys(&operation.work.inputs)?).await {
            Ok(states) => states,
            Err(fault) => return unknown(fault.to_string()),
        };
        let spent: Vec<bool> = states.iter().map(|state| *state == State::Spent).collect();
        if spent.contains(&true) {
            // By our own swap, if the mint has signed its outputs.
            return match self.signed(operation).await {
                Ok(Some(got)) => self.done(operation, got).await.map(OperationOutcome::Done),
                Ok(None) => {
                    self.wallet_store.failed(operation, &spent).await?;
                    Ok(OperationOutcome::SpentElsewhere)
                }
                Err(WalletFault::MintClient(fault)) => unknown(fault.to_string()),
                Err(WalletFault::Crypto(why)) => {
                    unknown(format!("the mint's signatures make no sense: {why}"))
                }
                Err(other) => Err(other),
            };
        }
        if states.iter().any(|state| *state != State::Unspent) {
            return unknown("the mint says that the proofs are pending".to_owned());
        }
        match fault {
            // A reasoned no, and the inputs are free: it will not be done.
            Some(MintError::Rejected { code, .. }) if codes::is_final(code) => {
                self.wallet_store.failed(operation, &spent).await?;
                Ok(OperationOutcome::Failed(fault))
            }
            Some(fault) => unknown(fault.to_string()),
            None => unknown("the swap may still be on its way".to_owned()),
        }
    }

    /// The operation's outputs, if the mint has signed all of them with what was asked for.
    async fn signed(&self, operation: &Operation) -> Result<Option<Proofs>, WalletFault> {
        let outputs = self.outputs(&operation.work)?;
        let messages = outputs.blinded_messages();
        let answer = self.mint.restore(&RestoreRequest { outputs: messages.clone() }).await?;
        let signatures = in_order(
            &messages.iter().map(|message| message.blinded_secret).collect::<Vec<_>>(),
            answer.outputs,
            answer.signatures,
        );
        if signatures.iter().any(Option::is_none) {
            return Ok(None);
        }
        let got = self.unblind(&outputs, signatures.into_iter().flatten().collect()).await?;
        // Outputs of an older use of the same places have other amounts, or are spent.
        let amounts: Vec<u64> = got.iter().map(|proof| proof.amount.to_u64()).collect();
        if amounts != operation.work.amounts {
            return Ok(None);
        }
        let states = self.mint.states(&ys(&got)?).await?;
        Ok(states.iter().all(|state| *state == State::Unspent).then_some(got))
    }

    /// Signatures into proofs, each checked as far as the mint lets us: its keyset, its key, its
    /// DLEQ.
    pub(crate) async fn unblind(
        &self,
        outputs: &PreMintSecrets,
        signatures: Vec<BlindSignature>,
    ) -> Result<Proofs, WalletFault> {
        if signatures.len() != outputs.secrets.len() {
            return Err(WalletFault::Crypto(format!(
                "{} signatures for {} outputs",
                signatures.len(),
                outputs.secrets.len()
            )));
        }
        let keys = self.mint.keys(outputs.keyset_id).await?;
        for (signature, output) in signatures.iter().zip(&outputs.secrets) {
            let key = keys
                .keys
                .amount_key(signature.amount)
                .filter(|_| signature.keyset_id == outputs.keyset_id);
            let key =
                key.ok_or_else(|| WalletFault::Crypto("a signature of a foreign key".to_owned()))?;
            let asked = output.amount.to_u64();
            if asked != 0 && asked != signature.amount.to_u64() {
                return Err(WalletFault::Crypto(
                    "a signature over another amount than was asked for".to_owned(),
                ));
            }
            if signature.dleq.is_some() {
                signature.verify_dleq(key, output.blinded_message.blinded_secret).map_err(
                    |_| WalletFault::Crypto("a signature whose proof is false".to_owned()),
                )?;
            }
        }
        construct_proofs(signatures, outputs.rs(), outputs.secrets(), &keys.keys).map_err(crypto)
    }

    /// Chooses proofs of the purse that make `amount`. With `on_top` the mint's fee is paid beside
    /// it, otherwise out of it.
    pub(crate) async fn choose(&self, amount: u64, on_top: bool) -> Result<Selection, WalletFault> {
        let name = self.name.clone();
        let all = self
            .wallet_store
            .transact(move |transaction| wallet_store::unspent(transaction, &name))
            .await?;
        let mut exact = Vec::new();
        let mut rest = amount;
        for proof in all.iter().filter(|proof| proof.amount.to_u64() > 0) {
            if let Some(left) = rest.checked_sub(proof.amount.to_u64()) {
                exact.push(proof.clone());
                rest = left;
            }
        }
        if rest == 0 && exact.len() <= INPUTS {
            return Ok(Selection::Exact(exact));
        }
        let mut inputs: Proofs = Vec::new();
        for proof in all.into_iter().take(INPUTS) {
            inputs.push(proof);
            let fee = self.fee(&inputs).await?;
            let needed = if on_top { amount.saturating_add(fee) } else { amount };
            if total(&inputs) >= needed && (on_top || fee < amount) {
                return Ok(Selection::Swap { inputs, fee });
            }
        }
        Err(WalletFault::TooLittle(total(&inputs)))
    }

    /// A token over `amount`, less the mint's fee for making it unless that comes on top. The same
    /// purpose gets the same.
    pub(crate) async fn send(
        &self,
        purpose: &str,
        amount: u64,
        on_top: bool,
    ) -> Result<(Token, Operation), WalletFault> {
        self.ready().await?;
        if self
            .wallet_store
            .latest(purpose)
            .await?
            .is_none_or(|latest| latest.state == OperationState::Failed)
        {
            for _ in 0..ATTEMPTS {
                let outcome = self.send_once(purpose, amount, on_top).await?;
                if !matches!(outcome, OperationOutcome::SpentElsewhere)
                    && !self.try_anew(&outcome).await?
                {
                    break;
                }
            }
        }
        match self.finish_latest(purpose).await? {
            OperationOutcome::Done(operation) => {
                Ok((self.token(self.wallet_store.given(purpose).await?), *operation))
            }
            OperationOutcome::Unknown(why) => Err(MintError::Unavailable(why).into()),
            OperationOutcome::Failed(Some(fault)) => Err(fault.into()),
            OperationOutcome::Failed(None) | OperationOutcome::SpentElsewhere => {
                Err(WalletFault::Crypto(
                    "the purse's proofs were not taken; it is tried again".to_owned(),
                ))
            }
        }
    }

    /// Which inputs are spent, if none is pending; for an operation that is not done.
    pub(crate) async fn are_free(
        &self,
        operation: &Operation,
    ) -> Result<Option<Vec<bool>>, WalletFault> {
        let states = self.mint.states(&ys(&operation.work.inputs)?).await?;
        let decided = states.iter().all(|state| matches!(state, State::Unspent | State::Spent));
        Ok(decided.then(|| states.iter().map(|state| *state == State::Spent).collect()))
    }

    pub(crate) fn token(&self, proofs: Proofs) -> Token {
        Token::new(self.mint.url.clone(), proofs, None, CurrencyUnit::Sat)
    }

    async fn send_once(
        &self,
        purpose: &str,
        amount: u64,
        on_top: bool,
    ) -> Result<OperationOutcome, WalletFault> {
        let (choice, on_top) = match self.choose(amount, on_top).await {
            // The fee would take all of it: so little is handed out whole.
            Err(WalletFault::TooLittle(_)) if !on_top => (self.choose(amount, true).await?, true),
            choice => (choice?, on_top),
        };
        match choice {
            Selection::Exact(proofs) => {
                // Nobody is given what somebody else has spent.
                let states = self.mint.states(&ys(&proofs)?).await?;
                let dead: Proofs = proofs
                    .iter()
                    .zip(&states)
                    .filter(|(_, state)| **state == State::Spent)
                    .map(|(proof, _)| proof.clone())
                    .collect();
                if !dead.is_empty() {
                    tracing::error!(mint = %self.name, sat = total(&dead), "proofs of the purse were spent by another program");
                    self.wallet_store.write_off(&self.name, dead).await?;
                    return Ok(OperationOutcome::SpentElsewhere);
                }
                let mut operation = Operation::new(
                    purpose,
                    &self.name,
                    OperationData { gave: amount, ..OperationData::default() },
                );
                operation.state = OperationState::Done;
                operation.delta = i64::try_from(amount).unwrap_or(i64::MAX).saturating_neg();
                let done = self.wallet_store.transact(move |transaction| {
                    // Another replica may have been faster.
                    if let Some(latest) = wallet_store::latest(transaction, &operation.purpose)?
                        && latest.state != OperationState::Failed
                    {
                        return Ok(latest);
                    }
                    let mut operation = operation.clone();
                    wallet_store::check_free(transaction, &proofs)?;
                    wallet_store::insert(transaction, &mut operation)?;
                    wallet_store::hold(transaction, &proofs, "given", &operation.purpose)?;
                    Ok::<_, DatabaseError>(operation)
                });
                self.finish(done.await?).await
            }
            Selection::Swap { inputs, fee } => {
                let (keyset, keys) = self.signing().await?;
                let (give, change) = if on_top {
                    (amount, total(&inputs).saturating_sub(amount).saturating_sub(fee))
                } else {
                    (amount.saturating_sub(fee), total(&inputs).saturating_sub(amount))
                };
                let mut amounts = split(give, &keys)?;
                let given = amounts.len();
                amounts.extend(split(change, &keys)?);
                let work = OperationData {
                    inputs: inputs.clone(),
                    own: true,
                    keyset: Some(keyset.id),
                    amounts,
                    given,
                    ..OperationData::default()
                };
                match self.begin(Operation::new(purpose, &self.name, work), inputs).await? {
                    Some(operation) => self.perform(&operation).await,
                    None => self.finish_latest(purpose).await,
                }
            }
        }
    }

    /// The most that one request can spend.
    pub(crate) async fn spendable(&self) -> Result<u64, WalletFault> {
        let name = self.name.clone();
        let all = self
            .wallet_store
            .transact(move |transaction| wallet_store::unspent(transaction, &name))
            .await?;
        Ok(total(all.get(..INPUTS).unwrap_or(&all)))
    }

    /// Whether a token that was handed out was redeemed, in whole or in part.
    pub(crate) async fn was_redeemed(&self, purpose: &str) -> Result<bool, WalletFault> {
        let given = self.wallet_store.given(purpose).await?;
        if given.is_empty() {
            return Ok(true);
        }
        let states = self.mint.states(&ys(&given)?).await?;
        Ok(states.contains(&State::Spent))
    }

    /// Asks the mint which places of the seed it has signed, and takes in what is not spent
    /// (NUT-13).
    pub(crate) async fn restore(&self) -> Result<u64, WalletFault> {
        let keysets = self.mint.keysets(|_| true).await?;
        let (mut found, mut used): (Vec<(u32, Proof)>, _) = (Vec::new(), Vec::new());
        for keyset in keysets.iter() {
            let (mut start, mut empty, mut last) = (0_u32, 0, None);
            while empty < EMPTY_BATCHES {
                let end = start
                    .checked_add(BATCH)
                    .ok_or_else(|| WalletFault::Crypto("a keyset without end".to_owned()))?;
                let outputs =
                    PreMintSecrets::restore_batch(keyset.id, &self.seed.bytes, start, end)
                        .map_err(crypto)?;
                let messages: Vec<PublicKey> = outputs
                    .secrets
                    .iter()
                    .map(|output| output.blinded_message.blinded_secret)
                    .collect();
                let answer = self
                    .mint
                    .restore(&RestoreRequest { outputs: outputs.blinded_messages() })
                    .await?;
                let signatures = in_order(&messages, answer.outputs, answer.signatures);
                let mut signed = PreMintSecrets::new(keyset.id);
                let (mut of, mut places) = (Vec::new(), Vec::new());
                for ((output, signature), place) in
                    outputs.secrets.into_iter().zip(signatures).zip(start..end)
                {
                    if let Some(signature) = signature {
                        signed.secrets.push(output);
                        of.push(signature);
                        places.push(place);
                        last = Some(place);
                    }
                }
                empty = if of.is_empty() { empty.saturating_add(1) } else { 0 };
                if !of.is_empty() {
                    let proofs = self.unblind(&signed, of).await?;
                    found.extend(places.into_iter().zip(proofs));
                }
                start = end;
            }
            if let Some(last) = last {
                used.push((keyset.id, last.saturating_add(1)));
            }
        }
        // Only now is asked what of it is spent: reading all takes a while, and the service may be
        // spending.
        let (mut unspent, batch) = (Vec::new(), usize::try_from(BATCH).unwrap_or(usize::MAX));
        for some in found.chunks(batch) {
            let proofs: Proofs = some.iter().map(|(_, proof)| proof.clone()).collect();
            let states = self.mint.states(&ys(&proofs)?).await?;
            unspent.extend(
                some.iter()
                    .zip(states)
                    .filter(|(_, state)| *state == State::Unspent)
                    .map(|(found, _)| found.clone()),
            );
        }
        let new = self.wallet_store.restored(&self.name, unspent, used).await?;
        tracing::info!(mint = %self.name, sat = new, "restored from the mnemonic");
        Ok(new)
    }

    /// Ends what was begun and not seen to end; gives how many operations are still open.
    pub(crate) async fn recover(&self) -> Result<usize, WalletFault> {
        self.ready().await?;
        self.wallet_store.forget_failed(UnixTime::now().minus(FAILED_KEPT)).await?;
        let mut open = 0_usize;
        for operation in self.wallet_store.open_operations(&self.name).await? {
            if let OperationOutcome::Unknown(why) = self.finish(operation).await? {
                tracing::debug!(mint = %self.name, why, "an operation stays open");
                open = open.saturating_add(1);
            }
        }
        Ok(open)
    }

    /// The keys that made these proofs do fit them, where the proofs show it.
    pub(crate) async fn check_dleq(&self, proofs: &[Proof]) -> Asked<bool> {
        for proof in proofs.iter().filter(|proof| proof.dleq.is_some()) {
            let key = self.mint.keys(proof.keyset_id).await?.keys.amount_key(proof.amount);
            if key.is_none_or(|key| proof.verify_dleq(key).is_err()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn ys(proofs: &[Proof]) -> Result<Vec<PublicKey>, WalletFault> {
    proofs.iter().map(|proof| proof.y().map_err(crypto)).collect()
}

/// An amount in coins of this keyset.
pub(crate) fn split(amount: u64, keyset: &KeySet) -> Result<Vec<u64>, WalletFault> {
    let coins: Vec<u64> = keyset.keys.iter().map(|(amount, _)| amount.to_u64()).collect();
    let coins = FeeAndAmounts::from((keyset.input_fee_ppk, coins));
    let parts = Amount::from(amount).split(&coins).map_err(crypto)?;
    Ok(parts.into_iter().map(|part| part.to_u64()).collect())
}

/// The signatures of these messages; a mint answers only those that it has signed, in any order.
fn in_order(
    messages: &[PublicKey],
    outputs: Vec<cdk::nuts::BlindedMessage>,
    signatures: Vec<BlindSignature>,
) -> Vec<Option<BlindSignature>> {
    let mut of: HashMap<PublicKey, BlindSignature> =
        outputs.into_iter().map(|output| output.blinded_secret).zip(signatures).collect();
    messages.iter().map(|message| of.remove(message)).collect()
}
