//! Recomputes, for a customer, the decisions of a receipt in the components that it names. Nothing
//! of the receipt is trusted but the inputs that only the operator can know.

use crate::component::{RejectReason, settings_digest};
use crate::engine::PolicyEngine;
use crate::harness::{Call, CallResult, Harness, WrongSlot};
use crate::set::{Source, Sources};
use paygress_core::backend::policy::{Decision, Digests, FaultKind, SettingsDigests, Slot};
use paygress_core::model::ids::HexDigest;
use paygress_core::model::units::Sat;
use paygress_core::protocol::{ReceiptKind, ReceiptOrder, sorted};
use serde_json::Value;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A field of a receipt that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDifference {
    /// Its path in the receipt's order, as `decision.grant.seconds`.
    pub field: String,
    pub receipt: String,
    pub recomputed: String,
}

/// Why a receipt cannot be recomputed.
#[derive(Debug, thiserror::Error)]
pub enum RecomputeError {
    #[error(
        "there is no component for the slot {slot} with SHA-256 {digest}; get it from the operator, and name it with --components"
    )]
    Missing { slot: Slot, digest: HexDigest },
    #[error(
        "the settings for the slot {slot} are not those of the receipt, which have SHA-256 {digest}; get them from the operator, and name them with --settings"
    )]
    OtherSettings { slot: Slot, digest: HexDigest },
    #[error("the receipt names no digests of settings")]
    NoSettings,
    #[error("the {slot} policy was rejected: {reason}")]
    Rejected { slot: Slot, reason: RejectReason },
    #[error("the {slot} policy failed: {kind}")]
    Failed { slot: Slot, kind: FaultKind },
    #[error(transparent)]
    WrongSlot(#[from] WrongSlot),
}

/// What of an order's amounts contradicts the rules of the host, without any component.
#[must_use]
pub fn check_amounts(answer: ReceiptKind, order: &ReceiptOrder) -> Vec<FieldDifference> {
    let ReceiptOrder { payment, redeemed, decision, stop_terms, refund, .. } = order;
    let mut found = Vec::new();
    let mut expect = |field: &str, receipt: &Value, expected: &Value| {
        compare(field, receipt, expected, &mut found);
    };
    let sat = |sat: &Sat| sorted(sat);
    expect("payment.net", &sat(&payment.net), &sat(&payment.gross.minus(payment.fee)));
    if payment.net < decision.quote.minimum {
        expect("payment.net", &sat(&payment.net), &sat(&decision.quote.minimum));
    }
    // None: the operator refunds no stop, whatever the policy says.
    if let (Some(terms), Some(sold_on)) = (stop_terms, &decision.refund) {
        expect("stop_terms", &sorted(terms), &sorted(sold_on));
    }
    let paid_back = refund.as_ref().map_or(Sat(0), |refund| refund.due);
    // None: it does not follow from the receipt, but that it is not more than was paid.
    let due = order.refund_due(answer).unwrap_or(paid_back.min(*redeemed));
    expect("refund.due", &sat(&paid_back), &sat(&due));
    if let Some(refund) = refund {
        let least = refund.due.minus(refund.fee);
        expect("refund.amount", &sat(&refund.amount), &sat(&refund.amount.max(least)));
    }
    found
}

/// Recomputes the orders of receipts in these components, each of which is compiled once.
pub struct Recomputer {
    engine: Arc<PolicyEngine>,
    sources: Sources,
    loaded: BTreeMap<Slot, Harness>,
}

impl Recomputer {
    #[must_use]
    pub fn new(engine: Arc<PolicyEngine>, sources: Sources) -> Self {
        Self { engine, sources, loaded: BTreeMap::new() }
    }

    /// Calls the components again for image, price, time and refund terms, each with what the receipt
    /// says the one before returned. Blocks: compiling takes seconds.
    ///
    /// # Errors
    /// [`RecomputeError`].
    pub fn recompute(
        &mut self,
        order: &ReceiptOrder,
    ) -> Result<Vec<FieldDifference>, RecomputeError> {
        let ReceiptOrder { payment, decision, image, .. } = order;
        let Decision { digests, order, context, quote, grant, refund } = decision;
        let mut found = Vec::new();
        if order.extends.is_none() {
            let images = self.load(Slot::Images, digests)?;
            let call = Call::Admit { order, context };
            compare_call(images, call, "image", &sorted(image), &mut found)?;
        }
        let pricing = self.load(Slot::Pricing, digests)?;
        let call = Call::Quote { order, context };
        compare_call(pricing, call, "decision.quote", &sorted(quote), &mut found)?;
        let duration = self.load(Slot::Duration, digests)?;
        let call = Call::Grant { order, quote, payment, context };
        compare_call(duration, call, "decision.grant", &sorted(grant), &mut found)?;
        let call = Call::Refund { order, quote, payment, grant, context };
        compare_call(duration, call, "decision.refund", &sorted(refund), &mut found)?;
        Ok(found)
    }

    /// The component of a slot, if it and its settings are those of the receipt.
    fn load(&mut self, slot: Slot, digests: &Digests) -> Result<&Harness, RecomputeError> {
        let source = source(&self.sources, slot, digests)?;
        match self.loaded.entry(slot) {
            Entry::Occupied(loaded) => Ok(loaded.into_mut()),
            Entry::Vacant(place) => {
                let Source { component, settings } = source;
                let loaded = Harness::load(&self.engine, slot, component, settings)
                    .map_err(|reason| RecomputeError::Rejected { slot, reason })?;
                Ok(place.insert(loaded))
            }
        }
    }
}

fn source<'a>(
    sources: &'a Sources,
    slot: Slot,
    digests: &Digests,
) -> Result<&'a Source, RecomputeError> {
    let settings = digests.settings.as_ref().ok_or(RecomputeError::NoSettings)?;
    let (digest, of_settings) = of_slot(slot, digests, settings);
    let is_of_receipt = |source: &&Source| HexDigest::of(&source.component) == *digest;
    let source = sources.get(&slot).filter(is_of_receipt);
    let source = source.ok_or_else(|| RecomputeError::Missing { slot, digest: digest.clone() })?;
    if settings_digest(&source.settings) != *of_settings {
        return Err(RecomputeError::OtherSettings { slot, digest: of_settings.clone() });
    }
    Ok(source)
}

fn of_slot<'a>(
    slot: Slot,
    digests: &'a Digests,
    settings: &'a SettingsDigests,
) -> (&'a HexDigest, &'a HexDigest) {
    match slot {
        Slot::Images => (&digests.images, &settings.images),
        Slot::Pricing => (&digests.pricing, &settings.pricing),
        Slot::Duration => (&digests.duration, &settings.duration),
        Slot::PodTemplate => (&digests.pod_template, &settings.pod_template),
    }
}

fn compare_call(
    component: &Harness,
    call: Call<'_>,
    field: &str,
    receipt: &Value,
    found: &mut Vec<FieldDifference>,
) -> Result<(), RecomputeError> {
    match component.call(call)?.result {
        CallResult::Returned(output) => compare(field, receipt, &sorted(&output), found),
        CallResult::Refused(refusal) => found.push(FieldDifference {
            field: field.to_owned(),
            receipt: receipt.to_string(),
            recomputed: format!("refused: {refusal}"),
        }),
        CallResult::Failed(kind) => {
            return Err(RecomputeError::Failed { slot: component.slot(), kind });
        }
    }
    Ok(())
}

/// Finds the fields, as deep as there are objects, that are not the same.
fn compare(field: &str, receipt: &Value, recomputed: &Value, found: &mut Vec<FieldDifference>) {
    match (receipt, recomputed) {
        (Value::Object(receipt), Value::Object(recomputed)) => {
            let names: BTreeSet<&String> = receipt.keys().chain(recomputed.keys()).collect();
            for name in names {
                let own = receipt.get(name).unwrap_or(&Value::Null);
                let other = recomputed.get(name).unwrap_or(&Value::Null);
                compare(&format!("{field}.{name}"), own, other, found);
            }
        }
        (receipt, recomputed) if receipt == recomputed => {}
        (receipt, recomputed) => found.push(FieldDifference {
            field: field.to_owned(),
            receipt: receipt.to_string(),
            recomputed: recomputed.to_string(),
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use paygress_core::backend::policy::{Context, Grant, LeaseView, Payment, RefundTerms};
    use paygress_core::model::ids::{ImageRef, MintUrl, TierId};
    use paygress_core::model::order::OrderView;
    use paygress_core::model::units::{Seconds, UnixTime};
    use paygress_core::protocol::ReceiptRefund;

    fn sources() -> Sources {
        let source = |slot: Slot| {
            let path = format!("{}/../../target/plugins/{slot}.wasm", env!("CARGO_MANIFEST_DIR"));
            (slot, Source::plain(std::fs::read(path).unwrap()))
        };
        Slot::ALL.into_iter().map(source).collect()
    }

    fn digests(sources: &Sources) -> Digests {
        let digest = |slot: Slot| HexDigest::of(&sources[&slot].component);
        let settings = settings_digest("{ }");
        Digests {
            images: digest(Slot::Images),
            pricing: digest(Slot::Pricing),
            duration: digest(Slot::Duration),
            pod_template: digest(Slot::PodTemplate),
            settings: Some(SettingsDigests {
                images: settings.clone(),
                pricing: settings.clone(),
                duration: settings.clone(),
                pod_template: settings,
            }),
        }
    }

    /// What the default policies decide on an ordinary order, as their receipt has it.
    fn honest(engine: &Arc<PolicyEngine>, sources: &Sources) -> ReceiptOrder {
        let order = &OrderView {
            id: "0123456789abcdef".to_owned(),
            username: "user".to_owned(),
            ..OrderView::default()
        };
        let context =
            &Context { now: UnixTime(1_800_000_000), capacity_leases: 10, ..Context::default() };
        let mint = MintUrl::of_dry_run();
        let payment = Payment { mint, gross: Sat(101), fee: Sat(1), net: Sat(100) };
        let component = |slot| {
            let Source { component, settings } = &sources[&slot];
            Harness::load(engine, slot, component, settings).unwrap()
        };
        let returned = |component: &Harness, call: Call<'_>| {
            let CallResult::Returned(output) = component.call(call).unwrap().result else {
                panic!("an ordinary order was not granted")
            };
            sorted(&output)
        };
        let image = returned(&component(Slot::Images), Call::Admit { order, context });
        let quote = returned(&component(Slot::Pricing), Call::Quote { order, context });
        let quote = serde_json::from_value(quote).unwrap();
        let duration = component(Slot::Duration);
        let call = Call::Grant { order, quote: &quote, payment: &payment, context };
        let grant: Grant = serde_json::from_value(returned(&duration, call)).unwrap();
        let call = Call::Refund { order, quote: &quote, payment: &payment, grant: &grant, context };
        let refund = returned(&duration, call);
        let refund: Option<RefundTerms> = serde_json::from_value(refund).unwrap();
        ReceiptOrder {
            redeemed: payment.net,
            payment,
            image: serde_json::from_value(image).unwrap(),
            stop_terms: refund,
            expires_at: None,
            refusal: None,
            end_reason: None,
            served_until: None,
            used: None,
            refund: None,
            decision: Decision {
                digests: digests(sources),
                order: order.clone(),
                context: context.clone(),
                quote,
                grant,
                refund,
            },
        }
    }

    fn fields(found: Vec<FieldDifference>) -> Vec<String> {
        found.into_iter().map(|difference| difference.field).collect()
    }

    #[test]
    fn the_field_that_was_not_decided_so_is_named() {
        let (engine, sources) = (PolicyEngine::start(None).unwrap(), sources());
        let honest = honest(&engine, &sources);
        let mut recomputer = Recomputer::new(engine, sources);
        assert!(recomputer.recompute(&honest).unwrap().is_empty());
        type Change = fn(&mut ReceiptOrder);
        let cases: [(&str, Change); 5] = [
            ("decision.grant.seconds", |order| {
                let seconds = &mut order.decision.grant.seconds;
                *seconds = seconds.minus(Seconds(60));
            }),
            ("decision.quote.minimum", |order| order.decision.quote.minimum = Sat(77)),
            ("decision.quote.tier", |order| {
                order.decision.quote.tier = TierId::parse("other").unwrap();
            }),
            ("image", |order| order.image = Some(ImageRef::of_test_case())),
            ("decision.refund.percent", |order| {
                order.decision.refund = Some(RefundTerms { step: Seconds(60), percent: 1 });
            }),
        ];
        for (field, change) in cases {
            let mut order = honest.clone();
            change(&mut order);
            let found = fields(recomputer.recompute(&order).unwrap());
            assert!(found.iter().any(|found| found.starts_with(field)), "{field}: {found:?}");
        }
    }

    #[test]
    fn other_components_and_settings_are_refused() {
        let (engine, sources) = (PolicyEngine::start(None).unwrap(), sources());
        let mut order = honest(&engine, &sources);
        let recompute = |order: &ReceiptOrder, sources: &Sources| {
            Recomputer::new(Arc::clone(&engine), sources.clone()).recompute(order)
        };
        let mut other = sources.clone();
        other.get_mut(&Slot::Pricing).unwrap().settings = r#"{"sats_per_hour": 1}"#.to_owned();
        let refused = recompute(&order, &other);
        assert!(
            matches!(refused, Err(RecomputeError::OtherSettings { slot: Slot::Pricing, .. })),
            "{refused:?}"
        );
        other.remove(&Slot::Pricing);
        let refused = recompute(&order, &other);
        assert!(
            matches!(refused, Err(RecomputeError::Missing { slot: Slot::Pricing, .. })),
            "{refused:?}"
        );
        order.decision.digests.settings = None;
        let refused = recompute(&order, &sources);
        assert!(matches!(refused, Err(RecomputeError::NoSettings)), "{refused:?}");
    }

    #[test]
    fn amounts_that_contradict_each_other_are_named() {
        let (engine, sources) = (PolicyEngine::start(None).unwrap(), sources());
        let honest = honest(&engine, &sources);
        let refunded = |due, amount, fee| ReceiptOrder {
            refund: Some(ReceiptRefund {
                due: Sat(due),
                amount: Sat(amount),
                fee: Sat(fee),
                made_at: UnixTime(1),
            }),
            ..honest.clone()
        };
        let (refusal, stop) = (ReceiptKind::Refusal, ReceiptKind::Stop);
        for (answer, order, expected) in [
            (refusal, refunded(100, 99, 1), &[][..]),
            // The operator bears the fees.
            (refusal, refunded(100, 101, 0), &[]),
            (refusal, refunded(90, 90, 0), &["refund.due"]),
            (refusal, refunded(100, 90, 1), &["refund.amount"]),
            (stop, refunded(50, 49, 1), &[]),
            (stop, refunded(101, 101, 0), &["refund.due"]),
        ] {
            assert_eq!(fields(check_amounts(answer, &order)), expected, "{order:?}");
        }
        let mut short = honest.clone();
        short.payment.net = Sat(99);
        assert_eq!(fields(check_amounts(ReceiptKind::Access, &short)), ["payment.net"]);
    }

    /// Ten minutes until 1600 for 100 sat, of which half is paid back after a stop.
    fn ten_minutes() -> ReceiptOrder {
        let (engine, sources) = (PolicyEngine::start(None).unwrap(), sources());
        let mut order = honest(&engine, &sources);
        let terms = Some(RefundTerms { step: Seconds(60), percent: 50 });
        (order.stop_terms, order.decision.refund) = (terms, terms);
        order.decision.grant.seconds = Seconds(600);
        order.expires_at = Some(UnixTime(1_600));
        order
    }

    fn lease_view() -> LeaseView {
        LeaseView {
            id: "0123456789abcdef".to_owned(),
            tier: TierId::parse("basic").unwrap(),
            image: ImageRef::of_test_case(),
            created_at: UnixTime(1),
            expires_at: UnixTime(1_000),
            remaining: Seconds(1),
            owned_by_customer: true,
        }
    }

    #[test]
    fn a_refund_of_a_sat_too_little_is_named() {
        let sold = ten_minutes();
        // Two minutes of it are charged.
        let stopped = ReceiptOrder { used: Some(Seconds(61)), ..sold.clone() };
        let lost = ReceiptOrder { served_until: Some(UnixTime(1_061)), ..sold.clone() };
        // Of one that extends a pod, the pod's times do not say.
        let mut extended = ReceiptOrder { used: Some(Seconds(300)), ..lost.clone() };
        extended.decision.order.extends = Some(lease_view());
        // 0.83 sat of 50, and 1.68 of what was sent.
        let until = Some(UnixTime(1_590));
        let small = ReceiptOrder { redeemed: Sat(50), served_until: until, ..sold.clone() };
        let checked = |answer, order: &ReceiptOrder, refunded: Option<u64>| {
            let refund = refunded.map(|sats| ReceiptRefund {
                due: Sat(sats),
                amount: Sat(sats),
                fee: Sat(0),
                made_at: UnixTime(1_700),
            });
            fields(check_amounts(answer, &ReceiptOrder { refund, ..order.clone() }))
        };
        let (stop, loss) = (ReceiptKind::Stop, ReceiptKind::Lost);
        for (answer, order, due) in [
            (stop, &stopped, 40_u64),
            (loss, &lost, 89),
            (stop, &lost, 89),
            (loss, &extended, 50),
            (loss, &small, 1),
        ] {
            assert_eq!(checked(answer, order, Some(due)), [""; 0], "{order:?}");
            for wrong in [None, due.checked_sub(1), due.checked_add(1)] {
                assert_eq!(checked(answer, order, wrong), ["refund.due"], "{wrong:?} {order:?}");
            }
        }
        let used_up = ReceiptOrder { used: Some(Seconds(600)), ..sold.clone() };
        assert_eq!(checked(stop, &used_up, None), [""; 0]);
        // Earlier versions did not say how much of the time was used.
        assert_eq!(checked(stop, &sold, Some(39)), [""; 0]);
    }
}
