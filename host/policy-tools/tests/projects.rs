//! New projects, bindings, and components of good and of broken modules.
#![cfg(test)]

use paygress_core::backend::policy::Slot;
use paygress_policy_tools::{
    BindingsError, Language, ProjectError, WitError, World, bindings, component, new_project,
};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

#[test]
fn every_language_has_a_project_for_every_slot() {
    for language in Language::ALL {
        for slot in Slot::ALL {
            assert_project(language, slot);
        }
    }
}

/// What the templates have in place of a project's own.
const PLACEHOLDERS: [&str; 8] = [
    "{name}",
    "{slot}",
    "{language}",
    "{source}",
    "{tools}",
    "{contract}",
    "loyalty",
    "night-rate",
];

/// What makes a component of a policy in Rust.
fn exported(slot: Slot) -> &'static str {
    match slot {
        Slot::Images => "export!(Images for Settings);",
        Slot::Pricing => "export!(Pricing for Settings);",
        Slot::Duration => "export!(Duration for Settings);",
        Slot::PodTemplate => "export!(PodTemplate for Settings);",
    }
}

fn assert_project(language: Language, slot: Slot) {
    let directory = tempdir().unwrap();
    let project = directory.path().join("not/there/yet");
    let written = new_project(&project, language, slot, "night-owl").unwrap();
    for path in &written {
        let text = fs::read_to_string(path).unwrap();
        for placeholder in PLACEHOLDERS {
            assert!(!text.contains(placeholder), "{placeholder} in {}", path.display());
        }
    }
    let read = |path: &str| {
        fs::read_to_string(project.join(path))
            .unwrap_or_else(|_| panic!("no {path} for {language}"))
    };
    assert!(
        read("README.md").contains("# night-owl")
            && read("README.md").contains(&format!("policy check {slot} policy.wasm"))
    );
    assert!(read(".gitignore").contains("*.wasm"));
    let contract = match language {
        Language::Rust => "sdk/wit",
        _ => "wit",
    };
    let [types, slots] = ["types", "slots"].map(|file| read(&format!("{contract}/{file}.wit")));
    assert!(types.contains("\npackage paygress:policy@1.3.0;\n"), "{language}");
    assert!(slots.contains("interface pod-template"));
    let world = match language {
        Language::Rust => read("src/lib.rs").contains(exported(slot)),
        _ => read("build.sh").contains(&format!("\nworld={slot}-policy\n")),
    };
    assert!(world, "{language} {slot}");
    let source = match language {
        Language::Rust => "src/lib.rs",
        Language::JavaScript => "policy.js",
        Language::Python => "src/policy.py",
        Language::Go => "policy/policy.go",
        Language::C => "policy.c",
    };
    // It makes the schema of the settings, and reads them.
    let module = match language {
        Language::Rust => "sdk/src/settings.rs",
        Language::JavaScript => "settings.js",
        Language::Python => "src/settings.py",
        Language::Go => "settings/settings.go",
        Language::C => "lib/settings.c",
    };
    assert!(read(module).contains("is not a setting") || language == Language::Rust, "{module}");
    assert!(!read(source).contains("additionalProperties"), "{language} {slot}: a copied schema");
    assert!(read(source).lines().all(|line| line.chars().count() <= 170), "{language} {slot}");
}

#[test]
fn the_rust_project_has_the_policys_name() {
    let directory = tempdir().unwrap();
    new_project(directory.path(), Language::Rust, Slot::Images, "a1-b").unwrap();
    assert!(
        fs::read_to_string(directory.path().join("Cargo.toml"))
            .unwrap()
            .contains("name = \"a1-b\"")
    );
}

/// All files of the SDK: a project that has a part of them does not build.
#[test]
fn the_rust_project_has_the_whole_sdk() {
    let directory = tempdir().unwrap();
    new_project(directory.path(), Language::Rust, Slot::Images, "a").unwrap();
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/sdk");
    for part in ["src", "wit"] {
        for file in fs::read_dir(sdk.join(part)).unwrap() {
            let file = file.unwrap();
            let copy = directory.path().join("sdk").join(part).join(file.file_name());
            assert_eq!(fs::read(file.path()).unwrap(), fs::read(&copy).unwrap(), "{copy:?}");
        }
    }
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("mine"), "mine").unwrap();
    let refused = new_project(directory.path(), Language::C, Slot::Pricing, "a").unwrap_err();
    assert!(matches!(refused, ProjectError::NotEmpty(_)), "{refused}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let refused =
        new_project(&directory.path().join("mine"), Language::C, Slot::Pricing, "a").unwrap_err();
    assert!(matches!(refused, ProjectError::Write(_)), "{refused}");
}

#[test]
fn a_name_must_be_a_package_name() {
    let directory = tempdir().unwrap();
    let long = "a".repeat(42);
    for name in ["", "A", "1a", "-a", "a_b", "a b", "a/b", "../a", "ä", "a\n", "a\"", long.as_str()]
    {
        let refused = new_project(&directory.path().join("x"), Language::Go, Slot::Pricing, name)
            .unwrap_err();
        assert!(matches!(refused, ProjectError::Name(_)), "{name:?}: {refused}");
    }
    assert!(!directory.path().join("x").exists());
    new_project(&directory.path().join("x"), Language::Go, Slot::Pricing, &"a".repeat(41)).unwrap();
}

#[test]
fn bindings_are_generated_for_c_and_go_and_known_worlds() {
    let directory = tempdir().unwrap();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/1.3");
    for language in [Language::C, Language::Go] {
        let written = bindings(
            language,
            &wit,
            "pod-template-policy",
            &directory.path().join(language.as_str()),
        )
        .unwrap();
        assert!(written.iter().all(|path| path.exists()));
    }
    let export = fs::read_to_string(
        directory.path().join("go/export_paygress_policy_pod_template/export.go"),
    )
    .unwrap();
    assert!(export.contains("Render = policy.Render"), "{export}");
    assert!(!directory.path().join("go/go.mod").exists());
    assert!(
        fs::read_to_string(directory.path().join("c/bindings.h"))
            .unwrap()
            .contains("bindings_string_t")
    );
    for language in [Language::Rust, Language::JavaScript, Language::Python] {
        assert!(matches!(
            bindings(language, &wit, "pricing-policy", directory.path()).unwrap_err(),
            BindingsError::NotGenerated(_)
        ));
    }
    assert!(matches!(
        bindings(Language::C, &wit, "gambling", directory.path()).unwrap_err(),
        BindingsError::Wit(WitError::World { .. })
    ));
    assert!(matches!(
        bindings(Language::C, directory.path(), "gambling", directory.path()).unwrap_err(),
        BindingsError::Wit(WitError::Package { .. })
    ));
}

/// A module that imports a function of WASI, and its contract.
const MODULE: &str = r#"(module
    (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "answer") (result i32) (call 0 (i32.const 0) (i32.const 4)))
)"#;
const CONTRACT: &str = "package a:b; world w { export answer: func() -> u32; }";

#[test]
fn a_component_of_a_wasi_module_imports_nothing() {
    let directory = tempdir().unwrap();
    let wit = directory.path().join("b.wit");
    fs::write(&wit, CONTRACT).unwrap();
    let module = wat::parse_str(MODULE).unwrap();
    let made = component(&module, Some(World { wit: &wit, name: "w" })).unwrap();
    let wit_component::DecodedWasm::Component(resolve, world) =
        wit_component::decode(&made).unwrap()
    else {
        panic!("no component")
    };
    assert_eq!((resolve.worlds[world].imports.len(), resolve.worlds[world].exports.len()), (0, 1));

    for (broken, expected) in [
        (
            component(&made, Some(World { wit: &wit, name: "w" })),
            "this is not a core WebAssembly module: it is already a component",
        ),
        (component(&module, Some(World { wit: &wit, name: "v" })), "there is no world v"),
        (
            component(&module, Some(World { wit: &directory.path().join("c"), name: "w" })),
            "is not a WIT package",
        ),
        (
            component(&wat::parse_str("(module)").unwrap(), Some(World { wit: &wit, name: "w" })),
            "no component can be made of this module",
        ),
        (
            component(
                &wat::parse_str(MODULE.replace("random_get", "sock_open")).unwrap(),
                Some(World { wit: &wit, name: "w" }),
            ),
            "no component can be made",
        ),
    ] {
        let message = broken.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_broken_module_is_an_error() {
    let directory = tempdir().unwrap();
    let wit = directory.path().join("b.wit");
    fs::write(&wit, CONTRACT).unwrap();
    let module = wat::parse_str(MODULE).unwrap();
    for end in 0..module.len() {
        // A module cut between two sections may be valid, but does not fit this contract.
        assert!(
            component(&module[..end], Some(World { wit: &wit, name: "w" })).is_err(),
            "the first {end} bytes"
        );
        for wrong in [0, 1, 0x7f, 0x80, 0xff] {
            let mut broken = module.clone();
            broken[end] ^= wrong;
            // Success or an error, and no panic.
            let _ = component(&broken, Some(World { wit: &wit, name: "w" })).is_ok();
        }
    }
}
