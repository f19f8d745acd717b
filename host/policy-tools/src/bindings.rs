//! Bindings: the contract in a language.

use crate::Language;
use crate::files::{WriteError, write_atomically};
use crate::wit::{BoxError, Contract, WitError};
use std::path::{Path, PathBuf};
use wit_bindgen_core::wit_parser::{Resolve, WorldId, WorldItem};
use wit_bindgen_core::{Files, WorldGenerator};

/// Why no bindings were generated.
#[derive(Debug, thiserror::Error)]
pub enum BindingsError {
    /// This language has its own tools.
    #[error("bindings are generated for c and go; the tools of {0} generate their own")]
    NotGenerated(Language),
    #[error(transparent)]
    Wit(#[from] WitError),
    #[error("no bindings can be generated")]
    Generator(#[source] BoxError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes the bindings of a world into a directory, and returns the files.
///
/// - C: `bindings.h`, `bindings.c` and an object file with the types, `bindings_component_type.o`.
///   Types begin with `bindings_`, `paygress_policy_types_` or `exports_paygress_policy_`, whatever
///   the world.
/// - Go: the packages of a module `wit_component`, to be written into its directory. The exports
///   call
///   its package `policy`, which has each of the contract's functions.
///
/// # Errors
/// [`BindingsError`].
pub fn bindings(
    language: Language,
    wit: &Path,
    world: &str,
    into: &Path,
) -> Result<Vec<PathBuf>, BindingsError> {
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
        other => return Err(BindingsError::NotGenerated(other)),
    };
    let Contract { mut resolve, world } = Contract::read(wit, world)?;
    let mut files = Files::default();
    if language == Language::Go {
        go_exports(&resolve, world, &mut files);
    }
    generator
        .generate(&mut resolve, world, &mut files)
        .map_err(|error| BindingsError::Generator(error.into()))?;
    // The project has its own go.mod, and a go.sum that matches it.
    files.remove("go.mod");
    let mut written = Vec::new();
    for (name, bytes) in files.iter() {
        let path = into.join(name);
        write_atomically(&path, bytes)?;
        written.push(path);
    }
    Ok(written)
}

/// The bindings of Go call one package per exported interface. Each of them is generated, and calls
/// the package `policy`.
fn go_exports(resolve: &Resolve, world: WorldId, files: &mut Files) {
    let items = resolve.worlds.get(world).map(|world| &world.exports);
    for item in items.into_iter().flat_map(|exports| exports.values()) {
        let WorldItem::Interface { id, .. } = item else { continue };
        let interface = resolve.interfaces.get(*id);
        let name = resolve.id_of(*id).unwrap_or_default();
        let name = name.split('@').next().unwrap_or_default().replace([':', '/', '-'], "_");
        let functions = interface.into_iter().flat_map(|interface| interface.functions.keys());
        let mut source = format!(
            "// Package export_{name} is called by the bindings.\npackage export_{name}\n\nimport \"wit_component/policy\"\n\nvar (\n"
        );
        for function in functions {
            let function = camel_case(function);
            source.push_str(&format!("\t{function} = policy.{function}\n"));
        }
        source.push_str(")\n");
        files.push(&format!("export_{name}/export.go"), source.as_bytes());
    }
}

/// `some-name` as `SomeName`.
fn camel_case(name: &str) -> String {
    let word = |word: &str| {
        let mut characters = word.chars();
        characters
            .next()
            .into_iter()
            .flat_map(char::to_uppercase)
            .chain(characters)
            .collect::<String>()
    };
    name.split('-').map(word).collect()
}
