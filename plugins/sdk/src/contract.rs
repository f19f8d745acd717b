//! The contract, as components see it.
//!
//! Each interface is a world of its own. A component exports two of them, `settings` and that of its
//! slot; they share the types.

pub mod types {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package paygress:sdk; world types { import paygress:policy/types@1.3.0; }",
        world: "types",
        generate_all,
        generate_unused_types: true,
    });
}

pub mod settings {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package paygress:sdk; world settings { export paygress:policy/settings@1.3.0; }",
        world: "settings",
        with: { "paygress:policy/types@1.3.0": crate::contract::types::paygress::policy::types },
        pub_export_macro: true,
    });
}

pub mod images {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package paygress:sdk; world images { export paygress:policy/images@1.3.0; }",
        world: "images",
        with: { "paygress:policy/types@1.3.0": crate::contract::types::paygress::policy::types },
        pub_export_macro: true,
    });
}

pub mod pricing {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package paygress:sdk; world pricing { export paygress:policy/pricing@1.3.0; }",
        world: "pricing",
        with: { "paygress:policy/types@1.3.0": crate::contract::types::paygress::policy::types },
        pub_export_macro: true,
    });
}

pub mod duration {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package paygress:sdk; world duration { export paygress:policy/duration@1.3.0; }",
        world: "duration",
        with: { "paygress:policy/types@1.3.0": crate::contract::types::paygress::policy::types },
        pub_export_macro: true,
    });
}

pub mod pod_template {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package paygress:sdk; world pod-template { export paygress:policy/pod-template@1.3.0; }",
        world: "pod-template",
        with: { "paygress:policy/types@1.3.0": crate::contract::types::paygress::policy::types },
        pub_export_macro: true,
    });
}
