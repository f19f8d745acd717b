# The images of the service and of the SSH server for pods, for amd64 and arm64:
#   docker buildx build --tag paygress.local/paygress:1 .
#   docker buildx build --target paygress-ssh --tag paygress.local/ssh:1 .
# `cargo xtask images` decides what is in them, here as in the tests, which need no container engine. The stages that are
# images only copy it. Both architectures are compiled on amd64, so nothing of a build is emulated.

# The digest of the list of all architectures. `cargo xtask check` wants one; take a new one together with the version in
# rust-toolchain.toml: docker buildx imagetools inspect rust:VERSION-bookworm
FROM --platform=linux/amd64 rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build
WORKDIR /src
# The cross compiler; npm for the web page's libraries; busybox for pods; QEMU and an SSH client for the check of what is
# built for arm64.
RUN apt-get update \
    && apt-get install -y --no-install-recommends busybox-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross npm \
    openssh-client qemu-user-static sshpass \
    && rm -rf /var/lib/apt/lists/*
COPY . .
RUN cargo build --locked --package xtask

FROM build AS service-files
ARG TARGETARCH
RUN cargo xtask images service --arch "$TARGETARCH" --rootfs /out

FROM build AS ssh-files
ARG TARGETARCH
RUN cargo xtask images ssh --arch "$TARGETARCH" --rootfs /out

FROM scratch AS paygress-ssh
COPY --from=ssh-files /out /
USER 1000:1000
EXPOSE 2222
ENTRYPOINT ["/bin/paygress-sshd"]

# The last one is what a build makes that names none. It writes only to its volumes: run it with --read-only.
FROM scratch AS paygress
COPY --from=service-files /out /
USER 1000:1000
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/paygress"]
CMD ["serve"]
