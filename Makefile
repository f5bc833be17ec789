# SPDX-FileCopyrightText: The Rollcall Authors
# SPDX-License-Identifier: Apache-2.0

GO ?= go
# What `make cover` counts: the packages that a user of the library links.
COVER_PKGS ?= . ./endpoints ./resolver ./serving ./xds ./balancer/weighted ./balancer/zone ./internal/spread ./internal/backoff ./internal/background ./internal/diskcache ./internal/endpointattr ./internal/etcdconn ./internal/etcdkv ./internal/reflector ./internal/jsonscan ./internal/printable ./internal/throttle ./internal/topic ./internal/inventory ./internal/cluster ./metrics/prometheus ./metrics/otel ./metrics/internal/table ./internal/timeline ./internal/edit ./internal/console ./internal/top ./internal/healthcheck ./internal/agent ./internal/doctor
# What `make grpc-latest` tests, and on which gRPC.
GRPC_LATEST ?= v1.85.0
GRPC_PKGS ?= ./...
BENCH ?= .
ETCD ?= 3.5
FUZZTIME ?= 30s
HOURS ?= 1000
SOAK ?= 20m
TEST_TIMEOUT ?= 25m

comma := ,
empty :=
space := $(empty) $(empty)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: check
check: fmt vet lint test-race check-bench ## everything that must pass before a change lands

.PHONY: fmt
fmt: ## fail if a file is not formatted
	@files=$$(gofmt -l .) && if [ -n "$$files" ]; then \
		echo "not formatted (run gofmt -w):" >&2; echo "$$files" >&2; exit 1; fi

.PHONY: vet
vet: ## go vet
	$(GO) vet ./...

.PHONY: lint
lint: bin/staticcheck ## staticcheck, in the version that tools/go.mod pins
	bin/staticcheck ./...

bin/staticcheck: tools/go.mod tools/go.sum
	$(GO) build -C tools -o ../bin/staticcheck honnef.co/go/tools/cmd/staticcheck

.PHONY: test
test: ## all tests
	$(GO) test -timeout $(TEST_TIMEOUT) ./...

BUSY = polyglot|monitoring|browser

.PHONY: test-race
test-race: ## all tests, with the race detector; alone those that run programs of others, which keep all cores busy
	$(GO) test -race -timeout $(TEST_TIMEOUT) $$($(GO) list ./... | grep -vE '/e2e/($(BUSY))$$')
	$(GO) test -race -timeout $(TEST_TIMEOUT) -p 1 $$($(GO) list ./... | grep -E '/e2e/($(BUSY))$$')

.PHONY: cover
cover: ## statement coverage of the library by all tests
	@mkdir -p coverage
	$(GO) test -timeout $(TEST_TIMEOUT) -coverprofile=coverage/all.out \
		-coverpkg=$(subst $(space),$(comma),$(strip $(COVER_PKGS))) ./...
	$(GO) tool cover -func=coverage/all.out | tail -n 1

.PHONY: microbench
microbench: ## Go benchmarks of all packages; BENCH selects some
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

# Rollcall, its peers and a raw watch, on one etcd; the tables go to docs/benchmarks.md. The
# figures depend on the machine and its load.
.PHONY: bench
bench: ## measure Rollcall and its peers; write docs/benchmarks.md
	cd bench && $(GO) run . -bars -write ../docs

.PHONY: bench-quick
bench-quick: ## the same in a minute: one round, only printed
	cd bench && $(GO) run . -quick

.PHONY: check-bench
check-bench: bin/staticcheck ## vet, staticcheck and tests of the bench module
	cd bench && $(GO) vet ./... && ../bin/staticcheck ./... && $(GO) test -timeout $(TEST_TIMEOUT) ./...

.PHONY: fuzz
fuzz: ## every fuzz test, each for FUZZTIME
	@set -e; for pkg in . ./resolver ./internal/jsonscan; do \
		for name in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$pkg; done; done

# Faults on real etcd, a line each; the table goes to docs/reliability.md.
.PHONY: faults
faults: ## test the faults on Rollcall and etcd's package; write docs/reliability.md
	ROLLCALL_FAULTS=1 $(GO) test -json -count=1 -p 1 -timeout 40m -run '^Test(Proxy|Etcd36)?[WGLA][0-9]+' \
		./internal/test/e2e/... | $(GO) run ./internal/test/e2e/faults -write docs/reliability.md

# Each version of etcd is built from its module in tools.
.PHONY: etcd-versions
etcd-versions: ## test what works on etcd 3.4 to 3.7; write docs/etcd-versions.md
	$(GO) run ./internal/test/e2e/versions -write docs/etcd-versions.md 3.4 3.5 3.6 3.7

.PHONY: etcd-version
etcd-version: ## test what works on etcd ETCD
	$(GO) run ./internal/test/e2e/versions $(ETCD)

.PHONY: clients
clients: ## test xDS clients of five languages; write docs/xds-clients.md
	$(GO) test -count=1 -v ./internal/test/e2e/polyglot -write ../../../../docs/xds-clients.md

.PHONY: screenshots
screenshots: ## write the pictures of the page in docs/console
	$(GO) test -count=1 -run '^TestScreenshots$$' ./internal/test/e2e/browser -update

.PHONY: random
random: ## random faults on a fake etcd, for HOURS of virtual time
	$(GO) test -count=1 -timeout 40m -run '^TestRandom$$' ./internal/test/random -hours $(HOURS)

.PHONY: soak
soak: ## random faults on real etcd, for SOAK
	$(GO) test -count=1 -timeout 24h -v -run '^TestSoak$$' ./internal/test/random ./xds -soak $(SOAK)

# What a release is stamped with. The source without git has to be told.
VERSION ?= $(shell git describe --tags --always --dirty)
COMMIT ?= $(shell git rev-parse HEAD)
COMMIT_DATE ?= $(shell git log -1 --format=%cI)
RELEASE = $(GO) run ./internal/release -version "$(VERSION)" -commit "$(COMMIT)" -date "$(COMMIT_DATE)"

.PHONY: release
release: ## build archives for all platforms into dist, with checksums and bills of materials
	$(RELEASE) -out dist

# `make check` does so with one build cache.
.PHONY: reproducible
reproducible: ## build the release for linux in two folders, with two build caches, and compare
	$(GO) test -count=1 -v -timeout 60m -run '^TestReproducible$$' ./internal/release -cold

.PHONY: demo
demo: ## show Rollcall at work, with its own etcd and servers
	$(GO) run ./cmd/rollcall demo

# The newer gRPC is required in copies of go.mod and go.sum.
.PHONY: grpc-latest
grpc-latest: ## test GRPC_PKGS with gRPC GRPC_LATEST
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	cp go.mod go.sum "$$dir"; \
	$(GO) mod edit -require=google.golang.org/grpc@$(GRPC_LATEST) "$$dir/go.mod"; \
	$(GO) list -mod=mod -modfile="$$dir/go.mod" -m google.golang.org/grpc; \
	$(GO) test -mod=mod -modfile="$$dir/go.mod" -timeout $(TEST_TIMEOUT) $(GRPC_PKGS)
