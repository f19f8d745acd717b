//! The contract, as the component sees it.

wit_bindgen::generate!({ path: "../../wit/1.2", world: "pod-template-policy" });
