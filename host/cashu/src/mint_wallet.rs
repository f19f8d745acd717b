//! The wallet of one mint: what its operations have in common.

use crate::client::MintClient;
use crate::crypto::{self, KeyedProof};
use crate::error::{KeysetConflict, MintError, MintWalletError, ResponseError, Unresolved};
use crate::keyset::{ActiveKeyset, longest_active, proofs_of_keysets};
use crate::keyset_owners::KeysetOwners;
use crate::operation::{Operation, OperationData, OperationOutcome, total};
use crate::seed::Seed;
use crate::token_format::ReadToken;
use crate::wallet_store::{BeginResult, WalletStore};
use cdk::nuts::{
    BlindSignature, CurrencyUnit, Id, KeySetInfo, PreMintSecrets, Proof, Proofs, PublicKey,
    SecretKey, State, Token,
};
use paygress_core::backend::wallet::TokenInfo;
use paygress_core::model::ids::{MintUrl, ProofY};
use paygress_core::model::units::{Sat, UnixTime};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long a token waits for other payments that leave it no room below the mint's limit…
const BALANCE_WAIT: Duration = Duration::from_secs(3);
/// …and how often it is tried meanwhile: another process may end them.
const BALANCE_POLL: Duration = Duration::from_millis(100);

pub(crate) type Result<T> = std::result::Result<T, MintWalletError>;

/// What is known of the seed's use at this mint.
#[derive(Default)]
pub(crate) struct RestoreState {
    pub(crate) is_restored: bool,
    /// When a restore ended at its limit.
    pub(crate) limited_at: Option<Instant>,
    /// When a keyset was restored because the mint had refused outputs as signed before.
    pub(crate) keysets: HashMap<Id, Instant>,
}

/// The keysets that a mint lists, and which of them are another mint's.
pub(crate) struct MintKeysets {
    pub(crate) all: Arc<Vec<KeySetInfo>>,
    conflicts: HashMap<Id, KeysetConflict>,
}

impl MintKeysets {
    pub(crate) fn own(&self) -> impl Iterator<Item = &KeySetInfo> {
        self.all.iter().filter(|keyset| !self.conflicts.contains_key(&keyset.id))
    }

    pub(crate) fn any_conflict(&self) -> Option<KeysetConflict> {
        self.conflicts.values().next().cloned()
    }

    pub(crate) fn get(&self, id: Id) -> Result<&KeySetInfo> {
        if let Some(conflict) = self.conflicts.get(&id) {
            return Err(conflict.clone().into());
        }
        let keyset = self.all.iter().find(|keyset| keyset.id == id);
        keyset.ok_or(MintWalletError::ForeignKeyset)
    }
}

pub(crate) struct MintWallet {
    pub(crate) client: Arc<MintClient>,
    pub(crate) mint: MintUrl,
    pub(crate) store: WalletStore,
    pub(crate) seed: Arc<Seed>,
    pub(crate) max_balance: Option<Sat>,
    pub(crate) owners: KeysetOwners,
    pub(crate) restore_state: Mutex<RestoreState>,
    /// For tokens that are locked to this service.
    pub(crate) p2pk_secret_key: Option<SecretKey>,
    /// What earlier processes have requested was requested before.
    pub(crate) opened_at: UnixTime,
}

impl MintWallet {
    pub(crate) fn new(
        client: MintClient,
        mint: MintUrl,
        store: WalletStore,
        seed: Arc<Seed>,
    ) -> Self {
        let owners = KeysetOwners::new(mint.clone(), store.clone());
        let restore_state = Mutex::default();
        Self {
            client: Arc::new(client),
            mint,
            store,
            seed,
            max_balance: None,
            owners,
            restore_state,
            p2pk_secret_key: None,
            opened_at: UnixTime::now(),
        }
    }

    /// As [`MintClient::keysets`]. Whatever uses a keyset gets it here.
    pub(crate) async fn keysets(
        &self,
        is_missing: impl Fn(&[KeySetInfo]) -> bool + Send,
    ) -> Result<MintKeysets> {
        let all = self.client.keysets(is_missing).await?;
        self.with_owners(all).await
    }

    /// As [`MintClient::keysets_now`].
    pub(crate) async fn keysets_now(
        &self,
        is_missing: impl Fn(&[KeySetInfo]) -> bool + Send,
    ) -> Result<MintKeysets> {
        let all = self.client.keysets_now(is_missing).await?;
        self.with_owners(all).await
    }

    async fn with_owners(&self, all: Arc<Vec<KeySetInfo>>) -> Result<MintKeysets> {
        let conflicts = self.owners.conflicts(all.iter().map(|keyset| keyset.id)).await?;
        let keysets = MintKeysets { all, conflicts };
        if self.client.take_refreshed() {
            let own = keysets.own().map(|keyset| keyset.id).collect();
            self.client.preload_keys(own).await;
        }
        Ok(keysets)
    }

    /// The unspent proofs, and why some may not be spent.
    pub(crate) async fn spendable(&self) -> Result<(Proofs, Option<KeysetConflict>)> {
        let mut unspent = self.store.unspent(&self.mint).await?;
        let keysets = unspent.iter().map(|proof| proof.keyset_id);
        let conflicts = self.owners.conflicts(keysets).await?;
        unspent.retain(|proof| !conflicts.contains_key(&proof.keyset_id));
        Ok((unspent, conflicts.into_values().next()))
    }

    /// The keyset for new outputs, with its keys.
    pub(crate) async fn active_keyset(&self) -> Result<ActiveKeyset> {
        let now = UnixTime::now();
        let keysets = self.keysets(|keysets| longest_active(keysets, now).is_none()).await?;
        let Some(info) = longest_active(keysets.own(), now) else {
            let no_keyset = MintError::InvalidResponse(ResponseError::NoActiveKeyset);
            return Err(keysets.any_conflict().map_or(no_keyset.into(), Into::into));
        };
        Ok(ActiveKeyset { info: info.clone(), keys: self.client.keys(info.id).await? })
    }

    /// The mint's fee for spending these proofs (NUT-02).
    pub(crate) async fn fee(&self, proofs: &[Proof]) -> Result<u64> {
        let is_missing = |keysets: &[KeySetInfo]| {
            proofs.iter().any(|proof| !keysets.iter().any(|keyset| keyset.id == proof.keyset_id))
        };
        let keysets = self.keysets(is_missing).await?;
        let mut ppk: u64 = 0;
        for proof in proofs {
            ppk = ppk.saturating_add(keysets.get(proof.keyset_id)?.input_fee_ppk);
        }
        Ok(ppk.div_ceil(1_000))
    }

    /// The mint's states of these proofs, in their order (NUT-07).
    pub(crate) async fn states(&self, proofs: &[Proof]) -> Result<Vec<State>> {
        let ys = crypto::proof_ys(&self.client.share, proofs).await?;
        Ok(self.client.states(&ys).await?)
    }

    /// The outputs of an operation, always the same.
    pub(crate) async fn outputs(&self, data: &OperationData) -> Result<PreMintSecrets> {
        let keyset = data.keyset.ok_or(MintWalletError::NoOutputs)?;
        let (share, seed) = (&self.client.share, &self.seed);
        crypto::derive_outputs_over(share, seed, keyset, data.first_counter, &data.amounts).await
    }

    /// Stores an operation, which may be requested from then on. `None` when one of its purpose is
    /// open or done, or nothing more is begun for it.
    pub(crate) async fn begin(
        &self,
        operation: Operation,
        own_inputs: Proofs,
    ) -> Result<Option<Operation>> {
        let amounts = &operation.data.amounts;
        if amounts.len() > operation.data.spender().max_outputs() {
            let outputs = u64::try_from(amounts.len()).unwrap_or(u64::MAX);
            let amount = amounts.iter().fold(0_u64, |sum, amount| sum.saturating_add(*amount));
            return Err(MintWalletError::TooManyOutputs { amount, outputs });
        }
        match self.store.begin(operation, own_inputs, self.max_balance).await? {
            BeginResult::Begun(operation) => Ok(Some(*operation)),
            BeginResult::AlreadyBegun => Ok(None),
            BeginResult::CountersReserved => Err(MintWalletError::CountersReserved),
            BeginResult::BalanceLimit => Err(MintWalletError::BalanceLimit),
            BeginResult::BalanceBusy => Err(MintWalletError::BalanceBusy),
            BeginResult::NotSpared => Err(MintWalletError::NotSpared),
            BeginResult::ProofsTaken => Err(MintWalletError::ProofsTaken),
        }
    }

    /// As [`MintWallet::begin`], for a token: waits a while for open payments that would exceed the
    /// mint's limit with it. They may fail.
    pub(crate) async fn begin_receive(
        &self,
        mut operation: Operation,
    ) -> Result<Option<Operation>> {
        let inputs = &operation.data.inputs;
        operation.data.has_proven_inputs =
            self.max_balance.is_some() && self.are_proven(inputs).await;
        let begun_at = Instant::now();
        loop {
            match self.begin(operation.clone(), Vec::new()).await {
                Err(MintWalletError::BalanceBusy) if begun_at.elapsed() < BALANCE_WAIT => {
                    tokio::time::sleep(BALANCE_POLL).await;
                }
                begun => return begun,
            }
        }
    }

    pub(crate) async fn unblind(
        &self,
        outputs: PreMintSecrets,
        signatures: Vec<BlindSignature>,
    ) -> std::result::Result<Proofs, UnblindError> {
        let keys = self.client.keys(outputs.keyset_id).await.map_err(UnblindError::Mint)?;
        let unblinded = crypto::unblind(&self.client.share, outputs, signatures, keys).await;
        unblinded.map_err(UnblindError::Signatures)
    }

    /// Stores the end of a swap that the mint has done.
    pub(crate) async fn complete_swap(
        &self,
        operation: &Operation,
        outputs: Proofs,
    ) -> Result<Box<Operation>> {
        let fee = total(&operation.data.inputs).saturating_sub(total(&outputs));
        Ok(Box::new(self.store.complete(operation, outputs, fee, 0).await?))
    }

    pub(crate) fn token(&self, proofs: Proofs) -> Token {
        Token::new(self.client.url.clone(), proofs, None, CurrencyUnit::Sat)
    }

    /// Whether the mint has called one of the token's proofs spent lately.
    pub(crate) fn is_known_spent(&self, token_info: &TokenInfo) -> bool {
        self.client.spent.contains_any(token_info.ys.iter().map(ProofY::as_str))
    }

    /// Whether every proof carries a valid DLEQ proof, by the keys that are known without a request.
    pub(crate) async fn is_proven(&self, token: &ReadToken) -> bool {
        let Some(keysets) = self.client.known_keysets().await else { return false };
        let Some(proofs) = proofs_of_keysets(token, &keysets) else { return false };
        let mut keyed = Vec::new();
        for proof in proofs {
            let keys = self.client.known_keys(proof.keyset_id).await;
            let key = keys.and_then(|keys| keys.keys.amount_key(proof.amount));
            match key.filter(|_| proof.dleq.is_some()) {
                Some(key) => keyed.push(KeyedProof { proof, key }),
                None => return false,
            }
        }
        crypto::are_dleqs_valid(&self.client.share, keyed).await
    }

    /// Whether every one of these carries a valid DLEQ proof. Those that cannot be checked now do not.
    async fn are_proven(&self, proofs: &[Proof]) -> bool {
        proofs.iter().all(|proof| proof.dleq.is_some())
            && matches!(self.verify_dleqs(proofs).await, Ok(true))
    }

    /// The first of these proofs that the mint cannot have signed: its keyset has no key for the amount.
    /// Those with a DLEQ proof are left to [`MintWallet::verify_dleqs`], and those whose keys cannot be
    /// loaded to the mint.
    pub(crate) async fn find_unsignable<'a>(&self, proofs: &'a [Proof]) -> Option<&'a Proof> {
        for proof in proofs.iter().filter(|proof| proof.dleq.is_none()) {
            let Some(keyset) = self.client.loadable_keys(proof.keyset_id).await else { continue };
            if keyset.keys.amount_key(proof.amount).is_none() {
                return Some(proof);
            }
        }
        None
    }

    /// Whether every DLEQ proof is valid for the mint's keys. Proofs without one pass.
    pub(crate) async fn verify_dleqs(
        &self,
        proofs: &[Proof],
    ) -> std::result::Result<bool, MintError> {
        let mut keyed = Vec::new();
        for proof in proofs.iter().filter(|proof| proof.dleq.is_some()) {
            match self.client.keys(proof.keyset_id).await?.keys.amount_key(proof.amount) {
                Some(key) => keyed.push(KeyedProof { proof: proof.clone(), key }),
                None => return Ok(false),
            }
        }
        Ok(crypto::are_dleqs_valid(&self.client.share, keyed).await)
    }
}

/// How an operation ended that is stored, and may have been requested. Whatever goes wrong from then
/// on says nothing of what the mint has done: the operation stays open. A failure of the store
/// itself is left to the caller, who knows that the operation may be stored.
pub(crate) fn leave_open(result: Result<OperationOutcome>) -> Result<OperationOutcome> {
    match result {
        Err(MintWalletError::Mint(error)) => Ok(OperationOutcome::Unknown(error.into())),
        Err(error) if !matches!(error, MintWalletError::Store(_)) => {
            Ok(OperationOutcome::Unknown(Unresolved::Check(Box::new(error))))
        }
        result => result,
    }
}

/// Why blind signatures could not be turned into proofs.
pub(crate) enum UnblindError {
    /// The keys are not known.
    Mint(MintError),
    Signatures(crate::error::SignatureError),
}

impl From<UnblindError> for MintWalletError {
    fn from(error: UnblindError) -> Self {
        match error {
            UnblindError::Mint(error) => error.into(),
            UnblindError::Signatures(error) => error.into(),
        }
    }
}

/// The signature of each of these blinded messages, in their order. A mint returns only those that
/// it has signed, in any order (NUT-09).
pub(crate) fn order_signatures(
    messages: &[PublicKey],
    outputs: Vec<cdk::nuts::BlindedMessage>,
    signatures: Vec<BlindSignature>,
) -> Vec<Option<BlindSignature>> {
    let mut by_message: HashMap<PublicKey, BlindSignature> =
        outputs.into_iter().map(|output| output.blinded_secret).zip(signatures).collect();
    messages.iter().map(|message| by_message.remove(message)).collect()
}
