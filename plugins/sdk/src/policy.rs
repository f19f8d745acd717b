//! What a policy decides, by slot: each is implemented for the struct of the policy's settings.

use crate::contract::duration::exports::paygress::policy::duration::RefundTerms;
use crate::contract::images::exports::paygress::policy::images::ImageOffer;
use crate::contract::pod_template::exports::paygress::policy::pod_template::{
    AccessMode, RenderedPod,
};
use crate::contract::types::paygress::policy::types::{
    Context, Grant, ImageRef, Offer, Order, Payment, Placement, Purpose, Quote, Refusal,
};
use crate::problem::Problems;
use crate::tier::refuse_tier;

/// Which images may run.
pub trait Images {
    /// Reports what the schema of the settings does not say.
    fn check(&self, _problems: &mut Problems) {}

    /// The image to run for this order.
    ///
    /// # Errors
    /// [`RefusalCode::ImageNotAllowed`](crate::RefusalCode::ImageNotAllowed).
    fn admit(&self, order: &Order, context: &Context) -> Result<ImageRef, Refusal>;

    /// The images that are published, the default first; none if there is no list.
    fn catalog(&self, _context: &Context) -> Vec<ImageOffer> {
        Vec::new()
    }
}

/// What is for sale.
pub trait Pricing {
    /// Reports what the schema of the settings does not say.
    fn check(&self, _problems: &mut Problems) {}

    /// The tiers for sale, the default first.
    fn offers(&self, context: &Context) -> Vec<Offer>;

    /// The price of this order: that of the offer with its tier. More time for a pod is of the pod's
    /// tier.
    ///
    /// # Errors
    /// [`RefusalCode::InvalidSpec`](crate::RefusalCode::InvalidSpec) if there is no such tier.
    fn quote(&self, order: &Order, context: &Context) -> Result<Quote, Refusal> {
        let wanted = match &order.purpose {
            Purpose::Spawn => order.tier.as_deref(),
            Purpose::Extend(lease) => Some(lease.tier.as_str()),
        };
        let offers = self.offers(context);
        let offer = match wanted {
            None => offers.first(),
            Some(id) => offers.iter().find(|offer| offer.id == id),
        };
        let Some(offer) = offer else {
            return Err(refuse_tier(offers.iter().map(|offer| offer.id.as_str())));
        };
        Ok(Quote::from(offer))
    }
}

impl From<&Offer> for Quote {
    fn from(offer: &Offer) -> Self {
        let Offer { resources, price, minimum_sat, .. } = *offer;
        Self { tier: offer.id.clone(), resources, price, minimum_sat }
    }
}

/// The duration that a payment buys.
pub trait Duration {
    /// Reports what the schema of the settings does not say.
    fn check(&self, _problems: &mut Problems) {}

    /// The duration that the net amount buys at the quoted price. The whole amount is sold, or the
    /// order refused.
    ///
    /// # Errors
    /// A refusal with one of the codes of the contract.
    fn grant(
        &self,
        order: &Order,
        quote: &Quote,
        payment: &Payment,
        context: &Context,
    ) -> Result<Grant, Refusal>;

    /// The refund when the customer stops the pod: by default all unused minutes.
    fn refund(
        &self,
        _order: &Order,
        _quote: &Quote,
        _payment: &Payment,
        _granted: &Grant,
        _context: &Context,
    ) -> RefundTerms {
        RefundTerms { step_seconds: 60, percent: 100 }
    }
}

/// The pod.
pub trait PodTemplate {
    /// Reports what the schema of the settings does not say.
    fn check(&self, _problems: &mut Problems) {}

    /// The pod, and its Services if any, for this order. `access` is how customers may reach it, and
    /// `tier` the one that was quoted.
    ///
    /// # Errors
    /// A refusal with one of the codes of the contract.
    fn render(
        &self,
        order: &Order,
        grant: &Grant,
        placement: &Placement,
        access: &[AccessMode],
        tier: &str,
    ) -> Result<RenderedPod, Refusal>;
}
