//! What contract 1.3 adds to 1.2, converted from the types of `paygress-core`: a context with the
//! customer's history, and how full the nodes are.

use crate::bindings::common::paygress::policy::types as before;
use crate::bindings::types_1_3 as wit;
use crate::v1_0;
use paygress_core::backend::policy::{Context, CustomerHistory, Utilisation};

pub(crate) fn context(context: &Context) -> wit::Context {
    wit::Context {
        now_unix_seconds: context.now.0,
        capacity_leases: context.capacity_leases,
        active_leases: context.active_leases,
        customer_leases: context.customer_leases.iter().map(v1_0::lease).collect(),
        history: context.history.as_ref().map(history),
        utilisation: context.utilisation.map(utilisation),
    }
}

/// For a component of an earlier version.
pub(crate) fn before_1_3(context: &wit::Context) -> before::Context {
    before::Context {
        now_unix_seconds: context.now_unix_seconds,
        capacity_leases: context.capacity_leases,
        active_leases: context.active_leases,
        customer_leases: context.customer_leases.clone(),
    }
}

fn history(history: &CustomerHistory) -> wit::CustomerHistory {
    wit::CustomerHistory {
        orders: history.orders,
        first_order_seconds_ago: history.first_ago.map(|time| time.0),
        last_day_sat: history.last_day_paid.0,
        last_day_seconds: history.last_day_bought.0,
        last_day_first_seconds_ago: history.last_day_first_ago.map(|time| time.0),
        last_day_undecided: history.last_day_undecided,
    }
}

fn utilisation(utilisation: Utilisation) -> wit::Utilisation {
    let Utilisation { cpu, memory } = utilisation;
    wit::Utilisation { cpu_per_mille: cpu, memory_per_mille: memory }
}
