//! `cargo xtask generate`: the files that are derived from Rust types.

use crate::compiler::Compiler;
use crate::run::{ALL, output, root, step, target};
use anyhow::{Context, Result, bail};
use std::process::Command;

/// What is derived: printed by an example of the workspace, kept in a file.
struct Derived {
    example: &'static str,
    path: &'static str,
    place: Place,
}

/// What of a file is derived.
enum Place {
    Whole,
    /// The values of this definition, in a JSON schema. A line is printed of each.
    Enum(&'static str),
}

const DERIVED: [Derived; 2] = [
    Derived { example: "crd", path: "k8s/base/policy-crd.yaml", place: Place::Whole },
    Derived {
        example: "setting_names",
        path: "k8s/chart/values.schema.json",
        place: Place::Enum("settingName"),
    },
];

impl Place {
    /// The file with what was printed.
    fn generated(&self, old: &str, printed: &str) -> Result<String> {
        match self {
            Self::Whole => Ok(format!(
                "# Generated from Rust types by `cargo xtask generate`; do not edit.\n{printed}\n"
            )),
            Self::Enum(name) => {
                let begin = format!("    \"{name}\": {{\n      \"enum\": [\n");
                let end = "\n      ]";
                let found = old.split_once(&begin).and_then(|(before, rest)| {
                    let (_, after) = rest.split_once(end)?;
                    Some((before, after))
                });
                let (before, after) = found.with_context(|| format!("{name} has no enum"))?;
                let values = printed.lines().map(|value| format!("        \"{value}\""));
                let values = values.collect::<Vec<_>>().join(",\n");
                Ok(format!("{before}{begin}{values}{end}{after}"))
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    /// Fail if a file is out of date.
    Check,
}

pub(crate) fn generate(mode: Mode, compiler: Compiler) -> Result<()> {
    let mut build = compiler.cargo(&["build", "--quiet"])?;
    build.args(ALL);
    for Derived { example, .. } in DERIVED {
        build.args(["--example", example]);
    }
    step("build what generates files", &mut build)?;
    for Derived { example, path, place } in DERIVED {
        let printed = output(&mut Command::new(target().join("debug/examples").join(example)))?;
        let file = root().join(path);
        let old = std::fs::read_to_string(&file).unwrap_or_default();
        let generated = place.generated(&old, &printed).with_context(|| path)?;
        if old == generated {
            continue;
        }
        if mode == Mode::Check {
            bail!("{path} is out of date: run `cargo xtask generate`, and commit the result");
        }
        std::fs::write(&file, generated).with_context(|| format!("{path} cannot be written"))?;
        println!("   written: {path}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_replaced_and_the_rest_of_a_file_is_left() {
        let of = |values: &str| {
            format!("{{\n    \"name\": {{\n      \"enum\": [\n{values}\n      ],\n    }}\n}}\n")
        };
        let old = of("        \"OLD\"");
        let generated = Place::Enum("name").generated(&old, "A\nB").unwrap();
        assert_eq!(generated, of("        \"A\",\n        \"B\""));
        let same = Place::Enum("name").generated(&generated, "A\nB").unwrap();
        assert_eq!(same, generated);
        assert!(Place::Enum("other").generated(&old, "A").is_err());
    }
}
