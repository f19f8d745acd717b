//! Lists of images that operators can take as they are.

/// Well-known images for work by SSH: systems, languages, databases. Each is of `docker.io`.
pub(crate) const COMMON: [(&str, &str); 20] = [
    ("debian:13", "Debian 13"),
    ("debian:12", "Debian 12"),
    ("ubuntu:24.04", "Ubuntu 24.04 LTS"),
    ("ubuntu:22.04", "Ubuntu 22.04 LTS"),
    ("alpine:3", "Alpine Linux 3"),
    ("fedora:latest", "Fedora"),
    ("archlinux:latest", "Arch Linux"),
    ("busybox:1", "BusyBox 1"),
    ("python:3", "Python 3 on Debian"),
    ("node:22", "Node.js 22 on Debian"),
    ("node:24", "Node.js 24 on Debian"),
    ("golang:1", "Go 1 on Debian"),
    ("rust:1", "Rust 1 on Debian"),
    ("ruby:3", "Ruby 3 on Debian"),
    ("php:8", "PHP 8 on Debian"),
    ("perl:5", "Perl 5 on Debian"),
    ("gcc:latest", "GCC on Debian"),
    ("postgres:17", "PostgreSQL 17 on Debian"),
    ("redis:7", "Redis 7 on Debian"),
    ("linuxserver/openssh-server:latest", "Alpine Linux of LinuxServer.io"),
];
