//! Requests for the states of several tokens' proofs as one (NUT-07): a token that comes while
//! another one's request waits for its start is in that request. A crowd costs its mint few of them,
//! and no token waits longer than for a request of its own.

use crate::error::MintError;
use crate::http::MAX_INPUTS;
use cdk::nuts::{PublicKey, State};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The states of all proofs in a request, or why they are not known.
pub(crate) type BatchStates = Result<Arc<HashMap<PublicKey, State>>, Arc<MintError>>;

/// What a token of a batch learns.
pub(crate) struct BatchAnswer {
    pub(crate) states: BatchStates,
    /// Other tokens were in the request.
    pub(crate) is_shared: bool,
}

/// What is in one request.
#[derive(Default)]
pub(crate) struct StateBatch {
    ys: HashSet<PublicKey>,
    tokens: Vec<oneshot::Sender<BatchAnswer>>,
}

impl StateBatch {
    pub(crate) fn ys(&self) -> Vec<PublicKey> {
        self.ys.iter().copied().collect()
    }

    pub(crate) fn answer(self, states: &BatchStates) {
        let is_shared = self.tokens.len() > 1;
        for token in self.tokens {
            // Its order may be refused by now.
            let _ = token.send(BatchAnswer { states: states.clone(), is_shared });
        }
    }
}

/// A token in a batch.
pub(crate) struct BatchedToken {
    pub(crate) answer: oneshot::Receiver<BatchAnswer>,
    /// Nobody makes the request yet.
    pub(crate) is_first: bool,
}

/// The batch whose request has not started. Empty: there is none.
#[derive(Default)]
pub(crate) struct NextBatch(Mutex<StateBatch>);

impl NextBatch {
    fn batch(&self) -> MutexGuard<'_, StateBatch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None if these proofs would be too many for it.
    pub(crate) fn join(&self, ys: &[PublicKey]) -> Option<BatchedToken> {
        let mut batch = self.batch();
        if batch.ys.len().saturating_add(ys.len()) > MAX_INPUTS {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        let is_first = batch.tokens.is_empty();
        batch.ys.extend(ys);
        batch.tokens.push(sender);
        Some(BatchedToken { answer, is_first })
    }

    /// What is in it; from now on there is another one.
    pub(crate) fn close(&self) -> StateBatch {
        std::mem::take(&mut *self.batch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeMint;
    use cdk::nuts::{CheckStateRequest, SecretKey};

    /// A mint at which these proofs are spent, and which refuses each request with this one; and how
    /// many proofs it was sent in each.
    async fn counted_mint(
        spent: Vec<PublicKey>,
        refused: PublicKey,
    ) -> (FakeMint, Arc<Mutex<Vec<usize>>>) {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let counted = Arc::clone(&requests);
        let mint = FakeMint::start(move |_, body| {
            let request: CheckStateRequest = serde_json::from_slice(body).unwrap();
            counted.lock().unwrap().push(request.ys.len());
            if request.ys.contains(&refused) {
                return ("400 Bad Request", r#"{"code":11000,"detail":"no"}"#.to_owned());
            }
            let state = |y: &PublicKey| match spent.contains(y) {
                true => serde_json::json!({ "Y": y, "state": "SPENT" }),
                false => serde_json::json!({ "Y": y, "state": "UNSPENT" }),
            };
            let states: Vec<_> = request.ys.iter().map(state).collect();
            ("200 OK", serde_json::json!({ "states": states }).to_string())
        })
        .await;
        (mint, requests)
    }

    #[tokio::test]
    async fn the_tokens_of_a_crowd_share_requests_and_each_learns_its_own_state() {
        const TOKENS: usize = 100;
        let tokens: Vec<[PublicKey; 2]> =
            (0..TOKENS).map(|_| [(); 2].map(|()| SecretKey::generate().public_key())).collect();
        let none = SecretKey::generate().public_key();
        let (mint, requests) = counted_mint(vec![tokens[7][1]], none).await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = mint.wallet(directory.path()).await;
        let requested = tokens.iter().map(|ys| wallet.client.states_of_token(ys));
        for (number, states) in futures::future::join_all(requested).await.into_iter().enumerate() {
            let second = if number == 7 { State::Spent } else { State::Unspent };
            assert_eq!(states.unwrap(), [State::Unspent, second], "{number}");
        }
        let spent = |y: &PublicKey| wallet.client.spent.contains_any([y.to_hex()]);
        assert!(spent(&tokens[7][1]) && !spent(&tokens[7][0]) && !spent(&tokens[8][1]));
        let requests = requests.lock().unwrap();
        println!("the states of {TOKENS} tokens: {requests:?} proofs in a request");
        assert_eq!(requests.iter().sum::<usize>(), 2 * TOKENS);
        assert_eq!(requests.len(), 1, "all of them came before the first has started");
    }

    #[tokio::test]
    async fn a_token_that_its_mint_refuses_spoils_no_other_one() {
        let [good, refused] = [(); 2].map(|()| SecretKey::generate().public_key());
        let (mint, requests) = counted_mint(Vec::new(), refused).await;
        let directory = tempfile::tempdir().unwrap();
        let client = mint.wallet(directory.path()).await.client;
        let (ours, theirs) = ([good], [refused]);
        let (ours, theirs) =
            tokio::join!(client.states_of_token(&ours), client.states_of_token(&theirs));
        assert_eq!(ours.unwrap(), [State::Unspent]);
        assert!(matches!(&*theirs.unwrap_err(), MintError::Rejected { .. }));
        assert_eq!(*requests.lock().unwrap(), [2, 1, 1]);
        // Whoever was alone in it has its answer.
        assert!(client.states_of_token(&[refused]).await.is_err());
        assert_eq!(*requests.lock().unwrap(), [2, 1, 1, 1]);
    }

    #[tokio::test]
    async fn the_states_of_each_token_are_requested_where_a_mint_shortens_long_lists() {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let counted = Arc::clone(&requests);
        let mint = FakeMint::start(move |_, body| {
            let request: CheckStateRequest = serde_json::from_slice(body).unwrap();
            counted.lock().unwrap().push(request.ys.len());
            let first = serde_json::json!({ "Y": request.ys[0], "state": "UNSPENT" });
            ("200 OK", serde_json::json!({ "states": [first] }).to_string())
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let client = mint.wallet(directory.path()).await.client;
        let (first, second) = [(); 2].map(|()| [SecretKey::generate().public_key()]).into();
        let (first, second) =
            tokio::join!(client.states_of_token(&first), client.states_of_token(&second));
        assert_eq!((first.unwrap(), second.unwrap()), (vec![State::Unspent], vec![State::Unspent]));
        assert_eq!(*requests.lock().unwrap(), [2, 1]);
    }

    #[tokio::test]
    async fn tokens_of_more_proofs_than_a_request_may_have_are_in_several() {
        let proofs = |count: usize| -> Vec<PublicKey> {
            (0..count).map(|_| SecretKey::generate().public_key()).collect()
        };
        let (many, few) = (proofs(MAX_INPUTS), proofs(1));
        let (mint, requests) = counted_mint(Vec::new(), SecretKey::generate().public_key()).await;
        let directory = tempfile::tempdir().unwrap();
        let client = mint.wallet(directory.path()).await.client;
        let (first, second) =
            tokio::join!(client.states_of_token(&many), client.states_of_token(&few));
        assert_eq!((first.unwrap().len(), second.unwrap().len()), (many.len(), 1));
        let mut requests = requests.lock().unwrap().clone();
        requests.sort_unstable();
        assert_eq!(requests, [1, many.len()]);
    }
}
