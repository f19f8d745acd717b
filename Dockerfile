# The image of the service:
#   docker build -t paygress.local/paygress:1 .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The libraries of the web page, as locked.
RUN apt-get update && apt-get install -y --no-install-recommends npm && cd host/http/web && npm ci --ignore-scripts --omit=dev
RUN cargo xtask plugins && cargo build --release --package paygress

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/paygress /usr/local/bin/paygress
COPY --from=build /src/target/plugins /usr/share/paygress/plugins
USER 1000:1000
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/paygress"]
CMD ["serve"]
