//! What changes a wallet's balance, as it is stored. `lib.rs` draws the states.

use crate::counters::Spender;
use crate::error::{MintError, Unresolved};
use crate::purpose::Purpose;
use cdk::nuts::{Id, Proof, Proofs};
use paygress_core::model::ids::MintUrl;
use paygress_core::model::units::{Sat, UnixTime};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// It is not known yet how it ended.
    Open,
    Done,
    /// It was not done and will not be.
    Failed,
}

impl OperationState {
    const ALL: [Self; 3] = [Self::Open, Self::Done, Self::Failed];

    /// The stored form.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// The state of a stored proof, named as in cdk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProofState {
    Unspent,
    /// An input of an open operation.
    Reserved,
    /// In a token that was sent, until the token is known to be redeemed.
    PendingSpent,
}

impl ProofState {
    /// The stored form.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unspent => "unspent",
            Self::Reserved => "held",
            Self::PendingSpent => "given",
        }
    }
}

/// What an operation does, and all that is needed to repeat its request unchanged. The renamed
/// fields are the stored forms of the first version.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct OperationData {
    pub(crate) inputs: Proofs,
    /// Whether the inputs are this wallet's own.
    #[serde(rename = "own")]
    pub(crate) has_own_inputs: bool,
    /// Whether they are known to be the mint's, by their DLEQ proofs (NUT-12). Found out only where
    /// the mint's balance is limited.
    #[serde(rename = "proven", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) has_proven_inputs: bool,
    /// The outputs' keyset.
    pub(crate) keyset: Option<Id>,
    /// The derivation counter of the first output (NUT-13).
    #[serde(rename = "start")]
    pub(crate) first_counter: u32,
    /// The outputs' amounts. Those of a payment's change are zero: the mint chooses them.
    pub(crate) amounts: Vec<u64>,
    /// How many outputs, from the first, are to be sent.
    #[serde(rename = "given")]
    pub(crate) sent_outputs: usize,
    /// What it has to leave unspent at its mint when it is begun, for others. Not stored.
    #[serde(skip)]
    pub(crate) reserve: u64,
    /// The quote of a Lightning payment.
    pub(crate) quote: Option<String>,
    /// When its request was last made, or was about to be. None in those of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) requested_at: Option<UnixTime>,
    /// Which request that was, at random: two replicas may make one within the same second. None in
    /// those of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<u64>,
    /// Set when it has failed because inputs were spent elsewhere.
    pub(crate) spent_elsewhere: bool,
    /// Set when it has failed, and nothing more may be begun for its purpose: the order is refused.
    #[serde(rename = "closed", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_closed: bool,
    /// What was sent or paid, once it is done.
    #[serde(rename = "gave")]
    pub(crate) sent: u64,
    /// What the mint and Lightning kept, once it is done.
    pub(crate) fee: u64,
    /// What was added to the balance, once it is done.
    #[serde(rename = "got")]
    pub(crate) received: u64,
}

impl OperationData {
    pub(crate) fn spender(&self) -> Spender {
        if self.has_own_inputs { Spender::Wallet } else { Spender::External }
    }

    /// Its request is about to be made.
    pub(crate) fn note_request(&mut self) {
        self.requested_at = Some(UnixTime::now());
        self.request_id = getrandom::u64().ok();
    }

    /// Whether no request was made between the two.
    pub(crate) fn has_request_of(&self, other: &Self) -> bool {
        (self.requested_at, self.request_id) == (other.requested_at, other.request_id)
    }

    /// By how much its inputs are worth more than the outputs that are kept.
    pub(crate) fn cost(&self) -> u64 {
        let kept = self.amounts.iter().skip(self.sent_outputs);
        let kept = kept.fold(0_u64, |sum, amount| sum.saturating_add(*amount));
        total(&self.inputs).saturating_sub(kept)
    }
}

/// Something that changes a wallet's balance at a mint.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) purpose: Purpose,
    pub(crate) mint: MintUrl,
    pub(crate) state: OperationState,
    pub(crate) at: UnixTime,
    /// By how much it changed the balance.
    pub(crate) delta: i64,
    pub(crate) data: OperationData,
}

impl Operation {
    /// It gets its id when it is stored.
    pub(crate) fn new(purpose: Purpose, mint: &MintUrl, data: OperationData) -> Self {
        Self {
            id: String::new(),
            purpose,
            mint: mint.clone(),
            state: OperationState::Open,
            at: UnixTime::now(),
            delta: 0,
            data,
        }
    }
}

/// How an operation ended, as far as it is known.
#[derive(Debug)]
pub(crate) enum OperationOutcome {
    Done(Box<Operation>),
    /// Nothing was taken, and nothing will be; the mint's error, if this process has seen it.
    Failed(Option<MintError>),
    SpentElsewhere,
    Unknown(Unresolved),
}

/// An operation as an audit sees it.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub purpose: Purpose,
    pub mint: MintUrl,
    pub at: UnixTime,
    pub state: OperationState,
    /// What was added to the balance.
    pub received: Sat,
    /// What was sent or paid.
    pub sent: Sat,
    /// What the mint and Lightning kept.
    pub fee: Sat,
    /// By how much it changed the balance.
    pub delta: i64,
}

impl From<Operation> for Transaction {
    fn from(operation: Operation) -> Self {
        Self {
            purpose: operation.purpose,
            mint: operation.mint,
            at: operation.at,
            state: operation.state,
            received: Sat(operation.data.received),
            sent: Sat(operation.data.sent),
            fee: Sat(operation.data.fee),
            delta: operation.delta,
        }
    }
}

/// What a wallet holds at a mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintBalance {
    pub mint: MintUrl,
    pub available: Sat,
    /// Inputs of open operations.
    pub reserved: Sat,
}

impl MintBalance {
    pub(crate) fn held(&self) -> Sat {
        self.available.plus(self.reserved)
    }
}

/// What is held at this mint.
pub(crate) fn held_at(balances: &[MintBalance], mint: &MintUrl) -> Sat {
    balances.iter().find(|balance| balance.mint == *mint).map_or(Sat(0), MintBalance::held)
}

/// The value of these proofs.
pub(crate) fn total(proofs: &[Proof]) -> u64 {
    proofs.iter().fold(0, |sum, proof| sum.saturating_add(proof.amount.to_u64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operation's body as the first version wrote it.
    const STORED: &str = r#"{"inputs":[],"own":true,"keyset":"009a1f293253e41e","start":7,"amounts":[1,2],"given":1,"quote":null,"spent_elsewhere":false,"gave":1,"fee":0,"got":2}"#;

    #[test]
    fn the_stored_body_is_unchanged() {
        let data: OperationData = serde_json::from_str(STORED).unwrap();
        assert_eq!((data.has_own_inputs, data.first_counter, data.sent_outputs), (true, 7, 1));
        assert_eq!((data.sent, data.received), (1, 2));
        assert_eq!(serde_json::to_string(&data).unwrap(), STORED);
        let requested_at = Some(UnixTime(7));
        let request_id = Some(u64::MAX);
        let newer = OperationData { has_proven_inputs: true, requested_at, request_id, ..data };
        let stored = serde_json::to_string(&newer).unwrap();
        let read: OperationData = serde_json::from_str(&stored).unwrap();
        assert_eq!((read.has_proven_inputs, read.requested_at), (true, requested_at));
        assert_eq!(read.request_id, request_id);
    }

    #[test]
    fn the_stored_states_are_unchanged() {
        for (state, text) in [
            (OperationState::Open, "open"),
            (OperationState::Done, "done"),
            (OperationState::Failed, "failed"),
        ] {
            assert_eq!((state.as_str(), OperationState::from_stored(text)), (text, Some(state)));
        }
        assert_eq!(OperationState::from_stored("given"), None);
        let stored = [ProofState::Unspent, ProofState::Reserved, ProofState::PendingSpent];
        assert_eq!(stored.map(ProofState::as_str), ["unspent", "held", "given"]);
    }
}
