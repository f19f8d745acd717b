use super::*;
use crate::testing;

#[test]
fn an_order_with_a_key_alone_is_read_without_a_password() {
    let with_key = Purchase::Spawn {
        image: None,
        tier: None,
        username: Username::default(),
        public_key: Some("ssh-ed25519 AAAA".to_owned()),
        wanted: None,
        run: Run::Ssh,
        http: None,
    };
    for (purchase, is_read) in [(with_key, true), (testing::spawn(), false)] {
        let order = testing::order(purchase, State::Active).unwrap();
        let record: OrderRecord =
            serde_json::from_value(serde_json::to_value(&order).unwrap()).unwrap();
        let secrets = OrderSecrets { password: None, ..OrderSecrets::from(&order) };
        let read = record.into_order(secrets);
        assert_eq!(read.is_ok(), is_read, "{read:?}");
        assert!(read.is_err() || read.is_ok_and(|order| order.state.password().is_none()));
    }
}

/// Money depends on these: nothing is done by guessing. What only tells why is read.
#[test]
fn a_record_of_a_later_version_is_read_unless_money_depends_on_the_new_name() {
    let order = testing::order(testing::spawn(), State::RefundPending).unwrap();
    let json = serde_json::to_value(&order).unwrap();
    for field in ["state", "refund_end", "purchase"] {
        let mut json = json.clone();
        json[field] = "moved-away".into();
        let error = serde_json::from_value::<OrderRecord>(json).unwrap_err().to_string();
        assert!(error.contains("unknown variant `moved-away`"), "{field}: {error}");
    }
    let mut later = json;
    later["refusal"]["code"] = "too_hot".into();
    later["refusal"]["end_reason"] = "moved-away".into();
    let record: OrderRecord = serde_json::from_value(later.clone()).unwrap();
    let read = record.into_order(OrderSecrets::from(&order)).unwrap();
    assert_eq!(read.state.refund_due(), order.state.refund_due());
    assert_eq!(serde_json::to_value(&read).unwrap(), later);
}

#[test]
fn a_pod_of_an_unpaid_order_may_run_unless_the_record_says_that_it_does_not() {
    for state in [State::Decided, State::Redeeming, State::PaymentUnknown] {
        let order = testing::order(testing::spawn(), state).unwrap();
        let read = |json: serde_json::Value| {
            let record: OrderRecord = serde_json::from_value(json).unwrap();
            record.into_order(OrderSecrets::from(&order)).unwrap()
        };
        let mut json = serde_json::to_value(&order).unwrap();
        assert_eq!(read(json.clone()), order);
        assert!(!order.state.may_run_unpaid(), "{state:?}");
        json.as_object_mut().unwrap().remove("launched_unpaid").unwrap();
        assert!(read(json).state.may_run_unpaid(), "{state:?}, of an earlier version");
    }
    let paid = testing::order(testing::spawn(), State::Paid).unwrap();
    assert!(!paid.state.may_run_unpaid());
    assert!(serde_json::to_value(&paid).unwrap().get("launched_unpaid").is_none());
}

#[test]
fn a_pod_of_a_paid_order_was_launched_before_only_if_the_record_says_so() {
    for state in [State::Paid, State::Provisioning, State::Active] {
        for launched in [false, true] {
            let mut order = testing::order(testing::spawn(), state).unwrap();
            let paid = Paid { launched, ..testing::paid(&order.purchase) };
            order.state = match state {
                State::Paid => OrderState::Paid(paid),
                State::Provisioning => OrderState::Provisioning { paid, expires_at: None },
                _ => OrderState::Active { paid, expires_at: UnixTime(700) },
            };
            let json = serde_json::to_value(&order).unwrap();
            assert_eq!(json.get("launched_unpaid").is_some(), launched, "{state:?}");
            let record: OrderRecord = serde_json::from_value(json).unwrap();
            let read = record.into_order(OrderSecrets::from(&order));
            assert_eq!(read.unwrap(), order, "{state:?}");
        }
    }
}

#[test]
fn how_much_of_its_time_was_used_is_read_where_it_is_stored() {
    let mut order = testing::order(testing::spawn(), State::Ended).unwrap();
    let OrderState::Ended { sale, .. } = &mut order.state else { panic!("it has not ended") };
    sale.used = Some(Seconds(61));
    let read = |json: serde_json::Value| {
        let record: OrderRecord = serde_json::from_value(json).unwrap();
        record.into_order(OrderSecrets::default()).unwrap()
    };
    let mut json = serde_json::to_value(&order).unwrap();
    assert_eq!(read(json.clone()), order);
    assert_eq!(json.as_object_mut().unwrap().remove("used"), Some(61.into()));
    assert_eq!(read(json).state.used(), None, "of an earlier version");
}
