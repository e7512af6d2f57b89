# The image of tillgate: one static binary, nothing else. deploy/README.md says how it is run.
#
# It is built by Alpine's Rust, whose binaries need no libc beside them. With a builder of another kind, or without a
# network, name it and what it builds for: --build-arg BUILDER=… --build-arg CARGO_BUILD_TARGET=… --build-arg RUSTFLAGS=…
ARG BUILDER=docker.io/library/rust:1.95-alpine3.22
FROM ${BUILDER} AS build
ARG CARGO_BUILD_TARGET
ARG RUSTFLAGS
WORKDIR /build

# The dependencies alone, so that a change of the source does not build them again.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it tests/bench \
    && touch src/lib.rs tests/it/main.rs tests/bench/main.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --locked --release

COPY config config
COPY src src
# Their times are those of the checkout: older than what was built of the empty ones.
RUN touch src/lib.rs src/main.rs \
    && cargo build --locked --release \
    && cp "target/${CARGO_BUILD_TARGET:-.}/release/tillgate" /tillgate

# For `file:`, with a volume or without: a new volume gets the owner and the mode of what it is mounted over. Root's group
# may write, too: OpenShift runs a container as a user that it chooses, in that group.
RUN mkdir -m 0770 /state

FROM scratch
COPY --from=build /tillgate /tillgate
COPY --from=build --chown=65532:0 /state /var/lib/tillgate
# For a Unix socket of listen.address, with a volume or without. The socket gets the group of its directory, which has to
# be one of the user's.
COPY --from=build --chown=65532:65532 /state /run/tillgate
USER 65532:65532
# The listeners are on loopback, which containers of one Pod, or of one network namespace, share. Nothing is exposed.
ENTRYPOINT ["/tillgate"]
CMD ["run"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/tillgate", "health"]

# Version, revision and time of building are the builder's to add: --label.
LABEL org.opencontainers.image.title="tillgate" \
      org.opencontainers.image.description="A reverse-proxy sidecar that keeps a payment secret out of merchant apps" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
