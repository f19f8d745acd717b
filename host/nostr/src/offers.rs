//! What is published: the profile, where to write to us, and what is for sale.

use crate::connection::{Connection, Priority};
use nostr_sdk::{Event, EventBuilder, Kind, Metadata, RelayUrl, Tag, TagKind};
use paygress_core::backend::policy::Offer;
use paygress_core::orders::{OrderService, Catalog};
use paygress_core::protocol;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the offers are looked at: a change is published within this time.
const LOOK: Duration = Duration::from_secs(10);
/// How often everything is published again: relays forget, and customers look for what is fresh.
const REFRESH: Duration = Duration::from_secs(3_600);

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

/// The shop window.
pub struct OfferPublisher {
    connection: Arc<Connection>,
}

impl OfferPublisher {
    /// A shop window on these relays.
    #[must_use]
    pub fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// Publishes at start, on change, and again after a while; until it is dropped.
    pub async fn run(self, orders: Arc<OrderService>) {
        let mut shown: Option<Catalog> = None;
        let mut pending: Vec<(Event, HashSet<RelayUrl>)> = Vec::new();
        let mut published = Instant::now();
        let mut look = tokio::time::interval(LOOK);
        let mut policies = orders.policy_changes();
        loop {
            tokio::select! {
                _ = look.tick() => {}
                // Another pricing policy is in the window at once.
                Ok(()) = policies.changed() => {}
            }
            match orders.offers().await {
                Ok(current) => {
                    let changed = shown.as_ref() != Some(&current);
                    if changed || published.elapsed() >= REFRESH {
                        match self.events(&current, changed) {
                            Ok(events) => {
                                tracing::info!(
                                    offers = current.offers.len(),
                                    changed,
                                    "publishing offers"
                                );
                                let everywhere: HashSet<RelayUrl> =
                                    self.connection.settings.relays.iter().cloned().collect();
                                pending = events
                                    .into_iter()
                                    .map(|event| (event, everywhere.clone()))
                                    .collect();
                                published = Instant::now();
                                shown = Some(current);
                            }
                            Err(why) => tracing::error!(why, "the offers cannot be published"),
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "no offers: the pricing policy failed"),
            }
            self.publish(&mut pending).await;
        }
    }

    /// Sends what is pending to the relays that have not taken it yet.
    async fn publish(&self, pending: &mut Vec<(Event, HashSet<RelayUrl>)>) {
        for (event, missing) in pending.iter_mut() {
            let sent = missing.iter().map(|relay| async {
                (relay.clone(), self.connection.send(relay, event, Priority::Order).await)
            });
            for (relay, sent) in futures::future::join_all(sent).await {
                match sent {
                    Ok(()) => drop(missing.remove(&relay)),
                    Err(why) => {
                        tracing::debug!(%relay, kind = event.kind.as_u16(), why, "not published yet")
                    }
                }
            }
        }
        pending.retain(|(_, missing)| !missing.is_empty());
    }

    fn events(&self, window: &Catalog, changed: bool) -> Result<Vec<Event>, String> {
        let settings = &self.connection.settings;
        let relays = || settings.relays.iter().cloned();
        let offers = window.offers.as_slice();
        let content = protocol::offer(offers, &window.mints, window.lock.as_deref());
        let content = serde_json::to_string(&content).map_err(|error| error.to_string())?;
        let id = identifier(&settings.keys.public_key());
        let custom = |name: &'static str, values: &[&str]| {
            Tag::custom(TagKind::custom(name), values.iter().map(|value| (*value).to_owned()))
        };
        let marks = || [Tag::hashtag("paygress"), Tag::hashtag("compute"), custom("v", &["1"])];
        let price = offers.first().map(|offer| offer.price);
        // NIP-99 has a price per period: per hour, in sat, with the fraction if there is one.
        let sats_per_hour = price.map(|price| {
            let msat = u128::from(price.msat.0)
                .saturating_mul(3_600)
                .checked_div(u128::from(price.seconds.0))
                .unwrap_or(0);
            let (sat, rest) =
                (msat.checked_div(1_000).unwrap_or(0), msat.checked_rem(1_000).unwrap_or(0));
            format!("{sat}.{rest:03}").trim_end_matches('0').trim_end_matches('.').to_owned()
        });
        let listing = EventBuilder::new(Kind::Custom(LISTING), listing_text(settings, offers))
            .tag(Tag::identifier(&id))
            .tags(marks())
            .tag(custom("title", &[&settings.name]))
            .tag(custom("summary", &[&settings.about]))
            .tag(custom("published_at", &[&nostr_sdk::Timestamp::now().to_string()]))
            .tag(custom("price", &[sats_per_hour.as_deref().unwrap_or("0"), "SAT", "hour"]))
            .tag(custom("status", &["active"]));
        let mut builders = vec![
            EventBuilder::metadata(
                &Metadata::new()
                    .name(&settings.name)
                    .about(&settings.about)
                    .custom_field("bot", true),
            ),
            EventBuilder::new(Kind::InboxRelays, "").tags(relays().map(Tag::relay)),
            EventBuilder::relay_list(relays().map(|relay| (relay, None))),
            EventBuilder::new(Kind::Custom(OFFER), content.clone())
                .tag(Tag::identifier(&id))
                .tags(marks()),
            listing,
        ];
        if changed {
            builders.push(
                EventBuilder::new(Kind::Custom(OLD_OFFER), content)
                    .tags([Tag::hashtag("paygress"), Tag::hashtag("offer")]),
            );
        }
        builders
            .into_iter()
            .map(|builder| {
                builder.sign_with_keys(&settings.keys).map_err(|error| error.to_string())
            })
            .collect()
    }
}

fn listing_text(settings: &crate::Settings, offers: &[Offer]) -> String {
    let mut text = format!("{}\n\n", settings.about);
    for offer in offers {
        let (msat, seconds) = (offer.price.msat.0, offer.price.seconds.0);
        text.push_str(&format!(
            "- **{}** (`{}`): {}; {msat} msat for {seconds} s\n",
            offer.name, offer.id, offer.description
        ));
    }
    text.push_str("\nSend a NIP-17 message with a Cashu token to order.\n");
    text
}
