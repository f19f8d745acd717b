//! `.ci/release`, on files as those of an image.

use crate::run::{output, remove_directory, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TAG: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// A directory that is gone with this.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("paygress-{name}-{}", std::process::id()));
        remove_directory(&path).unwrap();
        for platform in ["amd64", "arm64"] {
            let files = path.join("files").join(format!("linux_{platform}"));
            for file in [
                "etc/ssl/certs/ca-certificates.crt",
                "usr/local/bin/paygress",
                "usr/share/doc/libc6/copyright",
                "usr/share/doc/paygress/LICENSE-MIT",
                "usr/share/paygress/plugins/pricing.wasm",
                "usr/share/paygress/sbom.cdx.json",
            ] {
                let file = files.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, platform).unwrap();
            }
        }
        Self(path)
    }

    fn release(&self, tag: &str, out: &Path) -> anyhow::Result<String> {
        let mut release = Command::new(root().join(".ci/release"));
        output(release.arg(tag).arg(self.0.join("files")).arg(out))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = remove_directory(&self.0);
    }
}

#[test]
fn a_release_has_archives_that_its_checksums_confirm() {
    let directory = Directory::new("release");
    let (out, again) = (directory.0.join("out"), directory.0.join("again"));
    directory.release(TAG, &out).unwrap();
    directory.release(TAG, &again).unwrap();
    let sums = fs::read_to_string(out.join("SHA256SUMS")).unwrap();
    assert_eq!(sums, fs::read_to_string(again.join("SHA256SUMS")).unwrap());
    output(Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(&out)).unwrap();
    let names: Vec<&str> = sums.lines().filter_map(|line| line.split("  ").nth(1)).collect();
    let expected = ["amd64.cdx.json", "amd64.tar.gz", "arm64.cdx.json", "arm64.tar.gz"];
    assert_eq!(names, expected.map(|name| format!("paygress-{TAG}-linux-{name}")));
    let archive = out.join(format!("paygress-{TAG}-linux-arm64.tar.gz"));
    let listed = output(Command::new("tar").arg("-tzf").arg(archive)).unwrap();
    let files: Vec<&str> = listed.lines().filter(|line| !line.ends_with('/')).collect();
    let expected = [
        "usr/local/bin/paygress",
        "usr/share/paygress/plugins/pricing.wasm",
        "usr/share/paygress/sbom.cdx.json",
        "usr/share/doc/paygress/LICENSE-MIT",
    ];
    assert_eq!(files, expected);
    assert!(!fs::read_to_string(out.join("notes.md")).unwrap().trim().is_empty());
}

#[test]
fn a_tag_of_another_version_is_refused() {
    let directory = Directory::new("tag");
    let refused = directory.release("v99.0.0", &directory.0.join("out")).unwrap_err();
    assert!(refused.to_string().contains("is not v"), "{refused}");
}
