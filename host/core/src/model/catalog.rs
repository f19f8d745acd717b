//! What is for sale at one moment.

use crate::model::decision::Offer;
use crate::model::ids::MintUrl;
use serde::{Deserialize, Serialize};

/// How full the cluster is, in thousandths of what its nodes have for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utilisation {
    pub cpu: u32,
    pub memory: u32,
}

/// An offer, and how many such pods can be had; none where that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedOffer {
    pub offer: Offer,
    pub available: Option<u32>,
}

/// What is for sale and how it is paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// What is for sale, the default tier first.
    pub offers: Vec<ListedOffer>,
    /// The mints whose tokens are accepted.
    pub mints: Vec<MintUrl>,
    /// The public key that tokens may be locked to (P2PK).
    pub p2pk_pubkey: Option<String>,
    /// Where it is known.
    pub utilisation: Option<Utilisation>,
}

impl Catalog {
    /// Whether something else is for sale than in `other`, or on other terms. That a pod more or
    /// less is available is no change; that none is, is one.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> bool {
        let terms = |catalog: &Self| -> Vec<(Offer, bool)> {
            let is_sold_out = |listed: &ListedOffer| listed.available == Some(0);
            catalog
                .offers
                .iter()
                .map(|listed| (listed.offer.clone(), is_sold_out(listed)))
                .collect()
        };
        terms(self) != terms(other)
            || self.mints != other.mints
            || self.p2pk_pubkey != other.p2pk_pubkey
    }
}
