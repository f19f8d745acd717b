//! Bindings: what the contract is in a language.

use crate::Language;
use crate::tool::{ToolError, contract, write_whole};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use wit_bindgen_core::wit_parser::{Resolve, WorldId, WorldItem};
use wit_bindgen_core::{Files, WorldGenerator};

/// Writes the bindings of a world into a folder, and returns the files.
///
/// - C: `bindings.h`, `bindings.c` and an object file with the types, `bindings_component_type.o`.
///   Types begin with
///   `bindings_`, `paygress_policy_types_` or `exports_paygress_policy_`, whatever the world.
/// - Go: the packages of a module `wit_component`, to be written into its folder. What is exported
///   is taken from its package
///   `policy`, which has a function for each of the contract's.
pub fn bindings(
    language: Language,
    wit: &Path,
    world: &str,
    into: &Path,
) -> Result<Vec<PathBuf>, ToolError> {
    let mut generator: Box<dyn WorldGenerator> = match language {
        Language::C => {
            let options = wit_bindgen_c::Opts {
                no_helpers: true,
                rename_world: Some("bindings".to_owned()),
                ..Default::default()
            };
            options.build()
        }
        Language::Go => {
            wit_bindgen_go::Opts { format: wit_bindgen_go::Format::False, ..Default::default() }
                .build()
        }
        other => return Err(ToolError::NoBindings(other)),
    };
    let (mut resolve, world) = contract(wit, world)?;
    let mut files = Files::default();
    if language == Language::Go {
        exports_of_go(&resolve, world, &mut files)?;
    }
    generator
        .generate(&mut resolve, world, &mut files)
        .map_err(|error| ToolError::Bindings(format!("{error:#}")))?;
    // The project has a go.mod of its own, and a go.sum that fits.
    files.remove("go.mod");
    let mut written = Vec::new();
    for (name, bytes) in files.iter() {
        let path = into.join(name);
        write_whole(&path, bytes)?;
        written.push(path);
    }
    Ok(written)
}

/// The bindings of Go call a package for each exported interface. Each gets one that calls the
/// package `policy`.
fn exports_of_go(resolve: &Resolve, world: WorldId, files: &mut Files) -> Result<(), ToolError> {
    let items = resolve.worlds.get(world).map(|world| &world.exports);
    for item in items.into_iter().flat_map(|exports| exports.values()) {
        let WorldItem::Interface { id, .. } = item else { continue };
        let interface = resolve.interfaces.get(*id);
        let name = resolve.id_of(*id).unwrap_or_default();
        let name = name.split('@').next().unwrap_or_default().replace([':', '/', '-'], "_");
        let functions = interface.into_iter().flat_map(|interface| interface.functions.keys());
        let mut source = format!(
            "// Package export_{name} is what the bindings call.\npackage export_{name}\n\nimport \"wit_component/policy\"\n\nvar (\n"
        );
        for function in functions {
            let function = capitals(function);
            writeln!(source, "\t{function} = policy.{function}")
                .map_err(|error| ToolError::Bindings(error.to_string()))?;
        }
        source.push_str(")\n");
        files.push(&format!("export_{name}/export.go"), source.as_bytes());
    }
    Ok(())
}

/// `some-name` as `SomeName`.
fn capitals(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    };
    name.split('-').map(word).collect()
}
