//! What is published: the profile, the relays that we read, and the offers.

use crate::connection::{Connection, Settings};
use crate::error::PublishError;
use nostr_sdk::{Event, EventBuilder, Kind, Metadata, RelayUrl, Tag, TagKind};
use paygress_core::backend::policy::Price;
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
/// How often everything is published again: relays forget, and customers look for recent events.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3_600);

/// Kind of the service's offer as existing customers look for it; also NIP-69's, so that readers
/// check `d` and `t`.
pub(crate) const OFFER: u16 = 38_383;
/// NIP-99 classified listing.
const LISTING: u16 = 30_402;
/// The first version's kind, which old customers still read. Not replaceable: published on change
/// only.
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

/// Publishes the offers.
pub struct OfferPublisher {
    connection: Arc<Connection>,
}

impl OfferPublisher {
    #[must_use]
    pub fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// Publishes at start, on change, and again after a while; until it is dropped.
    pub async fn run(self, orders: Arc<OrderService>) {
        let mut latest: Option<Catalog> = None;
        let mut pending: Vec<PendingEvent> = Vec::new();
        let mut published = Instant::now();
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
                    let age = published.elapsed();
                    let changed = latest.as_ref().is_none_or(|latest| current.differs_from(latest));
                    let due = age >= FIGURES_INTERVAL && latest.as_ref() != Some(&current);
                    if (changed || due || age >= REFRESH_INTERVAL)
                        && let Some(events) = self.prepare(&current, changed)
                    {
                        pending = events;
                        published = Instant::now();
                        latest = Some(current);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "no offers are published: the pricing policy failed")
                }
            }
            self.publish(&mut pending).await;
        }
    }

    /// The events to send; `None` if they cannot be made.
    fn prepare(&self, catalog: &Catalog, changed: bool) -> Option<Vec<PendingEvent>> {
        match self.events(catalog, changed) {
            Ok(events) => {
                tracing::info!(offers = catalog.offers.len(), changed, "publishing offers");
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
    async fn publish(&self, pending: &mut Vec<PendingEvent>) {
        for PendingEvent { event, missing } in pending.iter_mut() {
            let event = &*event;
            let sent = missing.iter().map(|relay| async {
                (relay.clone(), self.connection.publish(relay, event).await)
            });
            for (relay, sent) in futures::future::join_all(sent).await {
                match sent {
                    Ok(()) => drop(missing.remove(&relay)),
                    Err(error) => {
                        let error: &dyn Error = &error;
                        tracing::debug!(%relay, kind = event.kind.as_u16(), error, "not published yet")
                    }
                }
            }
        }
        pending.retain(|pending| !pending.missing.is_empty());
    }

    fn events(&self, catalog: &Catalog, changed: bool) -> Result<Vec<Event>, PublishError> {
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
        if changed {
            builders.push(
                EventBuilder::new(Kind::Custom(OLD_OFFER), content)
                    .tags([Tag::hashtag("paygress"), Tag::hashtag("offer")]),
            );
        }
        let sign = |builder: EventBuilder| {
            builder.sign_with_keys(&settings.keys).map_err(|error| PublishError::Sign(error.into()))
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
