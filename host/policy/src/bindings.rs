//! Bindings generated from `wit/`: one set of types, shared by all worlds.
//!
//! The worlds of 1.0 serve components of later versions too: a minor version only adds, and wasmtime
//! matches exports by major version. What 1.1, 1.2 and 1.3 add has a world of its own here.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::restriction)]

pub(crate) mod common {
    wasmtime::component::bindgen!({
        path: "../../wit/1.0",
        interfaces: "import paygress:policy/types@1.0.0;",
    });
}

pub(crate) mod images {
    wasmtime::component::bindgen!({
        path: "../../wit/1.0",
        world: "images-policy",
        with: { "paygress:policy/types@1.0.0": crate::bindings::common::paygress::policy::types },
    });
}

pub(crate) mod pricing {
    wasmtime::component::bindgen!({
        path: "../../wit/1.0",
        world: "pricing-policy",
        with: { "paygress:policy/types@1.0.0": crate::bindings::common::paygress::policy::types },
    });
}

pub(crate) mod duration {
    wasmtime::component::bindgen!({
        path: "../../wit/1.0",
        world: "duration-policy",
        with: { "paygress:policy/types@1.0.0": crate::bindings::common::paygress::policy::types },
    });
}

pub(crate) mod pod_template {
    wasmtime::component::bindgen!({
        path: "../../wit/1.0",
        world: "pod-template-policy",
        with: { "paygress:policy/types@1.0.0": crate::bindings::common::paygress::policy::types },
    });
}

pub(crate) mod duration_1_1 {
    wasmtime::component::bindgen!({
        path: "../../wit/1.1",
        world: "duration-policy",
        with: { "paygress:policy/types@1.1.0": crate::bindings::common::paygress::policy::types },
    });
}

pub(crate) mod images_1_2 {
    wasmtime::component::bindgen!({
        path: "../../wit/1.2",
        world: "images-policy",
        with: { "paygress:policy/types@1.2.0": crate::bindings::common::paygress::policy::types },
    });
}

pub(crate) mod pod_template_1_2 {
    wasmtime::component::bindgen!({
        path: "../../wit/1.2",
        world: "pod-template-policy",
        with: { "paygress:policy/types@1.2.0": crate::bindings::common::paygress::policy::types },
    });
}

/// The types of 1.3: those of 1.0, but for the context, which is written as the macro writes it.
/// Public, since the macro uses it by `pub use`.
#[allow(unsafe_code)]
pub mod types_1_3 {
    pub use crate::bindings::common::paygress::policy::types::*;

    #[derive(
        wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower,
    )]
    #[component(record)]
    #[derive(Clone, Debug)]
    pub struct Context {
        #[component(name = "now-unix-seconds")]
        pub now_unix_seconds: u64,
        #[component(name = "capacity-leases")]
        pub capacity_leases: u32,
        #[component(name = "active-leases")]
        pub active_leases: u32,
        #[component(name = "customer-leases")]
        pub customer_leases: Vec<Lease>,
        #[component(name = "history")]
        pub history: Option<CustomerHistory>,
        #[component(name = "utilisation")]
        pub utilisation: Option<Utilisation>,
    }

    #[derive(
        wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower,
    )]
    #[component(record)]
    #[derive(Clone, Copy, Debug)]
    pub struct Utilisation {
        #[component(name = "cpu-per-mille")]
        pub cpu_per_mille: u32,
        #[component(name = "memory-per-mille")]
        pub memory_per_mille: u32,
    }

    #[derive(
        wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower,
    )]
    #[component(record)]
    #[derive(Clone, Copy, Debug)]
    pub struct CustomerHistory {
        #[component(name = "orders")]
        pub orders: u32,
        #[component(name = "first-order-seconds-ago")]
        pub first_order_seconds_ago: Option<u64>,
        #[component(name = "last-day-sat")]
        pub last_day_sat: u64,
        #[component(name = "last-day-seconds")]
        pub last_day_seconds: u64,
        #[component(name = "last-day-first-seconds-ago")]
        pub last_day_first_seconds_ago: Option<u64>,
        #[component(name = "last-day-undecided")]
        pub last_day_undecided: u32,
    }
}

pub(crate) mod images_1_3 {
    wasmtime::component::bindgen!({
        path: "../../wit/1.3",
        world: "images-policy",
        with: { "paygress:policy/types@1.3.0": crate::bindings::types_1_3 },
    });
}

pub(crate) mod pricing_1_3 {
    wasmtime::component::bindgen!({
        path: "../../wit/1.3",
        world: "pricing-policy",
        with: { "paygress:policy/types@1.3.0": crate::bindings::types_1_3 },
    });
}

pub(crate) mod duration_1_3 {
    wasmtime::component::bindgen!({
        path: "../../wit/1.3",
        world: "duration-policy",
        with: { "paygress:policy/types@1.3.0": crate::bindings::types_1_3 },
    });
}
