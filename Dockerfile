# Builds on Debian and runs on Debian: the agent links glibc and nothing else.
#
#   docker build -t tidegate .
#   docker run --rm -p 4317:4317 -p 4318:4318 -v "$PWD/my.yaml:/etc/tidegate/config.yaml:ro" tidegate

FROM rust:1-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src ./src
# The manifest names them; `--bin` does not build them.
COPY benches ./benches
COPY tests/nvml_stand_in ./tests/nvml_stand_in
COPY README.md LICENSE ./
RUN cargo build --locked --release --bin tidegate

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /nonexistent --no-create-home tidegate \
    && install --directory --owner=tidegate --group=tidegate /var/lib/tidegate
COPY --from=build /build/target/release/tidegate /usr/local/bin/tidegate
COPY LICENSE /usr/share/doc/tidegate/LICENSE
USER 10001:10001
# OTLP over gRPC and HTTP, the agent's own metrics, health.
EXPOSE 4317 4318 8888 13133
ENTRYPOINT ["/usr/local/bin/tidegate"]
CMD ["--config", "/etc/tidegate/config.yaml"]
