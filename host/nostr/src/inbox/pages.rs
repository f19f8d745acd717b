//! Pages of stored wraps, counted as they come from the socket: also those that the library drops
//! before it shows them to anybody (expired, too large, a tag without a name), which a relay counts
//! towards its cap too.

use futures::TryStreamExt;
use nostr_sdk::pool::ConnectionMode;
use nostr_sdk::pool::transport::error::TransportError;
use nostr_sdk::pool::transport::websocket::{
    DefaultWebsocketTransport, WebSocketSink, WebSocketStream, WebSocketTransport,
};
use nostr_sdk::util::BoxedFuture;
use nostr_sdk::{SubscriptionId, Timestamp, Url};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Relays that cap their answers lower just have more pages.
pub(super) const PAGE_EVENTS: usize = 500;

/// What a relay has sent of one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub events: usize,
    /// The date of the last one, of as many as were asked for. Relays send the newest first; and some
    /// send what comes meanwhile in between: it is anybody's, and of any date.
    pub last: Option<Timestamp>,
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
        let Ok(message) = serde_json::from_str::<Value>(text) else { return };
        if message.pointer("/0").and_then(Value::as_str) != Some("EVENT") {
            return;
        }
        let date = message.pointer("/2/created_at").and_then(Value::as_u64);
        if let Some(page) = self.all().get_mut(&id) {
            page.events = page.events.saturating_add(1);
            if page.events <= PAGE_EVENTS {
                page.last = date.map(Timestamp::from_secs).or(page.last);
            }
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
    use nostr_sdk::{EventBuilder, JsonUtil, Keys, Kind, RelayMessage};

    fn last(seconds: u64) -> Option<Timestamp> {
        Some(Timestamp::from_secs(seconds))
    }

    #[test]
    fn events_are_counted_for_their_page_only() {
        let pages = Pages::default();
        let [id, other] = [(); 2].map(|()| pages.open());
        let event = |at| {
            let event = EventBuilder::new(Kind::GiftWrap, "").custom_created_at(at);
            event.sign_with_keys(&Keys::generate()).unwrap()
        };
        for at in [9, 7, 5] {
            let at = Timestamp::from_secs(at);
            pages.count(&RelayMessage::event(id.clone(), event(at)).as_json());
            pages.count(&RelayMessage::event(SubscriptionId::new("inbox"), event(at)).as_json());
        }
        pages.count(&RelayMessage::eose(id.clone()).as_json());
        pages.count("[\"EVENT\"");
        assert_eq!(pages.close(&id), Page { events: 3, last: last(5) });
        assert!(!pages.contains(&id) && pages.contains(&other));
        assert_eq!(pages.close(&other), Page::default());
    }

    /// What a relay sends of a page with these dates.
    fn page_of(dates: impl IntoIterator<Item = u64>) -> Page {
        let pages = Pages::default();
        let id = pages.open();
        for date in dates {
            // The library cannot read an event with such a tag; relays take it.
            pages.count(&format!(
                r#"["EVENT","{}",{{"created_at":{date},"tags":[[]]}}]"#,
                id.as_str()
            ));
        }
        pages.close(&id)
    }

    #[test]
    fn what_the_library_cannot_read_counts_too() {
        assert_eq!(page_of([9, 8]), Page { events: 2, last: last(8) });
    }

    #[test]
    fn a_wrap_that_is_dated_back_and_comes_meanwhile_hides_nothing() {
        assert_eq!(page_of([900, 2, 700]).last, last(700));
        // The library refuses those that are more than were asked for: they are on the next page.
        let full = (1_000..).take(PAGE_EVENTS).chain([2]);
        assert_eq!(page_of(full).last, last(1_499));
    }
}
