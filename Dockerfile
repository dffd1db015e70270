# syntax=docker/dockerfile:1

# Rented Messaging: one binary that needs libc and CA certificates, run by a user without rights.
#
#   docker build -t rented-messaging .
#   docker run --read-only --tmpfs /tmp -v messaging:/var/lib/rented-messaging -p 3001:3001 \
#     -e MAIN_API_URL=http://main-api:8000/api/v1 rented-messaging
#
# docs/deploy.md has the rest. deploy/try-image runs these steps by hand where there is no Docker engine.

# --- Dependencies: built again only when a manifest changes ---
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY crates/edge/Cargo.toml crates/edge/
COPY crates/loadtest/Cargo.toml crates/loadtest/
COPY crates/messaging/Cargo.toml crates/messaging/
# Empty sources stand in for ours; what cargo made of them is removed, so that the real ones count as new.
RUN mkdir -p crates/edge/src crates/loadtest/src crates/messaging/src \
    && touch crates/edge/src/lib.rs crates/loadtest/src/lib.rs crates/messaging/src/lib.rs \
    && echo 'fn main() {}' | tee crates/loadtest/src/main.rs > crates/messaging/src/main.rs \
    && cargo build --release --locked -p messaging \
    && cargo clean --release -p messaging -p edge \
    && rm -r crates/*/src

# --- The service ---
COPY . .
RUN cargo build --release --locked -p messaging

# --- What runs ---
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 messaging \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin messaging \
    && install -d -o messaging -g messaging /var/lib/rented-messaging /var/lib/rented-messaging/data \
       /var/lib/rented-messaging/uploads
COPY --from=build /src/target/release/rented-messaging /usr/local/bin/rented-messaging

# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# The one folder that is written to: the embedded database and uploaded files, where they are not elsewhere.
WORKDIR /var/lib/rented-messaging
VOLUME /var/lib/rented-messaging
ENV NODE_ENV=production \
    DATA_DIR=/var/lib/rented-messaging/data \
    UPLOAD_DIR=/var/lib/rented-messaging/uploads
EXPOSE 3001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["rented-messaging", "health"]
ENTRYPOINT ["rented-messaging"]
CMD ["serve"]
