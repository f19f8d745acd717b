//! Bindings generated from `wit/`: one set of types, shared by all worlds.
//!
//! The worlds of 1.0 serve components of later versions too: a minor version only adds, and wasmtime
//! matches exports by major version. What 1.1 and 1.2 add has a world of its own here.
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
