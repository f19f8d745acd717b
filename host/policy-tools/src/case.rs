//! One call of a function with all its input, as authors write it.

use crate::function::Function;
use paygress_core::backend::policy::{
    Context, CustomerHistory, Grant, LeaseView, Payment, Placement, Price, Quote, Resources, Slot,
    Utilisation,
};
use paygress_core::model::ids::{ImageRef, MintUrl, TierId};
use paygress_core::model::order::OrderView;
use paygress_core::model::units::{Msat, Sat, Seconds, UnixTime};
use paygress_policy::{Call, CallRecord, Harness, WrongSlot, sample_placement};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A function, and everything that its result may depend on. The JSON form is what authors write in
/// `order.json` and `suite.yaml`: it stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestCase {
    #[serde(rename = "ask")]
    pub function: Function,
    pub order: OrderView,
    pub context: Context,
    pub payment: Payment,
    /// What the pricing policy returned.
    pub quote: Quote,
    /// What the duration policy returned.
    pub grant: Grant,
    pub placement: Placement,
}

/// What is wrong with a test case.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    #[error("an order is a JSON object")]
    NotAnObject,
    #[error("{path}: there is no such field; the fields are {}", .fields.join(", "))]
    UnknownField {
        /// A JSON Pointer.
        path: String,
        fields: Vec<String>,
    },
    #[error(transparent)]
    Invalid(#[from] serde_json::Error),
    #[error("/ask: {function} is not a function of the slot {slot}")]
    WrongSlot { function: Function, slot: Slot },
}

/// Noon on 2026-01-01: the same result every day.
const SAMPLE_TIME: UnixTime = UnixTime(1_767_268_800);

impl TestCase {
    /// An ordinary order: a new pod, without special requirements, 60 sat for an hour.
    #[must_use]
    pub fn sample(slot: Slot) -> Self {
        let resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };
        let order = OrderView {
            id: "sample".to_owned(),
            customer: "c".repeat(64),
            username: "alice".to_owned(),
            ..OrderView::default()
        };
        Self {
            function: Function::main_of(slot),
            order,
            context: Context {
                now: SAMPLE_TIME,
                capacity_leases: 100,
                active_leases: 10,
                customer_leases: Vec::new(),
                history: Some(CustomerHistory::default()),
                utilisation: None,
            },
            payment: Payment {
                mint: MintUrl::of_test_case(),
                gross: Sat(61),
                fee: Sat(1),
                net: Sat(60),
            },
            quote: Quote {
                tier: TierId::of_test_case(),
                resources,
                price: Price { msat: Msat(1_000), seconds: Seconds(60) },
                minimum: Sat(1),
            },
            grant: Grant { seconds: Seconds(3_600), note: None },
            placement: sample_placement(ImageRef::of_test_case(), resources),
        }
    }

    /// The sample with the changes that an author wrote.
    ///
    /// # Errors
    /// [`CaseError`].
    pub fn from_changes(slot: Slot, changes: &Value) -> Result<Self, CaseError> {
        if !changes.is_object() {
            return Err(CaseError::NotAnObject);
        }
        let mut whole = Self::sample(slot).with_all_names();
        // The sample extends no lease, so it has none whose fields could be changed; nor does it have
        // nodes.
        for (pointer, value) in [
            ("/order/extends", json!(own_lease("lease0"))),
            ("/context/utilisation", json!(Utilisation::default())),
        ] {
            if changes.pointer(pointer).is_some_and(Value::is_object)
                && let Some(field) = whole.pointer_mut(pointer)
            {
                *field = value;
            }
        }
        merge(&mut whole, changes, "")?;
        let case: Self = serde_json::from_value(whole)?;
        match case.function.slot() == slot {
            true => Ok(case),
            false => Err(CaseError::WrongSlot { function: case.function, slot }),
        }
    }

    /// As authors write it, and what is left out of stored orders where it is the default.
    pub(crate) fn with_all_names(&self) -> Value {
        let mut whole = json!(self);
        let Self { context, placement, .. } = self;
        for (parent, name, value) in [
            ("/context", "history", json!(context.history)),
            ("/context", "utilisation", json!(context.utilisation)),
            ("/placement", "access", json!(placement.access)),
        ] {
            if let Some(parent) = whole.pointer_mut(parent).and_then(Value::as_object_mut) {
                parent.insert(name.to_owned(), value);
            }
        }
        whole
    }

    /// Calls the function.
    ///
    /// # Errors
    /// The component is for another slot.
    pub fn run(&self, harness: &Harness) -> Result<CallRecord, WrongSlot> {
        let Self { function, order, context, payment, quote, grant, placement } = self;
        harness.call(match function {
            Function::Admit => Call::Admit { order, context },
            Function::Catalog => Call::Catalog { context },
            Function::Offers => Call::Offers { context },
            Function::Quote => Call::Quote { order, context },
            Function::Grant => Call::Grant { order, quote, payment, context },
            Function::Refund => Call::Refund { order, quote, payment, grant, context },
            Function::Render => Call::Render { order, quote, grant, placement },
        })
    }
}

/// A lease of the sample's customer, half over.
pub(crate) fn own_lease(id: &str) -> LeaseView {
    LeaseView {
        id: id.to_owned(),
        tier: TierId::of_test_case(),
        image: ImageRef::of_test_case(),
        created_at: UnixTime(SAMPLE_TIME.0.saturating_sub(1_800)),
        expires_at: UnixTime(SAMPLE_TIME.0.saturating_add(1_800)),
        remaining: Seconds(1_800),
        owned_by_customer: true,
    }
}

/// Overwrites fields. Fields that do not exist are an error.
fn merge(base: &mut Value, changes: &Value, path: &str) -> Result<(), CaseError> {
    match (base, changes) {
        (Value::Object(base), Value::Object(changes)) => {
            for (name, value) in changes {
                let path = format!("{path}/{name}");
                let Some(field) = base.get_mut(name) else {
                    return Err(CaseError::UnknownField {
                        path,
                        fields: base.keys().cloned().collect(),
                    });
                };
                merge(field, value, &path)?;
            }
        }
        (base, changes) => *base = changes.clone(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_the_sample_with_the_changes() {
        let case = TestCase::from_changes(
            Slot::Duration,
            &json!({
                "ask": "refund", "payment": {"net": 5}, "order": {"extends": {"remaining": 7}},
                "context": {
                    "history": {"orders": 3, "first_ago": 90}, "utilisation": {"cpu_per_mille": 900},
                },
            }),
        );
        let case = case.unwrap();
        assert_eq!(case.context.utilisation, Some(Utilisation { cpu: 900, memory: 0 }));
        let history = CustomerHistory {
            orders: 3,
            first_ago: Some(Seconds(90)),
            ..CustomerHistory::default()
        };
        assert_eq!(case.context.history, Some(history));
        assert_eq!(
            (case.function, case.payment.net, case.payment.gross),
            (Function::Refund, Sat(5), Sat(61))
        );
        assert_eq!(case.order.extends.unwrap().remaining, Seconds(7));
        for (changes, reason) in [
            (json!({"ordr": {}}), "/ordr: there is no such field"),
            (json!({"order": {"teir": "x"}}), "/order/teir"),
            (json!({"context": {"history": {"paid": 1}}}), "/context/history/paid"),
            (json!({"context": {"utilisation": {"cpu": 1}}}), "/context/utilisation/cpu"),
            (json!({"ask": "render"}), "not a function of the slot duration"),
            (json!({"payment": {"net": -1}}), "-1"),
            (json!([]), "a JSON object"),
            (json!({"payment": []}), "invalid"),
        ] {
            let error = TestCase::from_changes(Slot::Duration, &changes).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn the_sample_knows_nothing_of_nodes_and_names_them() {
        let case = TestCase::from_changes(Slot::Pricing, &json!({})).unwrap();
        assert_eq!(case, TestCase::sample(Slot::Pricing));
        assert_eq!(case.context.utilisation, None);
        let written = case.with_all_names();
        assert_eq!(written.pointer("/context/utilisation"), Some(&Value::Null));
        assert_eq!(TestCase::from_changes(Slot::Pricing, &written).unwrap(), case);
    }
}
