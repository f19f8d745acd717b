//! What an order records of its policies' decisions: their input and their output.

use paygress_core::backend::policy::{
    Context, Grant, Payment, Placement, PodDecision, PolicyTrace, Quote, RefundTerms, Rendered,
};
use paygress_core::model::ids::ImageRef;
use paygress_core::model::order::{Order, OrderState, OrderView};
use paygress_core::model::order_state::{Agreement, DecisionProgress};
use paygress_core::model::refusal::{ErrorType, Refusal};
use serde_json::{Value, json};

/// The input of the policies for an order, and their decisions.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) order: OrderView,
    pub(crate) context: Context,
    pub(crate) payment: Payment,
    pub(crate) placement: Option<Placement>,
    pub(crate) decisions: Decisions,
    /// The host refused with this code although the policies had not: it would have again.
    pub(crate) host_refusal: Option<ErrorType>,
}

/// The decisions of the four slots, in the order of their calls. The last one may be a refusal;
/// `None` after that.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decisions {
    pub(crate) image: Option<Result<ImageRef, Refusal>>,
    pub(crate) quote: Option<Result<Quote, Refusal>>,
    pub(crate) grant: Option<Result<Grant, Refusal>>,
    pub(crate) refund: Option<Result<Option<RefundTerms>, Refusal>>,
    pub(crate) template: Option<Result<Vec<Value>, Refusal>>,
}

impl Recorded {
    /// Reads them from an order; `None` if it is not decided yet, or no policy was called.
    ///
    /// The only place here that looks into an [`Order`].
    pub(crate) fn of(order: &Order) -> Option<Self> {
        if let OrderState::Refused { refusal, progress: DecisionProgress::Trace(trace) } =
            &order.state
        {
            return Some(Self::refused(trace, refusal));
        }
        let host_refusal = match &order.state {
            OrderState::Refused { refusal, .. } => Some(refusal.code),
            _ => None,
        };
        let pod = order.state.planned_pod().map(|planned| &*planned.decision);
        Some(Self::granted(order.state.agreement()?, pod, host_refusal))
    }

    fn granted(
        agreement: &Agreement,
        pod: Option<&PodDecision>,
        host_refusal: Option<ErrorType>,
    ) -> Self {
        let Agreement { payment, decision } = agreement;
        let decisions = Decisions {
            image: pod.map(|pod| Ok(pod.placement.image.clone())),
            quote: Some(Ok(decision.quote.clone())),
            grant: Some(Ok(decision.grant.clone())),
            refund: Some(Ok(decision.refund)),
            template: pod.map(|pod| Ok(parse_objects(&pod.rendered))),
        };
        let placement = pod.map(|pod| pod.placement.clone());
        Self {
            order: decision.order.clone(),
            context: decision.context.clone(),
            payment: payment.clone(),
            placement,
            decisions,
            host_refusal,
        }
    }

    fn refused(trace: &PolicyTrace, refusal: &Refusal) -> Self {
        fn refuse<T>(refusal: &Refusal) -> Option<Result<T, Refusal>> {
            Some(Err(refusal.clone()))
        }
        let PolicyTrace {
            digests: _,
            order,
            context,
            payment,
            image,
            quote,
            grant,
            refund,
            placement,
        } = trace.clone();
        let mut decisions = Decisions {
            image: image.map(Ok),
            quote: quote.map(Ok),
            grant: grant.map(Ok),
            ..Decisions::default()
        };
        let below_minimum = decisions
            .quote
            .as_ref()
            .is_some_and(|quote| quote.as_ref().is_ok_and(|quote| payment.net < quote.minimum));
        let mut host_refusal = None;
        // The first slot without a decision is the one that refused.
        match (&decisions.image, &decisions.quote, &decisions.grant, &placement) {
            (None, ..) if order.extends.is_none() => decisions.image = refuse(refusal),
            (_, None, ..) => decisions.quote = refuse(refusal),
            (_, _, None, _) => decisions.grant = refuse(refusal),
            (.., Some(_)) => {
                (decisions.refund, decisions.template) = (Some(Ok(refund)), refuse(refusal));
            }
            // The host refused: below the minimum, which a candidate may set differently…
            (.., None) if below_minimum => {}
            // …or for lack of a port, for example.
            (.., None) => host_refusal = Some(refusal.code),
        }
        Self { order, context, payment, placement, decisions, host_refusal }
    }
}

/// Parses a template and its Services: texts that are the same JSON are the same. What the pod may
/// connect to is the last, if there is something of it.
pub(crate) fn parse_objects(rendered: &Rendered) -> Vec<Value> {
    let Rendered { pod_template_json, services_json, egress } = rendered;
    let parse = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    let objects = std::iter::once(pod_template_json).chain(services_json).map(parse);
    objects.chain(egress.as_ref().map(|rules| json!({"egress": rules}))).collect()
}
