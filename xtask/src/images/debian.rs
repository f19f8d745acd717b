//! Debian as its own archive has it, by debootstrap: a minute or two, so it is built once for each
//! recipe.

use super::pack::{directory, pack};
use crate::run::{output, remove_directory, step};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const NAME: &str = "paygress.local/debian:12";
const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
const PACKAGES: &str = "ca-certificates,curl,git,python3,python3-apt,rsync,sudo,vim-tiny";
const SOURCES: &str = "\
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
";
/// Changes whenever something else below does.
const REVISION: u32 = 1;

pub(super) fn build(archive: &Path) -> Result<()> {
    let (kept, rootfs) = (directory().join("debian.recipe"), directory().join("debian.rootfs"));
    let recipe = format!("{NAME} {SUITE} {MIRROR} {PACKAGES} {REVISION}\n{SOURCES}");
    if archive.exists() && fs::read_to_string(&kept).is_ok_and(|kept| kept == recipe) {
        println!("── {NAME} is there; remove {} to build it anew", archive.display());
        return Ok(());
    }
    if !Path::new("/usr/sbin/debootstrap").exists() {
        bail!("debootstrap is missing: apt-get install debootstrap");
    }
    remove_directory(&rootfs)?;
    // What it mounts in the new system ends with it, however it ends.
    let mut debootstrap = Command::new("unshare");
    debootstrap.args(["--mount", "/usr/sbin/debootstrap", "--variant=minbase"]);
    debootstrap.arg(format!("--include={PACKAGES}")).arg(SUITE).arg(&rootfs).arg(MIRROR);
    step("debootstrap Debian 12", debootstrap.stdout(Stdio::null()))?;
    let released = released(&rootfs)?;
    clean(&rootfs)?;
    fs::write(rootfs.join("etc/apt/sources.list"), SOURCES)?;
    pack(archive, NAME, &rootfs, &released, &["--entrypoint", r#"["/bin/bash"]"#])?;
    fs::write(kept, recipe)?;
    Ok(())
}

/// When Debian has published the packages, in seconds since 1970: no file of theirs is younger.
fn released(rootfs: &Path) -> Result<String> {
    let lists = rootfs.join("var/lib/apt/lists");
    for entry in fs::read_dir(&lists)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with("Release") {
            let text = fs::read_to_string(&path)?;
            let date = text.lines().find_map(|line| line.strip_prefix("Date: "));
            let date = date.with_context(|| format!("{} has no date", path.display()))?;
            return output(Command::new("date").args(["--utc", "--date", date, "+%s"]));
        }
    }
    bail!("there is no Release file in {}", lists.display())
}

/// Leaves out documentation, translations, caches, and what belongs to the machine of the build.
fn clean(rootfs: &Path) -> Result<()> {
    for (directory, kept) in [
        // Licenses must go with their programs.
        ("usr/share/doc", "copyright"),
        ("usr/share/man", ""),
        ("usr/share/info", ""),
        ("usr/share/lintian", ""),
        ("usr/share/locale", ""),
        ("var/cache/apt", ""),
        ("var/cache/ldconfig", ""),
        ("var/lib/apt/lists", ""),
        ("var/log", ""),
        ("dev", ""),
    ] {
        remove_files(&rootfs.join(directory), kept).context(directory)?;
    }
    for file in ["etc/hostname", "etc/resolv.conf"] {
        fs::write(rootfs.join(file), "")?;
    }
    Ok(())
}

/// The directories stay, since packages expect them, and files of this name.
fn remove_files(directory: &Path, kept: &str) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_files(&entry.path(), kept)?;
        } else if entry.file_name() != kept {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_licenses_stay() {
        let directory = std::env::temp_dir().join(format!("paygress-{}", std::process::id()));
        let (doc, man) = (directory.join("doc/git"), directory.join("man/man1"));
        for path in [&doc, &man] {
            fs::create_dir_all(path).unwrap();
        }
        for file in [doc.join("copyright"), doc.join("changelog.gz"), man.join("git.1.gz")] {
            fs::write(file, "").unwrap();
        }
        remove_files(&directory, "copyright").unwrap();
        let left = fs::read_dir(&doc).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["copyright"]);
        assert_eq!(fs::read_dir(&man).unwrap().count(), 0);
        remove_directory(&directory).unwrap();
    }
}
