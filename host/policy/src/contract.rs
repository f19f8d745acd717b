//! Which version of the contract a component implements, and how it deviates from it.

use crate::engine::PolicyEngine;
use paygress_core::backend::policy::Slot;
use paygress_core::sanitize::plain;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

/// The only import that a policy may have: the types, which have no functions.
const TYPES: &str = "paygress:policy/types@1.";
/// Every interface of the contract, whatever its version.
pub(crate) const PACKAGE: &str = "paygress:policy/";

/// A version of the contract that this host supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ContractVersion {
    V1_0,
    V1_1,
    V1_2,
    V1_3,
}

impl ContractVersion {
    const ALL: [Self; 4] = [Self::V1_0, Self::V1_1, Self::V1_2, Self::V1_3];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0.0",
            Self::V1_1 => "1.1.0",
            Self::V1_2 => "1.2.0",
            Self::V1_3 => "1.3.0",
        }
    }
}

/// Determines the version of a component for a slot, and checks its imports and exports.
/// `functions` are those that the slot's interface must export.
///
/// # Errors
/// Everything that does not fit, for the author to read.
pub(crate) fn check(
    engine: &PolicyEngine,
    component: &Component,
    slot: Slot,
    functions: fn(ContractVersion) -> &'static [&'static str],
) -> Result<ContractVersion, Vec<String>> {
    let mut mismatches = forbidden_imports(engine, component);
    let version = match version(engine, component, slot) {
        Ok(version) => version,
        Err(reasons) => {
            mismatches.extend(reasons);
            return Err(mismatches);
        }
    };
    let interfaces =
        [("settings", &["schema", "configure"][..]), (slot.as_str(), functions(version))];
    for (interface, functions) in interfaces {
        let name = format!("{PACKAGE}{interface}@{}", version.as_str());
        let Some((_, instance)) = component.get_export(None, &name) else {
            mismatches.push(format!("it does not export {name}"));
            continue;
        };
        for function in functions {
            match component.get_export(Some(&instance), function) {
                Some((ComponentItem::ComponentFunc(_), _)) => {}
                _ => mismatches.push(format!("its {name} does not export {function}")),
            }
        }
    }
    if mismatches.is_empty() { Ok(version) } else { Err(mismatches) }
}

fn forbidden_imports(engine: &PolicyEngine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let forbidden = ty.imports(&engine.engine).filter(|(name, import)| {
        let only_types = match &import.ty {
            ComponentItem::ComponentInstance(instance) => instance
                .exports(&engine.engine)
                .all(|(_, item)| matches!(item.ty, ComponentItem::Type(_))),
            _ => false,
        };
        !(name.starts_with(TYPES) && only_types)
    });
    forbidden
        .map(|(name, _)| format!("it imports {}; a policy may only import types", plain(name, 200)))
        .collect()
}

fn version(
    engine: &PolicyEngine,
    component: &Component,
    slot: Slot,
) -> Result<ContractVersion, Vec<String>> {
    let ty = component.component_type();
    let exported: Vec<(String, String)> = ty
        .exports(&engine.engine)
        .filter_map(|(name, _)| name.strip_prefix(PACKAGE)?.split_once('@'))
        .map(|(interface, version)| (plain(interface, 200), plain(version, 40)))
        .collect();
    let Some((_, version)) = exported.iter().find(|(interface, _)| interface == slot.as_str())
    else {
        let others = exported.iter().filter(|(interface, _)| Slot::named(interface).is_some());
        let mut reasons: Vec<String> = others
            .map(|(other, version)| {
                format!(
                    "it is a component for the slot {other} (of version {version}), not for {slot}"
                )
            })
            .collect();
        if reasons.is_empty() {
            let versions = supported();
            reasons.push(format!("it does not export {PACKAGE}{slot} in a version of {versions}"));
        }
        return Err(reasons);
    };
    ContractVersion::ALL.into_iter().find(|known| known.as_str() == version).ok_or_else(|| {
        vec![format!("it implements version {version}; this host supports {}", supported())]
    })
}

/// The versions that this host supports.
fn supported() -> String {
    ContractVersion::ALL.map(ContractVersion::as_str).join(", ")
}
