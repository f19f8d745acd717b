//! The files of a new project. Those common to all projects of a language are taken from
//! `examples/policies`, those of Rust from `plugins/sdk`: among them the module that makes the schema
//! of the settings and reads them.

use crate::language::Language;
use paygress_core::backend::policy::Slot;

const CONTRACT: [File; 3] = [
    ("wit/types.wit", include_str!("../../../wit/1.3/types.wit")),
    ("wit/slots.wit", include_str!("../../../wit/1.3/slots.wit")),
    ("wit/worlds.wit", include_str!("../../../wit/1.3/worlds.wit")),
];
const README: &str = include_str!("../templates/README.md");

/// With a copy of the SDK, which has the contract: the project belongs to no other workspace.
const RUST: [File; 23] = [
    ("Cargo.toml", include_str!("../templates/rust/manifest.toml")),
    ("rust-toolchain.toml", include_str!("../../../rust-toolchain.toml")),
    ("build.sh", include_str!("../templates/rust/build.sh")),
    (".gitignore", include_str!("../templates/rust/gitignore")),
    ("sdk/Cargo.toml", include_str!("../templates/rust/sdk.toml")),
    ("sdk/wit/types.wit", include_str!("../../../wit/1.3/types.wit")),
    ("sdk/wit/slots.wit", include_str!("../../../wit/1.3/slots.wit")),
    ("sdk/wit/worlds.wit", include_str!("../../../wit/1.3/worlds.wit")),
    ("sdk/src/contract.rs", include_str!("../../../plugins/sdk/src/contract.rs")),
    ("sdk/src/export.rs", include_str!("../../../plugins/sdk/src/export.rs")),
    ("sdk/src/grant.rs", include_str!("../../../plugins/sdk/src/grant.rs")),
    ("sdk/src/hex.rs", include_str!("../../../plugins/sdk/src/hex.rs")),
    ("sdk/src/lib.rs", include_str!("../../../plugins/sdk/src/lib.rs")),
    ("sdk/src/limits.rs", include_str!("../../../plugins/sdk/src/limits.rs")),
    ("sdk/src/pod.rs", include_str!("../../../plugins/sdk/src/pod.rs")),
    ("sdk/src/policy.rs", include_str!("../../../plugins/sdk/src/policy.rs")),
    ("sdk/src/problem.rs", include_str!("../../../plugins/sdk/src/problem.rs")),
    ("sdk/src/read.rs", include_str!("../../../plugins/sdk/src/read.rs")),
    ("sdk/src/refusal.rs", include_str!("../../../plugins/sdk/src/refusal.rs")),
    ("sdk/src/schema.rs", include_str!("../../../plugins/sdk/src/schema.rs")),
    ("sdk/src/settings.rs", include_str!("../../../plugins/sdk/src/settings.rs")),
    ("sdk/src/tier.rs", include_str!("../../../plugins/sdk/src/tier.rs")),
    ("sdk/src/validate.rs", include_str!("../../../plugins/sdk/src/validate.rs")),
];
const JAVASCRIPT: [File; 6] = [
    ("package.json", include_str!("../../../examples/policies/loyalty/package.json")),
    ("package-lock.json", include_str!("../../../examples/policies/loyalty/package-lock.json")),
    ("build.mjs", include_str!("../../../examples/policies/loyalty/build.mjs")),
    ("build.sh", include_str!("../../../examples/policies/loyalty/build.sh")),
    (".gitignore", include_str!("../../../examples/policies/loyalty/.gitignore")),
    ("settings.js", include_str!("../../../examples/policies/loyalty/settings.js")),
];
const PYTHON: [File; 4] = [
    (
        "requirements.txt",
        include_str!("../../../examples/policies/npub-allowlist/requirements.txt"),
    ),
    ("build.sh", include_str!("../../../examples/policies/npub-allowlist/build.sh")),
    (".gitignore", include_str!("../../../examples/policies/npub-allowlist/.gitignore")),
    ("src/settings.py", include_str!("../../../examples/policies/npub-allowlist/src/settings.py")),
];
const GO: [File; 5] = [
    ("go.mod", include_str!("../../../examples/policies/bulk-bonus/go.mod")),
    ("go.sum", include_str!("../../../examples/policies/bulk-bonus/go.sum")),
    ("build.sh", include_str!("../../../examples/policies/bulk-bonus/build.sh")),
    (".gitignore", include_str!("../../../examples/policies/bulk-bonus/.gitignore")),
    (
        "settings/settings.go",
        include_str!("../../../examples/policies/bulk-bonus/settings/settings.go"),
    ),
];
const C: [File; 11] = [
    ("build.sh", include_str!("../../../examples/policies/night-rate/build.sh")),
    (".gitignore", include_str!("../../../examples/policies/night-rate/.gitignore")),
    ("lib/json.c", include_str!("../../../examples/policies/night-rate/lib/json.c")),
    ("lib/json.h", include_str!("../../../examples/policies/night-rate/lib/json.h")),
    ("lib/memory.c", include_str!("../../../examples/policies/night-rate/lib/memory.c")),
    ("lib/settings.c", include_str!("../../../examples/policies/night-rate/lib/settings.c")),
    ("lib/settings.h", include_str!("../../../examples/policies/night-rate/lib/settings.h")),
    ("lib/text.c", include_str!("../../../examples/policies/night-rate/lib/text.c")),
    ("lib/text.h", include_str!("../../../examples/policies/night-rate/lib/text.h")),
    (
        "lib/freestanding/stdlib.h",
        include_str!("../../../examples/policies/night-rate/lib/freestanding/stdlib.h"),
    ),
    (
        "lib/freestanding/string.h",
        include_str!("../../../examples/policies/night-rate/lib/freestanding/string.h"),
    ),
];

/// The path of a file in the project, and its content.
type File = (&'static str, &'static str);

/// All files of a project.
pub(crate) fn files(language: Language, slot: Slot, name: &str) -> Vec<(&'static str, String)> {
    let (common, source, title, tools): (&[File], _, _, _) = match language {
        Language::Rust => {
            (&RUST, "src/lib.rs", "Rust", "Rust by rustup, and `paygress` in the `PATH`")
        }
        Language::JavaScript => {
            (&JAVASCRIPT, "policy.js", "JavaScript", "Node.js 20 or newer, with npm")
        }
        Language::Python => {
            (&PYTHON, "src/policy.py", "Python", "Python 3.9 or newer, with `venv`")
        }
        Language::Go => {
            (&GO, "policy/policy.go", "Go", "Go 1.25 or newer, and `paygress` in the `PATH`")
        }
        Language::C => (
            &C,
            "policy.c",
            "C",
            "clang and lld (`apt-get install clang-19 lld-19`), and `paygress` in the `PATH`",
        ),
    };
    let readme = readme(language, slot, [name, title, source, tools]);
    let suite = match slot {
        Slot::Images => include_str!("../templates/suite/images.yaml"),
        Slot::Pricing => include_str!("../templates/suite/pricing.yaml"),
        Slot::Duration => include_str!("../templates/suite/duration.yaml"),
        Slot::PodTemplate => include_str!("../templates/suite/pod-template.yaml"),
    };
    let mut files = vec![("README.md", readme), (source, policy(language, slot).to_owned())];
    files.extend([
        ("suite.yaml", suite.to_owned()),
        ("order.json", include_str!("../templates/order.json").to_owned()),
    ]);
    let contract: &[File] = match language {
        Language::Rust => &[],
        _ => &CONTRACT,
    };
    for (path, text) in common.iter().chain(contract) {
        let text = match *path {
            "Cargo.toml" => text.replace("{name}", name),
            "build.sh" => set_world(text, slot.as_str()),
            _ => (*text).to_owned(),
        };
        files.push((path, text));
    }
    files
}

fn readme(language: Language, slot: Slot, [name, title, source, tools]: [&str; 4]) -> String {
    README
        .replace("{name}", name)
        .replace("{slot}", slot.as_str())
        .replace("{language}", title)
        .replace("{source}", source)
        .replace("{tools}", tools)
        .replace("{contract}", contract_directory(language))
}

fn contract_directory(language: Language) -> &'static str {
    match language {
        Language::Rust => "sdk/wit",
        _ => "wit",
    }
}

/// Sets the world of the build script to that of the slot.
fn set_world(text: &str, slot: &str) -> String {
    let line = |line: &str| match line.starts_with("world=") {
        true => format!("world={slot}-policy\n"),
        false => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The policy itself, for the author to change.
fn policy(language: Language, slot: Slot) -> &'static str {
    match (language, slot) {
        (Language::Rust, Slot::Images) => include_str!("../templates/rust/images.rs"),
        (Language::Rust, Slot::Pricing) => include_str!("../templates/rust/pricing.rs"),
        (Language::Rust, Slot::Duration) => include_str!("../templates/rust/duration.rs"),
        (Language::Rust, Slot::PodTemplate) => include_str!("../templates/rust/pod-template.rs"),
        (Language::JavaScript, Slot::Images) => include_str!("../templates/js/images.js"),
        (Language::JavaScript, Slot::Pricing) => include_str!("../templates/js/pricing.js"),
        (Language::JavaScript, Slot::Duration) => include_str!("../templates/js/duration.js"),
        (Language::JavaScript, Slot::PodTemplate) => {
            include_str!("../templates/js/pod-template.js")
        }
        (Language::Python, Slot::Images) => include_str!("../templates/python/images.py"),
        (Language::Python, Slot::Pricing) => include_str!("../templates/python/pricing.py"),
        (Language::Python, Slot::Duration) => include_str!("../templates/python/duration.py"),
        (Language::Python, Slot::PodTemplate) => {
            include_str!("../templates/python/pod-template.py")
        }
        (Language::Go, Slot::Images) => include_str!("../templates/go/images.go"),
        (Language::Go, Slot::Pricing) => include_str!("../templates/go/pricing.go"),
        (Language::Go, Slot::Duration) => include_str!("../templates/go/duration.go"),
        (Language::Go, Slot::PodTemplate) => include_str!("../templates/go/pod-template.go"),
        (Language::C, Slot::Images) => include_str!("../templates/c/images.c"),
        (Language::C, Slot::Pricing) => include_str!("../templates/c/pricing.c"),
        (Language::C, Slot::Duration) => include_str!("../templates/c/duration.c"),
        (Language::C, Slot::PodTemplate) => include_str!("../templates/c/pod-template.c"),
    }
}
