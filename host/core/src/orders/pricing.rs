//! What an order would cost, before anybody pays.

use super::OrderService;
use super::decide::check_minimum;
use super::image_starts::PodImage;
use crate::backend::capacity::Tier;
use crate::backend::policy::{Context, Payment, PolicyError, PolicySet, Price, Quote};
use crate::backend::wallet::PaymentRequest;
use crate::limits;
use crate::model::ids::{Customer, ImageRef, MintUrl, OrderId};
use crate::model::login::{Login, LoginFields};
use crate::model::order::{LeaseState, OrderView, Purchase};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::run::Run;
use crate::model::secret::Secret;
use crate::model::units::{Sat, Seconds, UnixTime};
use std::time::Instant;

/// How often a price is doubled until the duration policy takes it.
const PRICE_STEPS: u32 = 16;

/// What an order would cost, by the active policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceEstimate {
    /// What the pod is; none of another customer's, whose price alone is for whoever extends it.
    pub tier: Option<Tier>,
    /// What it costs.
    pub price: Price,
    /// How long it would live.
    pub seconds: Seconds,
    /// What must be left of the payment after the mint's fee.
    pub amount: Sat,
}

/// Asks the duration policy about payments that nobody has made yet.
struct PriceProbe<'a> {
    set: &'a dyn PolicySet,
    view: &'a OrderView,
    quote: &'a Quote,
    context: &'a Context,
    mint: MintUrl,
}

impl PriceProbe<'_> {
    /// The time that this amount would buy, or why not; none: it is too little.
    async fn buys(&self, amount: Sat) -> Result<Option<Result<Seconds, Refusal>>, Refusal> {
        let mint = self.mint.clone();
        let payment = Payment { mint, gross: amount, fee: Sat(0), net: amount };
        match self.set.grant(self.view, self.quote, &payment, self.context).await {
            Ok(grant) => Ok(Some(Ok(grant.seconds))),
            Err(PolicyError::Refused(refusal))
                if refusal.code == ErrorType::InsufficientPayment =>
            {
                Ok(None)
            }
            Err(PolicyError::Refused(refusal)) => Ok(Some(Err(refusal))),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The least sufficient amount from this one on, and what it buys: a quoted amount is never
    /// refused as too little.
    async fn enough(&self, amount: Sat) -> Result<(Sat, Seconds), Refusal> {
        let (mut little, mut much) = (None, amount);
        let mut bought = self.buys(much).await?;
        for _ in 0..PRICE_STEPS {
            if bought.is_some() {
                break;
            }
            (little, much) = (Some(much), Sat(much.0.saturating_mul(2)));
            bought = self.buys(much).await?;
        }
        let none = || {
            Refusal::new(
                ErrorType::ResourceUnavailable,
                "the operator's policies take no payment for this now",
            )
        };
        let mut bought = bought.ok_or_else(none)?;
        // Nearly always the first amount suffices: then there is nothing to narrow.
        while let Some(less) = little
            && much.minus(less) > Sat(1)
        {
            let middle = Sat(less.0.midpoint(much.0));
            match self.buys(middle).await? {
                Some(there) => (much, bought) = (middle, there),
                None => little = Some(middle),
            }
        }
        Ok((much, bought?))
    }
}

impl OrderService {
    /// What this purchase would cost this customer now: for the wanted time, or the one that is
    /// suggested.
    ///
    /// # Errors
    /// What an order of it would be refused with, before its token is looked at.
    pub async fn price(
        &self,
        purchase: &Purchase,
        wanted: Option<Seconds>,
        customer: Option<&Customer>,
    ) -> Result<PriceEstimate, Refusal> {
        self.check_offered(purchase).await?;
        let set = self.backends.policy.current();
        let (context, free) = self.context(customer, None).await?;
        let (view, named) = self.view_of(purchase, customer, &*set, &context).await?;
        let quote = set.quote(&view, &context).await?;
        if let Purchase::Spawn { .. } = purchase {
            if let Some(image) = named {
                let image = PodImage::new(&image, &quote.tier, purchase.run());
                self.image_starts.check(&image, Instant::now())?;
            }
            self.check_probe(&set).await?;
            self.check_for_sale(&Tier::from(&quote), free.as_ref()).await?;
        }
        let mint = self.backends.wallet.mints().into_iter().next();
        let probe = PriceProbe {
            set: &*set,
            view: &view,
            quote: &quote,
            context: &context,
            mint: mint.unwrap_or_else(MintUrl::of_dry_run),
        };
        let least = quote.minimum.max(Sat(1));
        let amount = quote.price.costs(wanted.unwrap_or(self.settings.suggested)).max(least);
        let (amount, seconds) = match probe.enough(amount).await {
            // What is suggested is more than there may be: the least that there is.
            Err(refusal) if wanted.is_none() && refusal.code == ErrorType::InvalidRequest => {
                probe.enough(least).await?
            }
            priced => priced?,
        };
        Ok(PriceEstimate {
            tier: (!view.extends_of_another()).then(|| Tier::from(&quote)),
            price: quote.price,
            seconds,
            amount,
        })
    }

    /// What the policies see of an order of this purchase, if they admit it, and the image that its
    /// customer has named.
    async fn view_of(
        &self,
        purchase: &Purchase,
        customer: Option<&Customer>,
        set: &dyn PolicySet,
        context: &Context,
    ) -> Result<(OrderView, Option<ImageRef>), Refusal> {
        let order = OrderId::random();
        match purchase {
            Purchase::Spawn { .. } => {
                let view = purchase.view(&order, customer, None);
                let admitted = set.admit(&view, context).await?;
                let named = view.image.is_some().then_some(admitted);
                Ok((view, named))
            }
            Purchase::TopUp { pod } => {
                let lease = self.find_lease(pod).await?;
                if lease.state == LeaseState::Ended {
                    return Err(Refusal::new(
                        ErrorType::LeaseExpired,
                        "this pod has ended; order a new one",
                    ));
                }
                let lease = lease.view(customer, UnixTime::now());
                Ok((purchase.view(&order, customer, Some(lease)), None))
            }
        }
    }

    /// Whether a token would buy so much time of a pod now. Takes nothing.
    ///
    /// # Errors
    /// What an order with it would be refused with.
    pub async fn verify_payment(
        &self,
        token: &Secret,
        wanted: Option<Seconds>,
        customer: Option<&Customer>,
    ) -> Result<Payment, Refusal> {
        let token_info = self.backends.wallet.decode(token).await?;
        let permit =
            tokio::time::timeout(limits::VERIFY_WAIT, self.verify_slots.acquire(&token_info.mint))
                .await;
        let busy = || {
            Refusal::new(
                ErrorType::ResourceUnavailable,
                "too many tokens are being looked at; try again in a moment",
            )
        };
        let _permit = permit.ok().flatten().ok_or_else(busy)?;
        let payment = self.backends.wallet.verify_dleq(token, &token_info).await?;
        let login = Login::check(LoginFields::default())?;
        let purchase = Purchase::Spawn {
            image: None,
            tier: None,
            username: login.username,
            public_key: None,
            wanted,
            run: Run::Ssh,
            http: None,
        };
        self.check_offered(&purchase).await?;
        let view = purchase.view(&OrderId::random(), customer, None);
        let set = self.backends.policy.current();
        let (context, free) = self.context(customer, None).await?;
        let quote = set.quote(&view, &context).await?;
        self.check_probe(&set).await?;
        self.check_for_sale(&Tier::from(&quote), free.as_ref()).await?;
        set.grant(&view, &quote, &payment, &context).await?;
        check_minimum(&payment, &quote)?;
        Ok(payment)
    }

    /// The mints whose tokens are accepted.
    #[must_use]
    pub fn mints(&self) -> Vec<MintUrl> {
        self.backends.wallet.mints()
    }

    /// A payment request for a wallet.
    #[must_use]
    pub fn payment_request(&self, request: &PaymentRequest) -> String {
        self.backends.wallet.payment_request(request)
    }

    /// The token of what a wallet posts for a payment request.
    ///
    /// # Errors
    /// `invalid_token`.
    pub async fn token_from_payload(&self, payload: &str) -> Result<Secret, Refusal> {
        self.backends.wallet.token_from_payload(payload).await
    }
}
