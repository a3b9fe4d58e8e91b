# syntax=docker/dockerfile:1

# --- build ---
# The oldest Rust the manifest allows, on the same Debian as the image below, so that the binary finds the libc it was linked to.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches live in the builder, not in a layer: a change of the source compiles the source, not 500 crates again.
# Out of the cache with it: a cache mount is gone when the step ends.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin sluice && \
    install target/release/sluice /usr/local/bin/sluice

# --- run ---
# sluice-signer is absent on purpose: it holds private keys, and those never come near a server.
FROM debian:bookworm-slim
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --system --uid 10001 --home-dir /var/lib/sluice --create-home sluice
COPY --from=build /usr/local/bin/sluice /usr/local/bin/sluice
USER sluice
# Relative paths of the configuration (SQLite, the node's own state) end up here.
WORKDIR /var/lib/sluice
VOLUME /var/lib/sluice
# The API; metrics and health. Who listens where is configuration, loopback unless it says otherwise.
EXPOSE 8080 9464
# Live, not ready: a gateway that waits for its bitcoind is healthy, and a restart would not help it. It asks where the
# configuration says that the operator's listener is, in its file or in the environment.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["sluice", "health", "--live"]
ENTRYPOINT ["sluice"]
CMD ["serve"]
