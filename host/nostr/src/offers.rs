//! What is published: the profile, the relays that we read, and the offers.

use crate::connection::{Connection, Settings};
use crate::error::PublishError;
use crate::offer_dates::OfferDates;
use nostr_sdk::{Event, EventBuilder, Kind, Metadata, RelayUrl, Tag, TagKind, Timestamp};
use paygress_core::backend::policy::Price;
use paygress_core::backend::store::InboxStore;
use paygress_core::model::catalog::{Catalog, ListedOffer};
use paygress_core::orders::OrderService;
use paygress_core::protocol;
use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the offers are checked: a change is published within this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How often at most what is left is published, when nothing else has changed.
const FIGURES_INTERVAL: Duration = Duration::from_secs(60);
/// How often at most an event is published that relays do not replace: the operator's prices may
/// follow the demand.
const OLD_OFFER_INTERVAL: Duration = Duration::from_secs(600);
/// How often everything is published again: relays forget, and customers look for recent events.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3_600);

/// Kind of the service's offer as existing customers look for it; also NIP-69's, so that readers
/// check `d` and `t`.
pub(crate) const OFFER: u16 = 38_383;
/// NIP-99 classified listing.
const LISTING: u16 = 30_402;
/// The first version's kind, which old customers still read. Not replaceable: published when the
/// terms change only.
const OLD_OFFER: u16 = 999;

/// `d` of the offer with this kind.
pub(crate) fn identifier(key: &nostr_sdk::PublicKey) -> String {
    format!("paygress:offer:v1:{}", key.to_hex())
}

/// An event, and the relays that have not taken it yet.
struct PendingEvent {
    event: Event,
    missing: HashSet<RelayUrl>,
}

/// What is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// What relays replace.
    Replaceable,
    /// And the first version's offer, which they keep.
    WithOldOffer,
}

/// What was published last, and when.
#[derive(Default)]
struct Published {
    latest: Option<(Catalog, Instant)>,
    old_offer: Option<(Catalog, Instant)>,
}

impl Published {
    /// What of this catalog is to be published now.
    fn to_publish(&self, current: &Catalog, now: Instant) -> Option<Due> {
        let is_due = |published: Option<&(Catalog, Instant)>, within: Duration| {
            published.is_none_or(|(catalog, at)| {
                current.differs_from(catalog) && now.saturating_duration_since(*at) >= within
            })
        };
        if is_due(self.old_offer.as_ref(), OLD_OFFER_INTERVAL) {
            return Some(Due::WithOldOffer);
        }
        let due = is_due(self.latest.as_ref(), Duration::ZERO)
            || self.latest.as_ref().is_some_and(|(catalog, at)| {
                let age = now.saturating_duration_since(*at);
                age >= REFRESH_INTERVAL || (age >= FIGURES_INTERVAL && catalog != current)
            });
        due.then_some(Due::Replaceable)
    }

    fn record(&mut self, catalog: Catalog, due: Due, now: Instant) {
        if due == Due::WithOldOffer {
            self.old_offer = Some((catalog.clone(), now));
        }
        self.latest = Some((catalog, now));
    }
}

/// Publishes the offers.
pub struct OfferPublisher {
    connection: Arc<Connection>,
    dates: OfferDates,
}

impl OfferPublisher {
    #[must_use]
    pub fn new(connection: Arc<Connection>, ledger: Arc<dyn InboxStore>) -> Self {
        let kinds = [Kind::Metadata, Kind::InboxRelays, Kind::RelayList];
        let kinds = kinds.into_iter().chain([OFFER, LISTING].map(Kind::Custom)).collect();
        let dates = OfferDates::new(Arc::clone(&connection), ledger, kinds);
        Self { connection, dates }
    }

    /// Publishes at start, on change, and again after a while; until it is dropped.
    pub async fn run(mut self, orders: Arc<OrderService>) {
        if let Err(error) = self.connection.connect_sending().await {
            let error: &dyn Error = &error;
            tracing::error!(error, "the relays cannot be connected to");
        }
        let mut published = Published::default();
        let mut pending: Vec<PendingEvent> = Vec::new();
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        let mut policies = orders.policy_changes();
        loop {
            tokio::select! {
                _ = check.tick() => {}
                // The offers of a new pricing policy are published at once.
                Ok(()) = policies.changed() => {}
            }
            match orders.offers().await {
                Ok(current) => {
                    let now = Instant::now();
                    let mut due = published.to_publish(&current, now);
                    if due.is_none() && self.is_outdated(&pending).await {
                        due = Some(Due::Replaceable);
                    }
                    if let Some(due) = due
                        && let Some(events) = self.prepare(&current, due).await
                    {
                        // What a relay has not taken yet is out of date; but one old offer is due
                        // to each.
                        pending.retain(|pending| {
                            due == Due::Replaceable && pending.event.kind.as_u16() == OLD_OFFER
                        });
                        pending.extend(events);
                        published.record(current, due, now);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "no offers are published: the pricing policy failed")
                }
            }
            self.publish(&mut pending).await;
        }
    }

    /// Whether events that no relay takes are not newer than what another replica has published: they
    /// are made anew.
    async fn is_outdated(&mut self, pending: &[PendingEvent]) -> bool {
        let all = self.connection.settings.relays.len();
        let refused = pending
            .iter()
            .filter(|it| it.event.kind.as_u16() != OLD_OFFER && it.missing.len() == all);
        match refused.map(|it| it.event.created_at).min() {
            Some(oldest) => self.dates.is_outdated(oldest).await,
            None => false,
        }
    }

    /// The events to send; `None` if they cannot be made.
    async fn prepare(&mut self, catalog: &Catalog, due: Due) -> Option<Vec<PendingEvent>> {
        let date = self.dates.next().await;
        match self.events(catalog, due, date) {
            Ok(events) => {
                tracing::info!(offers = catalog.offers.len(), ?due, "publishing offers");
                let relays: HashSet<RelayUrl> =
                    self.connection.settings.relays.iter().cloned().collect();
                let pending = |event| PendingEvent { event, missing: relays.clone() };
                Some(events.into_iter().map(pending).collect())
            }
            Err(error) => {
                let error: &dyn Error = &error;
                tracing::error!(error, "the offers cannot be published");
                None
            }
        }
    }

    /// Sends what is pending to the relays that have not taken it yet.
    async fn publish(&mut self, pending: &mut Vec<PendingEvent>) {
        let mut newest: Option<Timestamp> = None;
        for PendingEvent { event, missing } in pending.iter_mut() {
            let event = &*event;
            let sent = missing.iter().map(|relay| async {
                (relay.clone(), self.connection.publish(relay, event).await)
            });
            for (relay, sent) in futures::future::join_all(sent).await {
                match sent {
                    Ok(()) => {
                        missing.remove(&relay);
                        newest = newest.max(Some(event.created_at));
                    }
                    Err(error) => {
                        let error: &dyn Error = &error;
                        tracing::debug!(%relay, kind = event.kind.as_u16(), error, "not published yet")
                    }
                }
            }
        }
        pending.retain(|pending| !pending.missing.is_empty());
        if let Some(newest) = newest {
            self.dates.record(newest).await;
        }
    }

    fn events(
        &self,
        catalog: &Catalog,
        due: Due,
        date: Timestamp,
    ) -> Result<Vec<Event>, PublishError> {
        let settings = &self.connection.settings;
        let relays = || settings.relays.iter().cloned();
        let content = serde_json::to_string(&protocol::offer(catalog))?;
        let id = identifier(&settings.keys.public_key());
        let profile =
            Metadata::new().name(&settings.name).about(&settings.about).custom_field("bot", true);
        let mut builders = vec![
            EventBuilder::metadata(&profile),
            EventBuilder::new(Kind::InboxRelays, "").tags(relays().map(Tag::relay)),
            EventBuilder::relay_list(relays().map(|relay| (relay, None))),
            EventBuilder::new(Kind::Custom(OFFER), content.clone())
                .tag(Tag::identifier(&id))
                .tags(topic_tags()),
            listing(settings, catalog, &id),
        ];
        if due == Due::WithOldOffer {
            builders.push(
                EventBuilder::new(Kind::Custom(OLD_OFFER), content)
                    .tags([Tag::hashtag("paygress"), Tag::hashtag("offer")]),
            );
        }
        let sign = |builder: EventBuilder| {
            let dated = builder.custom_created_at(date);
            dated.sign_with_keys(&settings.keys).map_err(|error| PublishError::Sign(error.into()))
        };
        builders.into_iter().map(sign).collect()
    }
}

fn custom_tag(name: &'static str, values: &[&str]) -> Tag {
    Tag::custom(TagKind::custom(name), values.iter().map(|value| (*value).to_owned()))
}

fn topic_tags() -> [Tag; 3] {
    [Tag::hashtag("paygress"), Tag::hashtag("compute"), custom_tag("v", &["1"])]
}

/// The classified listing (NIP-99).
fn listing(settings: &Settings, catalog: &Catalog, id: &str) -> EventBuilder {
    let price = catalog.offers.first().map(|listed| sats_per_hour(listed.offer.price));
    let is_sold_out =
        !catalog.offers.is_empty() && catalog.offers.iter().all(ListedOffer::is_sold_out);
    let status = if is_sold_out { "sold" } else { "active" };
    EventBuilder::new(Kind::Custom(LISTING), listing_text(settings, &catalog.offers))
        .tag(Tag::identifier(id))
        .tags(topic_tags())
        .tag(custom_tag("title", &[&settings.name]))
        .tag(custom_tag("summary", &[&settings.about]))
        .tag(custom_tag("published_at", &[&nostr_sdk::Timestamp::now().to_string()]))
        .tag(custom_tag("price", &[price.as_deref().unwrap_or("0"), "SAT", "hour"]))
        .tag(custom_tag("status", &[status]))
}

/// NIP-99 has a price per period: per hour, in sat, with the fraction if there is one.
fn sats_per_hour(price: Price) -> String {
    let msat = u128::from(price.msat.0)
        .saturating_mul(3_600)
        .checked_div(u128::from(price.seconds.0))
        .unwrap_or(0);
    let (sat, rest) = (msat.checked_div(1_000).unwrap_or(0), msat.checked_rem(1_000).unwrap_or(0));
    format!("{sat}.{rest:03}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn listing_text(settings: &Settings, offers: &[ListedOffer]) -> String {
    let mut text = format!("{}\n\n", settings.about);
    for listed in offers {
        let offer = &listed.offer;
        let sold_out = if listed.is_sold_out() { " (sold out)" } else { "" };
        let (msat, seconds) = (offer.price.msat.0, offer.price.seconds.0);
        text.push_str(&format!(
            "- **{}** (`{}`): {}; {msat} msat for {seconds} s{sold_out}\n",
            offer.name, offer.id, offer.description
        ));
    }
    text.push_str("\nSend a NIP-17 message with a Cashu token to order.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::FakeStore;
    use nostr_sdk::{Client, Keys};
    use paygress_core::backend::policy::{ImageOffer, Offer};
    use paygress_core::testing;
    use serde_json::{Value, json};

    /// What version 0.1.0 published of each catalog, and itself.
    const RECORDED: &str = include_str!("../../cli/tests/fixtures/v0.1.0/wire/offers.jsonl");

    fn catalog(msat: u64, available: u32) -> Catalog {
        testing::catalog(msat, Some(available))
    }

    /// How often the offers, and how often the old offer, are published in ten minutes, of what is
    /// for sale at each check.
    fn in_ten_minutes(catalogs: impl Fn(u32) -> Catalog) -> (usize, usize) {
        let (begun, mut published) = (Instant::now(), Published::default());
        let publish = |check| {
            let now = begun.checked_add(CHECK_INTERVAL.saturating_mul(check)).unwrap();
            let current = catalogs(check);
            let due = published.to_publish(&current, now)?;
            published.record(current, due, now);
            Some(due)
        };
        let due: Vec<Due> = (0..60).filter_map(publish).collect();
        (due.len(), due.iter().filter(|due| **due == Due::WithOldOffer).count())
    }

    #[test]
    fn what_relays_keep_is_published_when_the_terms_change_and_seldom() {
        let sold_out = in_ten_minutes(|check| catalog(1_000, check % 2));
        let (offers, old_offers) = sold_out;
        println!("60 times sold out or not: {offers} offers, {old_offers} of them kept by relays");
        // Each seventh check is the first after a minute that finds the other figure.
        assert_eq!(sold_out, (9, 1), "that of the start");
        let same = in_ten_minutes(|_| catalog(1_000, 1));
        assert_eq!(same, (1, 1));
        let prices = in_ten_minutes(|check| catalog(u64::from(check), 1));
        assert_eq!(prices, (60, 1), "prices are published at once, where relays replace them");
        let image = ImageOffer { reference: "debian:13".to_owned(), description: None };
        let images = in_ten_minutes(|check| Catalog {
            images: if check % 2 == 0 { Vec::new() } else { vec![image.clone()] },
            ..catalog(1_000, 1)
        });
        assert_eq!(images, (60, 1), "and so is a list that comes and goes");
    }

    #[test]
    fn other_terms_reach_old_customers_in_time() {
        let (now, mut published) = (Instant::now(), Published::default());
        published.record(catalog(1_000, 1), Due::WithOldOffer, now);
        assert_eq!(published.to_publish(&catalog(2_000, 1), now), Some(Due::Replaceable));
        published.record(catalog(2_000, 1), Due::Replaceable, now);
        assert_eq!(published.to_publish(&catalog(2_000, 1), now), None);
        let in_time = now.checked_add(OLD_OFFER_INTERVAL).unwrap();
        assert_eq!(published.to_publish(&catalog(2_000, 1), in_time), Some(Due::WithOldOffer));
        assert_eq!(published.to_publish(&catalog(1_000, 1), in_time), Some(Due::Replaceable));
    }

    /// With the key and the texts of the recording.
    fn publisher() -> OfferPublisher {
        let relays = ["wss://relay.example.com", "wss://relay.example.org"];
        let settings = Settings {
            keys: Keys::parse(&"07".repeat(32)).unwrap(),
            relays: relays.map(|url| RelayUrl::parse(url).unwrap()).to_vec(),
            private_relays: false,
            name: "Paygress".to_owned(),
            about: "SSH pods for Cashu tokens, by the minute".to_owned(),
        };
        let connection = Arc::new(Connection::new(settings, Client::builder().build()));
        OfferPublisher::new(connection, Arc::new(FakeStore::default()))
    }

    fn recorded_catalog(input: &Value) -> Catalog {
        let offers: Vec<Offer> = serde_json::from_value(input["offers"].clone()).unwrap();
        let list = |offer| ListedOffer { offer, available: None };
        Catalog {
            offers: offers.into_iter().map(list).collect(),
            mints: serde_json::from_value(input["mints"].clone()).unwrap(),
            p2pk_pubkey: serde_json::from_value(input["lock"].clone()).unwrap(),
            ..testing::catalog(0, None)
        }
    }

    /// Without the time at which it was made.
    fn undated(mut event: Value) -> Value {
        for tag in event["tags"].as_array_mut().unwrap() {
            if tag[0] == "published_at" {
                tag[1] = Value::Null;
            }
        }
        event
    }

    /// As it was, with the one field that every offer has since.
    fn expected(recorded: &Value) -> Value {
        let mut event = undated(recorded.clone());
        if event["kind"] == OFFER || event["kind"] == OLD_OFFER {
            let content = event["content"].as_str().unwrap().strip_suffix('}').unwrap();
            event["content"] = json!(format!("{content},\"root\":false}}"));
        }
        event
    }

    #[tokio::test]
    async fn events_have_the_kinds_tags_and_bytes_of_version_0_1_0() {
        let publisher = publisher();
        let mut compared = 0;
        for line in RECORDED.lines() {
            let recorded: Value = serde_json::from_str(line).unwrap();
            let catalog = recorded_catalog(&recorded["input"]);
            let events = publisher.events(&catalog, Due::WithOldOffer, Timestamp::now()).unwrap();
            let made = events.iter().map(|event| {
                undated(json!({
                    "kind": event.kind.as_u16(),
                    "pubkey": event.pubkey.to_hex(),
                    "tags": event.tags,
                    "content": event.content,
                }))
            });
            let recorded = recorded["events"].as_array().unwrap();
            assert_eq!(
                made.collect::<Vec<_>>(),
                recorded.iter().map(expected).collect::<Vec<_>>(),
                "{line}"
            );
            compared += recorded.len();
        }
        assert_eq!(compared, 18);
    }
}
