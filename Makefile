# Every way to run this repository. Each target does all of its own set-up and needs neither a terminal nor input.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help screenshots cli docs demo down check unit system test soak bench plugin images lint engine

ifndef MACHINE_PATH
export MACHINE_PATH := $(PATH)
endif
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

STAMP := node_modules/.stamp
VITEST := node node_modules/vitest/vitest.mjs run
# For each tier's results, which .ci/run adds up.
REPORT = --reporter=default --reporter=json --outputFile.json=var/test/$(1).json

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## set everything up and log some sample containers with it
	@demo/demo.sh

down: $(STAMP) ## remove what the demo started: containers, consumer, Kafka, plugin; the log files stay
	@demo/down.sh

check: lint unit ## types, lint, format and the unit tests, in about two minutes on two cores

lint: $(STAMP)
	@tsc --noEmit
	@tsc --noEmit -p web
	@biome check --error-on-warnings .

unit: $(STAMP) ## the unit tests
	@setup/ripgrep.sh
	@$(VITEST) --project unit $(call REPORT,unit)

system: images ## the system tests, on a real engine, plugin and Kafka
	@setup/chromium.sh
	@KAFKA_IMAGE=$$(setup/kafka-image.sh | tail -n 1) TESTCONTAINERS_RYUK_DISABLED=true \
	  $(VITEST) --project system $(call REPORT,system)

test: ## everything of check and system; one that fails does not keep the other from running
	@failed=; for tier in lint unit system; do $(MAKE) --no-print-directory $$tier || failed+=" $$tier"; done; \
	  [ -z "$$failed" ] || { echo "make test: FAILED:$$failed"; exit 1; }

soak: $(STAMP) ## the tests that have long forms in those: more kills, lines, containers and simulated failures
	@failed=; SOAK=1 $(VITEST) --project unit $$(grep -l inSoak test/unit/*.test.ts) || failed+=" unit"; \
	  SOAK=1 $(MAKE) --no-print-directory system || failed+=" system"; \
	  [ -z "$$failed" ] || { echo "make soak: FAILED:$$failed"; exit 1; }

bench: images ## measure side by side with json-file
	@KAFKA_IMAGE=$$(setup/kafka-image.sh | tail -n 1) node bench/main.ts

docs: $(STAMP) ## write what follows from schemas and definitions: docs/{log-opts,settings,cli}.md, the man page, the env of plugin-config.json
	@node setup/docs.ts

cli: $(STAMP) ## pack the command: dist/tallyman-VERSION.tgz, for npm install -g
	@node setup/bundle.ts cli
	@node setup/cli-package.ts

screenshots: $(STAMP) ## take the pictures in docs/ from the demo, which has to run
	@setup/chromium.sh
	@node test/support/screenshots.ts

plugin: engine ## create or upgrade the plugin tallyman:latest, and enable it
	@setup/images.sh plugin-rootfs
	@setup/plugin.sh tallyman:latest

images: engine ## build every image
	@setup/kafka-image.sh
	@setup/images.sh

engine: $(STAMP)
	@setup/engine.sh
	@setup/base-image.sh

$(STAMP): package-lock.json $(wildcard patches/*)
	@# With the machine's own Node: npm removes the one in node_modules while it runs.
	@PATH="$(MACHINE_PATH)" npm ci --no-audit --no-fund --loglevel=error
	@node node_modules/patch-package/index.js --error-on-fail
	@touch $@
