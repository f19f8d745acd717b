//! What wasmtime makes of `wit/`: one set of types, shared by all worlds.
//!
//! The worlds of 1.0 call what 1.1 has in common with it, in components of either: a minor version
//! only adds, and wasmtime finds an export by its major version. What 1.1 adds has a world of its
//! own here.
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
