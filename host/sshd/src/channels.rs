//! The open channels of one connection, shared by its handler and the tasks that serve them.

use crate::input::{self, InputReceiver, InputSender};
use crate::session_channel::SessionChannel;
use russh::ChannelId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

struct Channel {
    /// Until the client sends EOF.
    input: Option<InputSender>,
    /// Until somebody serves the channel.
    receiver: Option<InputReceiver>,
    /// Its receivers notice when it is dropped with the channel.
    open: watch::Sender<()>,
    /// The client has closed it before anybody served it.
    is_closed: bool,
    /// Of a session channel.
    session: Option<SessionChannel>,
}

impl Channel {
    fn new(session: Option<SessionChannel>) -> Self {
        let (input, receiver) = input::queue();
        let open = watch::Sender::new(());
        Self { input: Some(input), receiver: Some(receiver), open, is_closed: false, session }
    }

    /// What a task will serve, with what has arrived, although the client may be done.
    fn is_awaited(&self) -> bool {
        self.session.is_none() && self.receiver.is_some()
    }
}

#[derive(Default)]
struct Open {
    channels: HashMap<ChannelId, Channel>,
    /// With the connection: no more are opened.
    are_closed: bool,
}

#[derive(Default)]
pub(crate) struct Channels {
    open: Mutex<Open>,
    had_terminal: AtomicBool,
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session channel unless this many are open; `false` then.
    pub(crate) fn open_session(&self, id: ChannelId, session: SessionChannel, most: usize) -> bool {
        let mut open = self.lock();
        let sessions = open.channels.values().filter(|channel| channel.session.is_some());
        let has_room = sessions.count() < most;
        if has_room {
            open.channels.insert(id, Channel::new(Some(session)));
        }
        has_room
    }

    /// Adds a channel that is not a session; its input may arrive before its task knows of it.
    pub(crate) fn expect(&self, id: ChannelId) {
        let mut open = self.lock();
        if !open.are_closed {
            open.channels.entry(id).or_insert_with(|| Channel::new(None));
        }
    }

    /// [`serve`](Self::serve) for a channel that the server has opened: this may run before
    /// [`expect`](Self::expect) does.
    pub(crate) fn adopt(&self, id: ChannelId) -> Option<(InputReceiver, watch::Receiver<()>)> {
        self.expect(id);
        self.serve(id)
    }

    /// The input of a channel, and what notices its end.
    pub(crate) fn serve(&self, id: ChannelId) -> Option<(InputReceiver, watch::Receiver<()>)> {
        let mut open = self.lock();
        let channel = open.channels.get_mut(&id)?;
        let served = (channel.receiver.take()?, channel.open.subscribe());
        let closed = if channel.is_closed { open.channels.remove(&id) } else { None };
        drop(open);
        drop(closed);
        Some(served)
    }

    /// Forgets a channel; whoever serves it, or will, notices.
    pub(crate) fn close(&self, id: ChannelId) {
        let mut open = self.lock();
        if let Some(channel) = open.channels.get_mut(&id).filter(|channel| channel.is_awaited()) {
            channel.input = None;
            channel.is_closed = true;
            return;
        }
        let closed = open.channels.remove(&id);
        // The lock is released before what notices runs.
        drop(open);
        drop(closed);
    }

    pub(crate) fn close_all(&self) {
        let mut open = self.lock();
        open.are_closed = true;
        let closed = std::mem::take(&mut open.channels);
        drop(open);
        drop(closed);
    }

    pub(crate) fn end_input(&self, id: ChannelId) {
        if let Some(channel) = self.lock().channels.get_mut(&id) {
            channel.input = None;
        }
    }

    pub(crate) fn input(&self, id: ChannelId) -> Option<InputSender> {
        self.lock().channels.get(&id)?.input.clone()
    }

    pub(crate) fn is_any_full(&self) -> bool {
        self.lock()
            .channels
            .values()
            .filter_map(|channel| channel.input.as_ref())
            .any(InputSender::is_full)
    }

    /// A program of this connection has a terminal.
    pub(crate) fn set_had_terminal(&self) {
        self.had_terminal.store(true, Ordering::Relaxed);
    }

    /// Whether a program of this connection has, or has had, a terminal.
    pub(crate) fn had_terminal(&self) -> bool {
        self.had_terminal.load(Ordering::Relaxed)
    }

    /// Calls `work` with a session channel, if it is one.
    pub(crate) fn with_session<T>(
        &self,
        id: ChannelId,
        work: impl FnOnce(&mut SessionChannel) -> T,
    ) -> Option<T> {
        self.lock().channels.get_mut(&id)?.session.as_mut().map(work)
    }
}
