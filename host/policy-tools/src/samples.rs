//! Orders as untrusted clients may send them: a policy should handle each.

use crate::case::{TestCase, own_lease};
use crate::function::Function;
use paygress_core::backend::policy::{CustomerHistory, LeaseView, Slot, Utilisation};
use paygress_core::limits;
use paygress_core::model::units::{Msat, Sat, Seconds, UnixTime};

/// An order with a name for the author.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) case: TestCase,
}

type Change = fn(&mut TestCase);

const SAMPLES: [(&str, Change); 21] = [
    ("an ordinary order", |_| ()),
    ("an unknown tier", |case| case.order.tier = Some("no-such-tier".to_owned())),
    ("an image by name", |case| case.order.image = Some("docker.io/library/alpine:3".to_owned())),
    ("an invalid image name", |case| case.order.image = Some("\u{1f980} ".repeat(102))),
    ("an anonymous customer", |case| {
        (case.order.customer, case.context.history) = (String::new(), None);
    }),
    ("a customer with many orders", |case| {
        case.context.history = Some(CustomerHistory {
            orders: limits::HISTORY_ORDERS,
            first_ago: Some(Seconds(100_000_000)),
            last_day_paid: Sat(2_100_000_000_000_000),
            last_day_bought: Seconds(315_360_000),
            last_day_first_ago: Some(Seconds(86_399)),
            last_day_undecided: 1,
        });
    }),
    ("a bearer over HTTP", |case| case.order.customer = format!("bearer:{}", "b".repeat(64))),
    ("a requested time that is too long", |case| case.order.wanted = Some(Seconds(u64::MAX))),
    ("a requested time of zero", |case| case.order.wanted = Some(Seconds(0))),
    ("one sat", |case| {
        (case.payment.gross, case.payment.fee, case.payment.net) = (Sat(1), Sat(0), Sat(1));
    }),
    ("nothing left after the fee", |case| {
        (case.payment.gross, case.payment.net) = (Sat(1), Sat(0));
    }),
    ("21 million bitcoin", |case| case.payment.net = Sat(2_100_000_000_000_000)),
    ("a price of zero", |case| case.quote.price.msat = Msat(0)),
    ("a full cluster", |case| case.context.active_leases = case.context.capacity_leases),
    ("a cluster without capacity", |case| {
        (case.context.capacity_leases, case.context.active_leases) = (0, 0);
    }),
    ("nodes with more requested than they have", |case| {
        case.context.utilisation = Some(Utilisation { cpu: 1_001, memory: u32::MAX });
    }),
    ("1970", |case| case.context.now = UnixTime(0)),
    ("64 leases", |case| {
        case.context.customer_leases =
            (0..64).map(|number| own_lease(&format!("lease{number}"))).collect();
    }),
    ("an extension of the customer's pod", |case| {
        case.order.extends = Some(own_lease("lease0"));
    }),
    ("an extension of another customer's pod", |case| {
        case.order.extends = Some(LeaseView { owned_by_customer: false, ..own_lease("lease0") });
    }),
    ("an extension of a pod that has ended", |case| {
        case.order.extends = Some(LeaseView { remaining: Seconds(0), ..own_lease("lease0") });
    }),
];

/// All samples for a slot; the last one calls the slot's other function.
pub(crate) fn samples(slot: Slot) -> Vec<Sample> {
    let changed = SAMPLES.into_iter().map(|(name, change)| {
        let mut case = TestCase::sample(slot);
        change(&mut case);
        Sample { name, case }
    });
    let other = Function::other_of(slot).map(|function| Sample {
        name: "the slot's other function",
        case: TestCase { function, ..TestCase::sample(slot) },
    });
    changed.chain(other).collect()
}
