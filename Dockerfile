# Two images from dist/, which setup/bundle.ts makes. Plain multi-stage, so that the legacy builder and BuildKit both take it.

FROM debian:bookworm-slim AS base
COPY dist/node /usr/local/bin/node

# node and the shared libraries that it and koffi's binary ask for. No shell, no packages.
FROM base AS plugin-libraries
COPY dist/driver/node_modules /tmp/node_modules
RUN set -eu; \
    find /tmp/node_modules -name '*.node' -exec ldd /usr/local/bin/node '{}' + >/tmp/ldd; \
    if grep 'not found' /tmp/ldd; then exit 1; fi; \
    grep -o '/[^ :]*\.so[^ :]*' /tmp/ldd | sort -u | while read -r file; do \
      install -D "$(readlink -f "$file")" "/rootfs$file"; \
    done; \
    install -D /usr/local/bin/node /rootfs/usr/local/bin/node; \
    mkdir -p /rootfs/run/docker/plugins /rootfs/run/docker/logging; \
    chroot /rootfs /usr/local/bin/node --version

FROM scratch AS plugin-rootfs
COPY --from=plugin-libraries /rootfs /
COPY dist/driver /driver

FROM base AS consumer
# Search: ripgrep, and what it reads compressed days with.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ripgrep zstd gzip \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY dist/consumer /consumer
COPY dist/cli /cli
COPY dist/web /web
RUN printf '#!/bin/sh\nexec /usr/local/bin/node /cli/main.js "$@"\n' >/usr/local/bin/tallyman && chmod +x /usr/local/bin/tallyman
# A fetch's garbage is young: it is collected where it is made, in pieces of 4 MiB, without waking a thread. From V8's default on the
# fetched batches, which are counted towards its limit, would cost a full collection every few of them.
ENTRYPOINT ["/usr/local/bin/node", "--max-semi-space-size=4", "--single-threaded-gc", "--initial-old-space-size=64", "/consumer/main.js"]
