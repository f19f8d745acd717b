//! What a client has sent and its pods have not taken yet.
//!
//! A pod that does not read must not cost memory without bound, nor hold up the connection: what
//! goes the other way would wait for it, and the pod for that. russh gives every channel the same
//! window, and lets it be changed only when it is renewed
//! ([`Handler::adjust_window`](russh::server::Handler::adjust_window)): while too much waits, all
//! windows are renewed by [`limits::NARROW_WINDOW`] only, as in the pods' own server.

use crate::limits;
use crate::sessions::WaitingBytes;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// How many bytes wait in all channels of a connection.
#[derive(Clone)]
pub(super) struct Backlog {
    bytes: Arc<watch::Sender<usize>>,
    of_lease: WaitingBytes,
}

/// The client has sent far more than its windows allow: it ignores them. Or its connections together
/// have more under way than a lease may, which is less where much waits for others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excess;

impl Backlog {
    pub(super) fn new(of_lease: WaitingBytes) -> Self {
        Self { bytes: Arc::new(watch::Sender::new(0)), of_lease }
    }

    pub(super) fn is_full(&self) -> bool {
        *self.bytes.borrow() > limits::WAITING_BYTES
    }

    fn is_excess(&self) -> bool {
        let (waiting, most) = (*self.bytes.borrow(), self.of_lease.most());
        let of_one = most.clamp(limits::PIECE_BYTES, limits::WAITING_BYTES);
        waiting > limits::EXCESS_BYTES || (self.of_lease.count() > most && waiting > of_one)
    }

    /// Waits until there is room, but not for ever: other channels must go on.
    pub(super) async fn pace(&self) -> Result<(), Excess> {
        if self.is_excess() {
            return Err(Excess);
        }
        if self.is_full() {
            let mut waiting = self.bytes.subscribe();
            let has_room = waiting.wait_for(|bytes| *bytes <= limits::WAITING_BYTES);
            let _ = tokio::time::timeout(limits::PACE, has_room).await;
        }
        Ok(())
    }

    fn add(&self, bytes: usize) {
        self.bytes.send_modify(|waiting| *waiting = waiting.saturating_add(bytes));
        self.of_lease.add(bytes);
    }

    fn remove(&self, bytes: usize) {
        self.bytes.send_modify(|waiting| *waiting = waiting.saturating_sub(bytes));
        self.of_lease.remove(bytes);
    }

    /// The two ends of a channel's input.
    pub(super) fn queue(&self) -> (InputSender, InputReceiver) {
        let (bytes, receiver) = mpsc::unbounded_channel();
        let sender = InputSender { bytes, backlog: self.clone() };
        (sender, InputReceiver { bytes: receiver, backlog: self.clone() })
    }
}

pub(super) struct InputSender {
    bytes: mpsc::UnboundedSender<Bytes>,
    backlog: Backlog,
}

impl InputSender {
    /// Queues a packet; what nobody will read is dropped.
    pub(super) fn push(&self, data: &[u8]) {
        // Counted first: the receiver may take it at once.
        self.backlog.add(data.len());
        if self.bytes.send(Bytes::copy_from_slice(data)).is_err() {
            self.backlog.remove(data.len());
        }
    }
}

pub(super) struct InputReceiver {
    bytes: mpsc::UnboundedReceiver<Bytes>,
    backlog: Backlog,
}

impl InputReceiver {
    /// The next piece; none when the client sends no more.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let bytes = self.bytes.recv().await?;
        self.backlog.remove(bytes.len());
        Some(bytes)
    }
}

impl Drop for InputReceiver {
    fn drop(&mut self) {
        self.bytes.close();
        while let Ok(bytes) = self.bytes.try_recv() {
            self.backlog.remove(bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::Sessions;
    use paygress_core::model::ids::PodName;

    /// Of a lease that has no other connections.
    fn backlog() -> Backlog {
        Backlog::new(WaitingBytes::default())
    }

    #[tokio::test]
    async fn a_client_that_is_ahead_is_slowed_and_loses_nothing() {
        let backlog = backlog();
        let (sender, mut receiver) = backlog.queue();
        let piece = vec![7; limits::PIECE_BYTES];
        let pieces = limits::WAITING_BYTES / piece.len() + 2;
        for _ in 0..pieces {
            sender.push(&piece);
            assert_eq!(backlog.pace().await, Ok(()));
        }
        assert!(backlog.is_full());
        for _ in 0..pieces {
            assert_eq!(receiver.next().await.as_deref(), Some(&piece[..]));
        }
        assert!(!backlog.is_full());
        drop(sender);
        assert_eq!(receiver.next().await, None);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_channel_that_is_gone() {
        let backlog = backlog();
        let ((sender, receiver), (_other, _)) = (backlog.queue(), backlog.queue());
        sender.push(&vec![7; 2 * limits::WAITING_BYTES]);
        assert!(backlog.is_full());
        drop(receiver);
        assert!(!backlog.is_full());
        sender.push(&vec![7; 2 * limits::WAITING_BYTES]);
        assert!(!backlog.is_full());
    }

    #[tokio::test]
    async fn a_client_that_ignores_its_windows_is_found_out() {
        let backlog = backlog();
        let (sender, _receiver) = backlog.queue();
        sender.push(&vec![7; limits::EXCESS_BYTES + 1]);
        assert_eq!(backlog.pace().await, Err(Excess));
    }

    #[tokio::test]
    async fn so_much_is_under_way_in_all_however_many_leases_there_are() {
        let sessions = Sessions::default();
        let stalled = |lease: char| {
            let pod = PodName::parse(format!("ssh-pod-{}", lease.to_string().repeat(10))).unwrap();
            let place = sessions.begin(&pod).unwrap();
            let backlog = Backlog::new(place.waiting());
            let (sender, receiver) = backlog.queue();
            sender.push(&vec![7; limits::EXCESS_BYTES]);
            (backlog, sender, (receiver, place))
        };
        let mut all: Vec<_> = ('a'..='c').map(stalled).collect();
        assert_eq!(all[0].0.pace().await, Ok(()), "more than half of it is free");
        all.extend(('d'..='h').map(stalled));
        for (backlog, ..) in &all {
            assert_eq!(backlog.pace().await, Err(Excess));
        }
        let place = sessions.begin(&PodName::parse("ssh-pod-zzzzzzzzzz").unwrap()).unwrap();
        // However many connections there are, their sum is bounded.
        for (bytes, expected) in
            [(2, Ok(())), (limits::PIECE_BYTES, Ok(())), (limits::PIECE_BYTES + 1, Err(Excess))]
        {
            let backlog = Backlog::new(place.waiting());
            let (sender, _receiver) = backlog.queue();
            sender.push(&vec![7; bytes]);
            assert_eq!(backlog.pace().await, expected, "{bytes}");
        }
        let last = all.pop().unwrap();
        drop(all);
        assert_eq!(last.0.pace().await, Ok(()), "what is gone waits no longer");
    }

    /// So many connections as a lease may have would otherwise use up the memory of all.
    #[tokio::test]
    async fn a_lease_has_so_much_under_way_however_many_connections_it_has() {
        const CONNECTIONS: usize = 4;
        let of_lease = WaitingBytes::default();
        let of_each = limits::WAITING_BYTES_OF_LEASE / CONNECTIONS + 1;
        let stalled: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let backlog = Backlog::new(of_lease.clone());
                let (sender, receiver) = backlog.queue();
                sender.push(&vec![7; of_each]);
                (backlog, receiver)
            })
            .collect();
        let (quick, other) = (Backlog::new(of_lease.clone()), backlog());
        let ((keys, _keys_taken), (file, _file_taken)) = (quick.queue(), other.queue());
        keys.push(b"ls");
        file.push(&vec![7; of_each]);
        for (backlog, _) in &stalled {
            assert_eq!(backlog.pace().await, Err(Excess));
        }
        assert_eq!(quick.pace().await, Ok(()), "one in which hardly anything waits goes on");
        assert_eq!(other.pace().await, Ok(()), "one of another lease");
        drop(stalled);
        assert_eq!(of_lease.count(), b"ls".len(), "what is gone waits no longer");
    }
}
