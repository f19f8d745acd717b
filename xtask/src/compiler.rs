//! What compiles the workspace's crates.

use crate::run::{cargo, root};
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// Cargo keeps apart what each has built: only the dependencies are shared.
#[derive(Clone, Copy)]
pub(crate) enum Compiler {
    /// As `cargo build` and `cargo test` do.
    Rustc,
    /// Clippy and rustdoc see each crate when it is compiled, and a warning is an error.
    WithLints,
}

impl Compiler {
    pub(crate) fn cargo(self, arguments: &[&str]) -> Result<Command> {
        let mut command = cargo(arguments)?;
        if let Self::WithLints = self {
            // Not in the environment, which the tests would pass on to builds of their own.
            let setting = format!("build.rustc-workspace-wrapper='{}'", wrapper().display());
            command.args(["--config", &setting]);
        }
        Ok(command)
    }
}

fn wrapper() -> PathBuf {
    root().join("xtask/rustc-with-lints")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{output, remove_directory};
    use std::fs;

    /// A crate that is compiled as cargo does it; its directory is gone with this.
    struct Crate(PathBuf);

    impl Crate {
        fn new(name: &str, source: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            remove_directory(&directory).unwrap();
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("lib.rs"), source).unwrap();
            Self(directory)
        }

        fn is_compiled(&self) -> bool {
            let mut command = Command::new(wrapper());
            command.args(["rustc", "--crate-name", "tried", "--edition=2024", "lib.rs"]);
            command.args(["--error-format=json", "--json=diagnostic-rendered-ansi,artifacts"]);
            command.args(["--crate-type", "lib", "--emit=dep-info,metadata,link", "--out-dir"]);
            command.arg(&self.0).args(["-C", "extra-filename=-1"]).current_dir(&self.0);
            command.env("CARGO_CRATE_NAME", "tried").output().unwrap().status.success()
        }
    }

    impl Drop for Crate {
        fn drop(&mut self) {
            let _ = remove_directory(&self.0);
        }
    }

    const GOOD: &str =
        "//! Has [`one`].\n\n/// One.\n#[must_use]\npub fn one() -> u32 {\n    1\n}\n";

    #[test]
    fn what_clippy_or_rustdoc_warns_of_is_not_compiled() {
        let lint = GOOD.replace("    1\n", "    return 1;\n");
        let link = GOOD.replace("[`one`]", "[`two`]");
        let warning = format!("{GOOD}fn unused() {{}}\n");
        for (name, source) in [("lint", lint), ("link", link), ("warning", warning)] {
            assert!(!Crate::new(name, &source).is_compiled(), "{name}");
        }
    }

    #[test]
    fn the_compilers_own_files_are_there_and_depend_on_the_lints() {
        let good = Crate::new("good", GOOD);
        assert!(good.is_compiled());
        assert!(good.0.join("libtried-1.rlib").exists());
        let dependencies = fs::read_to_string(good.0.join("tried-1.d")).unwrap();
        let first = dependencies.lines().next().unwrap();
        for file in ["lib.rs", "clippy.toml", "rustc-with-lints"] {
            assert!(first.contains(file), "{file}: {first}");
        }
    }

    #[test]
    fn questions_of_cargo_are_answered_by_the_compiler() {
        let version = output(Command::new(wrapper()).args(["rustc", "-vV"])).unwrap();
        assert!(version.starts_with("rustc "), "{version}");
    }
}
