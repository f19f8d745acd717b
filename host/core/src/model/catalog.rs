//! What is for sale at one moment.

use crate::model::access::AccessModes;
use crate::model::decision::{Digests, ImageOffer, Offer, Utilisation};
use crate::model::gateway::GatewayWays;
use crate::model::ids::{MintUrl, P2pkPubkey};

/// An offer, and how many such pods can be had; none where that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedOffer {
    pub offer: Offer,
    pub available: Option<u32>,
}

impl ListedOffer {
    #[must_use]
    pub fn is_sold_out(&self) -> bool {
        self.available == Some(0)
    }
}

/// What is for sale and how it is paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// What is for sale, the default tier first.
    pub offers: Vec<ListedOffer>,
    /// The images that may be requested, the default first; empty where the images policy has no
    /// list.
    pub images: Vec<ImageOffer>,
    /// The mints whose tokens are accepted.
    pub mints: Vec<MintUrl>,
    /// The public key that tokens may be locked to (P2PK).
    pub p2pk_pubkey: Option<P2pkPubkey>,
    /// Where it is known.
    pub utilisation: Option<Utilisation>,
    /// Whether customers are root in their pods.
    pub root: bool,
    /// Whether the image's own program may be ordered.
    pub run_image: bool,
    /// Whether their HTTP ports are served.
    pub http_ports: bool,
    /// The ways by which pods are reached.
    pub access: AccessModes,
    /// How the gateway is reached.
    pub ways: GatewayWays,
    /// The policies that decide, where receipts are signed.
    pub policies: Option<Digests>,
}

impl Catalog {
    /// Whether something else is for sale than in `other`, or on other terms. How many pods are
    /// available is no change, nor that none is: customers change that, again and again.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> bool {
        self.terms().ne(other.terms())
            || self.images != other.images
            || self.mints != other.mints
            || self.p2pk_pubkey != other.p2pk_pubkey
            || self.root != other.root
            || self.run_image != other.run_image
            || self.http_ports != other.http_ports
            || self.access != other.access
            || !self.ways.is_offered_as(&other.ways)
            || self.policies != other.policies
    }

    fn terms(&self) -> impl Iterator<Item = &Offer> {
        self.offers.iter().map(|listed| &listed.offer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OfferContent;
    use crate::testing;

    fn catalog(msat: u64, available: Option<u32>, cpu: u32) -> Catalog {
        let utilisation = Some(Utilisation { cpu, memory: 0 });
        Catalog { utilisation, ..testing::catalog(msat, available) }
    }

    #[test]
    fn figures_alone_are_no_change_of_the_offers() {
        let before = catalog(1_000, Some(7), 300);
        assert!(!catalog(1_000, Some(6), 350).differs_from(&before));
        assert!(!catalog(1_000, Some(0), 1_000).differs_from(&before), "sold out");
        assert!(catalog(2_000, Some(7), 300).differs_from(&before), "another price");
        assert!(!catalog(1_000, None, 300).differs_from(&before));
        assert!(Catalog { root: true, ..before.clone() }.differs_from(&before), "root");
        assert!(Catalog { run_image: true, ..before.clone() }.differs_from(&before), "programs");
        assert!(Catalog { http_ports: true, ..before.clone() }.differs_from(&before), "ports");
        let policies = Some(crate::model::decision::Digests::default());
        assert!(Catalog { policies, ..before.clone() }.differs_from(&before), "policies");
        let images = vec![image("debian:13", None)];
        assert!(Catalog { images, ..before.clone() }.differs_from(&before), "images");
    }

    fn image(reference: &str, description: Option<&str>) -> ImageOffer {
        ImageOffer { reference: reference.to_owned(), description: description.map(str::to_owned) }
    }

    #[test]
    fn an_offer_lists_the_images_if_there_is_a_list() {
        let without = crate::protocol::offer(&catalog(1_000, None, 0));
        let json = serde_json::to_value(&without).unwrap();
        assert!(json.get("images").is_none(), "{json}");
        assert_eq!(serde_json::from_value::<OfferContent>(json).unwrap(), without);
        let images =
            vec![image("debian:13", Some("Debian 13")), image("example.com/tools:*", None)];
        let with = crate::protocol::offer(&Catalog { images, ..catalog(1_000, None, 0) });
        let json = serde_json::to_value(&with).unwrap();
        let expected = serde_json::json!([
            {"reference": "debian:13", "description": "Debian 13"},
            {"reference": "example.com/tools:*"},
        ]);
        assert_eq!(json["images"], expected);
        assert_eq!(serde_json::from_value::<OfferContent>(json).unwrap(), with);
    }

    #[test]
    fn an_offer_says_how_many_are_left_in_whole_percent() {
        let content = crate::protocol::offer(&catalog(1_000, Some(0), 625));
        assert_eq!(content.pod_specs.first().and_then(|spec| spec.available), Some(0));
        assert_eq!(content.utilisation_percent.map(|share| share.cpu), Some(63));
        assert_eq!((content.root, content.run_image), (Some(false), None));
        let with_programs = Catalog { run_image: true, ..catalog(1_000, None, 0) };
        assert_eq!(crate::protocol::offer(&with_programs).run_image, Some(true));
        assert_eq!(content.http_ports, None);
        let with_ports = Catalog { http_ports: true, ..catalog(1_000, None, 0) };
        assert_eq!(crate::protocol::offer(&with_ports).http_ports, Some(true));
    }
}
