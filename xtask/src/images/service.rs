//! The service: its program, the libraries that it needs, the policies, what verifies certificates.
//! Nothing else is in it, so there is neither a shell nor a package manager.

use super::architecture::Architecture;
use super::arm64;
use super::settings::SERVICE;
use super::size;
use crate::run::{cargo, output, root, step, target};
use crate::sbom::{self, Product};
use crate::{plugins, web};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a service finds them.
const POLICIES: &str = "usr/share/paygress/plugins";
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Debian's packages of what is copied from them: their licenses go with it.
const PACKAGES: [&str; 3] = ["libc6", "libgcc-s1", "ca-certificates"];

/// Puts together what the image holds. A program that is given is not built, and neither are the
/// policies: `cargo xtask plugins` has done that.
pub(super) fn fill(
    architecture: Architecture,
    program: Option<&Path>,
    rootfs: &Path,
) -> Result<()> {
    // That of the tests is larger than the one that is released.
    let is_released = program.is_none();
    let program = match program {
        Some(program) => program.to_owned(),
        None => build_service(architecture)?,
    };
    let to = rootfs.join(inside(SERVICE.entrypoint));
    put(&program, &to)?;
    output(Command::new(architecture.strip()).arg(&to))?;
    let libraries = match architecture {
        Architecture::Amd64 => libraries(&program)?,
        Architecture::Arm64 => arm64::libraries(&program)?,
    };
    for (from, place) in libraries {
        put(&from, &rootfs.join(place))?;
    }
    for (slot, file) in plugins::default_files() {
        put(&file, &rootfs.join(POLICIES).join(format!("{slot}.wasm")))?;
    }
    put(&Path::new("/").join(CERTIFICATES), &rootfs.join(CERTIFICATES))
        .context("apt-get install ca-certificates")?;
    licenses(rootfs)?;
    sbom::write(Product::Service, architecture.triple(), &rootfs.join(sbom::IN_IMAGES))?;
    if is_released {
        size::check(&SERVICE, rootfs)?;
    }
    check(architecture, rootfs)
}

/// The program as it is released, and the policies.
pub(crate) fn build_service(architecture: Architecture) -> Result<PathBuf> {
    if architecture == Architecture::Arm64 {
        arm64::prepare()?;
    }
    web::page()?;
    plugins::build_defaults()?;
    let mut command = cargo(&["build", "--quiet", "--profile", "dist", "--locked"])?;
    command.args(["--package", "paygress", "--target", architecture.triple()]);
    if architecture == Architecture::Arm64 {
        arm64::set_linker(&mut command);
    }
    step("build the service", &mut command)?;
    Ok(target().join(architecture.triple()).join("dist/paygress"))
}

/// As this system loads the program: where each is, and its place in the image.
fn libraries(program: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let listed = output(Command::new("ldd").arg(program))?;
    let found = listed.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(found.map(|path| (PathBuf::from(path), PathBuf::from(inside(path)))).collect())
}

/// Relative to the image's root.
fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn licenses(rootfs: &Path) -> Result<()> {
    let documents = Path::new("usr/share/doc");
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        put(&root().join(name), &rootfs.join(documents).join("paygress").join(name))?;
    }
    for package in PACKAGES {
        let file = documents.join(package).join("copyright");
        put(&Path::new("/").join(&file), &rootfs.join(file))?;
    }
    Ok(())
}

fn put(from: &Path, to: &Path) -> Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(from, to).with_context(|| format!("{} cannot be copied", from.display()))?;
    Ok(())
}

/// The program starts with what is in the image.
fn check(architecture: Architecture, rootfs: &Path) -> Result<()> {
    let version = match architecture {
        Architecture::Amd64 => {
            let mut chroot = Command::new("chroot");
            output(chroot.arg(rootfs).arg(SERVICE.entrypoint).arg("--version"))
                .context("checking the image needs root")?
        }
        Architecture::Arm64 => arm64::run_in(rootfs, SERVICE.entrypoint, "--version")?,
    };
    ensure!(version.starts_with("paygress "), "the program in the image prints {version:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_its_libraries_and_what_loads_it() {
        let found = libraries(&std::env::current_exe().unwrap()).unwrap();
        for (from, place) in &found {
            assert!(from.exists() && from.ends_with(place), "{}", from.display());
        }
        let places: Vec<_> = found.iter().map(|(_, place)| place.to_string_lossy()).collect();
        for name in ["libc.so.6", "ld-linux"] {
            assert!(places.iter().any(|place| place.contains(name)), "{name}: {places:?}");
        }
    }
}
