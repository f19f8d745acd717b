//! What the functions of the contract are called with.

use paygress_core::backend::policy::{Context, Grant, Payment, Placement, Quote, Slot};
use paygress_core::model::order::OrderView;
use paygress_policy::Call;

/// Everything that they take.
pub(crate) struct Arguments {
    pub(crate) order: OrderView,
    pub(crate) context: Context,
    pub(crate) quote: Quote,
    pub(crate) payment: Payment,
    pub(crate) grant: Grant,
    pub(crate) placement: Placement,
}

impl Arguments {
    /// A call of each function of a slot, and its name.
    pub(crate) fn calls(&self, slot: Slot) -> Vec<(&'static str, Call<'_>)> {
        let Self { order, context, quote, payment, grant, placement } = self;
        match slot {
            Slot::Images => vec![
                ("admit", Call::Admit { order, context }),
                ("catalog", Call::Catalog { context }),
            ],
            Slot::Pricing => vec![
                ("offers", Call::Offers { context }),
                ("quote", Call::Quote { order, context }),
            ],
            Slot::Duration => vec![
                ("grant", Call::Grant { order, quote, payment, context }),
                ("refund", Call::Refund { order, quote, payment, grant, context }),
            ],
            Slot::PodTemplate => vec![("render", Call::Render { order, quote, grant, placement })],
        }
    }
}
