//! Builds images for pods without a container engine.

mod architecture;
mod arm64;
mod debian;
mod pack;
mod ssh;

pub(crate) use architecture::Architecture;
pub(crate) use ssh::build_of_server;

use anyhow::{Result, bail};
use clap::ValueEnum;
use std::fs;
use std::path::PathBuf;

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Image {
    /// The SSH server and busybox, for itself and for `SSH_SERVER_IMAGE`.
    Ssh,
    /// Debian 12 with python3, git, curl, vim, rsync: for pods with `SSH_SERVER_IMAGE`.
    Debian,
}

/// Where the archive of an image is.
pub(crate) fn archive(image: Image, architecture: Architecture) -> PathBuf {
    let name = match (image, architecture) {
        (Image::Ssh, Architecture::Amd64) => "ssh.tar",
        (Image::Ssh, Architecture::Arm64) => "ssh-arm64.tar",
        (Image::Debian, _) => "debian.tar",
    };
    pack::directory().join(name)
}

pub(crate) fn build(image: Image, architecture: Architecture) -> Result<()> {
    fs::create_dir_all(pack::directory())?;
    let archive = archive(image, architecture);
    match (image, architecture) {
        (Image::Ssh, _) => ssh::build(architecture, &archive),
        (Image::Debian, Architecture::Amd64) => debian::build(&archive),
        (Image::Debian, Architecture::Arm64) => {
            bail!("debian is built for amd64 only, since debootstrap runs its programs")
        }
    }
}
