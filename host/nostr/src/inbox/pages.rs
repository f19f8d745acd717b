//! Pages of stored wraps, counted as they come from the socket: also those that the library drops
//! before it shows them to anybody (expired, too large), which a relay counts towards its cap too.

use futures::TryStreamExt;
use nostr_sdk::pool::ConnectionMode;
use nostr_sdk::pool::transport::error::TransportError;
use nostr_sdk::pool::transport::websocket::{
    DefaultWebsocketTransport, WebSocketSink, WebSocketStream, WebSocketTransport,
};
use nostr_sdk::util::BoxedFuture;
use nostr_sdk::{JsonUtil, RelayMessage, SubscriptionId, Timestamp, Url};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a relay has sent of one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub events: usize,
    pub oldest: Option<Timestamp>,
}

/// The pages that are being read. Nobody but the relay knows the id of one.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages(Arc<Mutex<HashMap<SubscriptionId, Page>>>);

impl Pages {
    fn all(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new page, to be subscribed to.
    pub(super) fn open(&self) -> SubscriptionId {
        let id = SubscriptionId::generate();
        self.all().insert(id.clone(), Page::default());
        id
    }

    pub(super) fn contains(&self, id: &SubscriptionId) -> bool {
        self.all().contains_key(id)
    }

    /// What was sent of it; it is forgotten.
    pub(super) fn close(&self, id: &SubscriptionId) -> Page {
        self.all().remove(id).unwrap_or_default()
    }

    /// `["EVENT", "<subscription>", {…}]` and every other message.
    fn count(&self, text: &str) {
        let id = text.split('"').nth(3).filter(|_| !self.all().is_empty()).map(SubscriptionId::new);
        let Some(id) = id.filter(|id| self.contains(id)) else { return };
        let Ok(RelayMessage::Event { event, .. }) = RelayMessage::from_json(text.as_bytes()) else {
            return;
        };
        if let Some(page) = self.all().get_mut(&id) {
            page.events = page.events.saturating_add(1);
            let oldest = page.oldest.unwrap_or(event.created_at);
            page.oldest = Some(oldest.min(event.created_at));
        }
    }
}

/// The library's connections, with the events of pages counted.
#[derive(Debug)]
pub(super) struct CountingTransport(pub Pages);

impl WebSocketTransport for CountingTransport {
    fn support_ping(&self) -> bool {
        DefaultWebsocketTransport.support_ping()
    }

    fn connect<'a>(
        &'a self,
        url: &'a Url,
        mode: &'a ConnectionMode,
        timeout: Duration,
    ) -> BoxedFuture<'a, Result<(WebSocketSink, WebSocketStream), TransportError>> {
        Box::pin(async move {
            let (sink, stream) = DefaultWebsocketTransport.connect(url, mode, timeout).await?;
            let pages = self.0.clone();
            let counted = stream.inspect_ok(move |message| {
                if let Some(text) = message.as_text() {
                    pages.count(text);
                }
            });
            let counted: WebSocketStream = Box::pin(counted);
            Ok((sink, counted))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nostr_sdk::{EventBuilder, Keys, Kind};

    #[test]
    fn events_are_counted_for_their_page_only() {
        let pages = Pages::default();
        let [id, other] = [(); 2].map(|()| pages.open());
        let event = |at| {
            let event = EventBuilder::new(Kind::GiftWrap, "").custom_created_at(at);
            event.sign_with_keys(&Keys::generate()).unwrap()
        };
        for at in [7, 5, 9] {
            let at = Timestamp::from_secs(at);
            pages.count(&RelayMessage::event(id.clone(), event(at)).as_json());
            pages.count(&RelayMessage::event(SubscriptionId::new("inbox"), event(at)).as_json());
        }
        pages.count(&RelayMessage::eose(id.clone()).as_json());
        pages.count("[\"EVENT\"");
        let oldest = Some(Timestamp::from_secs(5));
        assert_eq!(pages.close(&id), Page { events: 3, oldest });
        assert!(!pages.contains(&id) && pages.contains(&other));
        assert_eq!(pages.close(&other), Page::default());
    }
}
