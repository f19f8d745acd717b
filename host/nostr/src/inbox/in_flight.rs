//! Messages that are being served: several at the same time, those of one customer in turn.

use nostr_sdk::PublicKey;
use paygress_core::backend::store::LedgerError;
use std::collections::{BTreeSet, HashMap};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::task::JoinSet;

/// Messages that are served at the same time, with those that wait for their customer's earlier
/// ones. A token whose mint is slow or a ledger that waits holds up no other customer; with so many,
/// the queue waits, and the relays with it.
const MESSAGES_AT_ONCE: usize = 64;

#[derive(Default)]
pub(super) struct InFlight {
    /// Each with its number, and whether it was served.
    tasks: JoinSet<(u64, bool)>,
    /// How many there were: the number of the next one.
    begun: u64,
    /// The numbers of those that are being served, or that have failed.
    unserved: BTreeSet<u64>,
    /// Ends with each customer's latest message.
    latest: HashMap<PublicKey, oneshot::Receiver<()>>,
}

impl InFlight {
    pub(super) fn has_room(&self) -> bool {
        self.tasks.len() < MESSAGES_AT_ONCE
    }

    /// How many messages there were.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Whether the first so many were all served. One that has failed never is: it is to be read again
    /// after a restart.
    pub(super) fn has_served(&self, first: u64) -> bool {
        self.unserved.first().is_none_or(|number| *number >= first)
    }

    /// Serves a message in a task of its own, once the customer's earlier ones are served: the same
    /// message over two relays is served once, and requests have the order in which they came.
    pub(super) fn spawn(
        &mut self,
        customer: PublicKey,
        serve: impl Future<Output = Result<(), LedgerError>> + Send + 'static,
    ) {
        self.latest.retain(|_, latest| matches!(latest.try_recv(), Err(TryRecvError::Empty)));
        let (ended, latest) = oneshot::channel();
        let earlier = self.latest.insert(customer, latest);
        let number = self.begun;
        self.begun = number.saturating_add(1);
        self.unserved.insert(number);
        self.tasks.spawn(async move {
            if let Some(earlier) = earlier {
                // An error: it has ended, in whatever way.
                let _: Result<(), _> = earlier.await;
            }
            let served = serve.await;
            if let Err(error) = &served {
                tracing::error!(%error, "a message could not be served; it is read again at the next start");
            }
            drop(ended);
            (number, served.is_ok())
        });
    }

    /// Waits until one has ended; `None` if there is none.
    pub(super) async fn ended(&mut self) -> Option<()> {
        match self.tasks.join_next().await? {
            Ok((number, true)) => {
                self.unserved.remove(&number);
            }
            Ok((_, false)) => {}
            Err(_) => {
                tracing::error!(
                    "a message's task failed; the message is read again at the next start"
                );
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nostr_sdk::Keys;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn a_message_that_takes_long_holds_up_only_those_of_its_customer() {
        let [slow, other] = [(); 2].map(|()| Keys::generate().public_key());
        let served = Arc::<Mutex<Vec<&'static str>>>::default();
        let serve = |name: &'static str, release: Option<oneshot::Receiver<()>>| {
            let served = Arc::clone(&served);
            async move {
                if let Some(release) = release {
                    release.await.unwrap();
                }
                served.lock().unwrap().push(name);
                Ok::<_, LedgerError>(())
            }
        };
        let (release, released) = oneshot::channel();
        let mut in_flight = InFlight::default();
        in_flight.spawn(slow, serve("spawn", Some(released)));
        in_flight.spawn(slow, serve("top-up", None));
        in_flight.spawn(other, serve("other", None));
        in_flight.ended().await.unwrap();
        assert_eq!(*served.lock().unwrap(), ["other"]);
        release.send(()).unwrap();
        while in_flight.ended().await.is_some() {}
        assert_eq!(*served.lock().unwrap(), ["other", "spawn", "top-up"]);
        assert!(in_flight.has_served(in_flight.begun()));
    }

    #[tokio::test]
    async fn a_message_that_could_not_be_served_is_not_forgotten() {
        let mut in_flight = InFlight::default();
        in_flight.spawn(Keys::generate().public_key(), async { Err(LedgerError::database("no")) });
        in_flight.ended().await.unwrap();
        in_flight.spawn(Keys::generate().public_key(), async { Ok(()) });
        in_flight.ended().await.unwrap();
        assert!(!in_flight.has_served(in_flight.begun()));
    }

    #[tokio::test]
    async fn messages_in_flight_and_what_is_kept_of_customers_are_bounded() {
        let mut in_flight = InFlight::default();
        while in_flight.has_room() {
            in_flight.spawn(Keys::generate().public_key(), std::future::pending());
        }
        assert_eq!(in_flight.tasks.len(), MESSAGES_AT_ONCE);
        let mut in_flight = InFlight::default();
        for _ in 0..1_000 {
            in_flight.spawn(Keys::generate().public_key(), async { Ok(()) });
            in_flight.ended().await.unwrap();
        }
        println!("1000 customers one after the other: {} are kept", in_flight.latest.len());
        assert_eq!(in_flight.latest.len(), 1);
    }
}
