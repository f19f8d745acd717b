//! Builds images without a container engine: the archives that the tests load, and the files that
//! the Dockerfile copies, are the same.

mod architecture;
mod arm64;
mod debian;
mod pack;
mod service;
mod settings;
mod size;
mod ssh;

pub(crate) use architecture::Architecture;
pub(crate) use service::build_service;
pub(crate) use settings::{SERVICE, SSH, Settings};
pub(crate) use ssh::build_of_server;

use crate::run::remove_directory;
use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Image {
    /// The SSH server and busybox, for itself and for `SSH_SERVER_IMAGE`.
    Ssh,
    /// Debian 12 with python3, git, curl, vim, rsync, sudo: for pods with `SSH_SERVER_IMAGE`.
    Debian,
    /// The service, with the default policies.
    Service,
}

/// Where the archive of an image is.
pub(crate) fn archive(image: Image, architecture: Architecture) -> PathBuf {
    let name = match (image, architecture) {
        (Image::Ssh, Architecture::Amd64) => "ssh.tar",
        (Image::Ssh, Architecture::Arm64) => "ssh-arm64.tar",
        (Image::Debian, _) => "debian.tar",
        (Image::Service, Architecture::Amd64) => "service.tar",
        (Image::Service, Architecture::Arm64) => "service-arm64.tar",
    };
    pack::directory().join(name)
}

pub(crate) fn build(image: Image, architecture: Architecture) -> Result<()> {
    let archive = archive(image, architecture);
    match (image, architecture) {
        (Image::Ssh, _) => {
            packed(&SSH, architecture, &archive, |rootfs| ssh::fill(architecture, rootfs))
        }
        (Image::Service, _) => packed(&SERVICE, architecture, &archive, |rootfs| {
            service::fill(architecture, None, rootfs)
        }),
        (Image::Debian, Architecture::Amd64) => {
            fs::create_dir_all(pack::directory())?;
            debian::build(&archive)
        }
        (Image::Debian, Architecture::Arm64) => {
            bail!("debian is built for amd64 only, since debootstrap runs its programs")
        }
    }
}

/// The service's image, of a program that is built for this computer.
pub(crate) fn build_of(images: &[Image], architecture: Architecture, program: &Path) -> Result<()> {
    let ([Image::Service], Architecture::Amd64) = (images, architecture) else {
        bail!("a program is put into the image `service` for amd64, and into no other");
    };
    let archive = archive(Image::Service, architecture);
    packed(&SERVICE, architecture, &archive, |rootfs| {
        service::fill(architecture, Some(program), rootfs)
    })
}

/// The files of an image, for the Dockerfile.
pub(crate) fn files(images: &[Image], architecture: Architecture, rootfs: &Path) -> Result<()> {
    ensure!(!rootfs.exists(), "{} is there: name a new directory", rootfs.display());
    fs::create_dir_all(pack::directory())?;
    match images {
        [Image::Ssh] => ssh::fill(architecture, rootfs),
        [Image::Service] => service::fill(architecture, None, rootfs),
        _ => bail!("a directory takes the files of one image, `service` or `ssh`"),
    }
}

fn packed(
    settings: &Settings,
    architecture: Architecture,
    archive: &Path,
    fill: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    fs::create_dir_all(pack::directory())?;
    let rootfs = archive.with_extension("rootfs");
    remove_directory(&rootfs)?;
    fill(&rootfs)?;
    let options = settings.options(architecture);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    // Every time is the same: so is the image, if its files are.
    pack::pack(archive, settings.name, &rootfs, "0", &options)
}
