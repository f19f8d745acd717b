//! Leases as the operator searches for them: a page at a time, whatever their number.

use super::{OrderService, unreadable};
use crate::backend::store::{LeasePlace, LeaseStates};
use crate::limits;
use crate::model::ids::{Customer, PublicKey};
use crate::model::order::Lease;
use crate::model::refusal::Refusal;

/// Which leases are wanted.
#[derive(Clone, Debug, Default)]
pub struct LeaseQuery {
    pub states: LeaseStates,
    pub customer: Option<Customer>,
    /// The whole id of a tier.
    pub tier: Option<String>,
    /// A part of the pod's name, its npub, its image, its port or its customer, in any case.
    pub text: Option<String>,
    /// Behind this place.
    pub after: Option<LeasePlace>,
    /// So many at most.
    pub limit: usize,
}

/// A page of leases, the newest first.
#[derive(Clone, Debug)]
pub struct FoundLeases {
    pub leases: Vec<Lease>,
    /// Where the next page begins; none at the end. A page may be short, or empty, before it.
    pub next: Option<LeasePlace>,
}

impl LeaseQuery {
    fn selects(&self, lease: &Lease) -> bool {
        let is_tier = self.tier.as_deref().is_none_or(|tier| tier == lease.tier.as_str());
        is_tier && self.text.as_ref().is_none_or(|text| contains(lease, &text.to_lowercase()))
    }
}

/// Whether anything that the operator sees of it contains this text in lower case.
fn contains(lease: &Lease, text: &str) -> bool {
    let customer = lease.customer.as_ref().map(ToString::to_string).unwrap_or_default();
    let npub = lease.pod_key.as_ref().map(PublicKey::npub).unwrap_or_default();
    let port = lease.login_port().to_string();
    let shown = [lease.pod().as_str().to_owned(), npub, lease.image.to_string(), customer, port];
    shown.iter().any(|shown| shown.to_lowercase().contains(text))
}

impl OrderService {
    /// A page of leases, for the operator. Of a search that finds little, so many are looked at for
    /// a page and no more.
    ///
    /// # Errors
    /// `internal_error`.
    pub async fn find_leases(&self, query: &LeaseQuery) -> Result<FoundLeases, Refusal> {
        let mut leases: Vec<Lease> = Vec::new();
        let mut after = query.after.clone();
        for _ in 0..limits::LEASE_SEARCH_PAGES {
            let (states, of) = (query.states, query.customer.as_ref());
            let read = self.backends.ledger.lease_page(
                states,
                of,
                after.as_ref(),
                limits::LEASE_SEARCH_PAGE,
            );
            let (page, last) = read.await.map_err(|error| unreadable(&error))?;
            for lease in page.into_iter().filter(|lease| query.selects(lease)) {
                if leases.len() >= query.limit {
                    // There is one more.
                    let next = leases.last().map(LeasePlace::from);
                    return Ok(FoundLeases { leases, next });
                }
                leases.push(lease);
            }
            after = last;
            if after.is_none() {
                break;
            }
        }
        Ok(FoundLeases { leases, next: after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId, Username};
    use crate::testing;

    #[test]
    fn a_search_looks_at_what_the_operator_sees() {
        let key = "a".repeat(64);
        let lease = Lease {
            tier: testing::tier("basic"),
            image: testing::image("Debian:13"),
            port: Some(20_427),
            customer: Some(Customer::parse(&key).unwrap()),
            username: Username::parse("hidden").unwrap(),
            ..testing::lease(LeaseId::of(&OrderId::random()), 1, 2)
        };
        let is_found = |text: &str, tier: Option<&str>| {
            let (text, tier) = (Some(text.to_owned()), tier.map(str::to_owned));
            LeaseQuery { text, tier, ..LeaseQuery::default() }.selects(&lease)
        };
        for text in ["debian", "DEBIAN:13", "2042", "aaaa", lease.pod().as_str(), ""] {
            assert!(is_found(text, None) && is_found(text, Some("basic")), "{text}");
            assert!(!is_found(text, Some("bas")), "{text}");
        }
        assert!(!is_found("hidden", None) && !is_found("fedora", None));
    }
}
