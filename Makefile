# The targets that people and CI use. Everything needs Go only, but for e2e and
# bench, which need a cluster: KUBECONFIG, and the sample application of
# test/cluster on it.

GO ?= go
BIN := $(CURDIR)/bin

.PHONY: build test conformance verifiers names service trust e2e bench demo dist deb rpm distcheck lint soak fuzz clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/...

# All that needs no cluster: the embedded one is part of it. The race detector
# takes a C compiler.
test:
	$(GO) test $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race) -shuffle=on ./...
	$(GO) test -C packaging/tools ./...

# What others' programs say of the DNS server: dig, NSD, Knot DNS and dnsperf,
# which have to be installed.
conformance:
	$(GO) test -tags conformance -count=1 -v ./test/dns

# What others' TLS clients accept of what a thief of the CA's key can sign: curl,
# OpenSSL, Python, Node, GnuTLS, NSS, Java and Chromium, which have to be installed.
verifiers:
	$(GO) test -tags verifiers -count=1 -v ./test/verifiers

# Names on whole systems, in containers: as root on Debian. The first time, the
# systems are fetched.
names:
	$(GO) test -tags names -count=1 -timeout 20m -v ./test/names

# tunneld as it is installed, upgraded and taken out, on whole systems, in containers:
# as root on Debian, like names.
service:
	$(GO) test -tags service -count=1 -timeout 30m -v ./test/service

# Trust stores, browsers and other clients, in namespaces: as root on Debian.
trust:
	$(GO) test -tags trust -count=1 -timeout 10m -v ./test/trust

demo: build
	$(BIN)/tunneld demo

e2e: build
	TUNNELD_BIN=$(BIN) $(GO) test -tags e2e -count=1 -timeout 20m -v ./test/e2e

# The comparison with kubectl port-forward, on the same cluster in the same run:
# see docs/performance.md. Part of it, once: BENCHFLAGS="-only HTTP -rounds 1".
bench: build
	$(GO) run ./test/bench -bin $(BIN) $(BENCHFLAGS)

# What is published, into dist/: see docs/packaging.md. VERSION=1.2.3 says which
# version it is; else the commit does.
DIST = $(GO) run -C packaging/tools ./dist -root $(CURDIR) -version "$(VERSION)"
dist:
	$(DIST)

# One package for Linux, into dist/, in seconds.
ARCH ?= amd64
deb rpm:
	$(DIST) -only $@ -platform linux/$(ARCH)

# Whether the same sources make the same bytes, and what lintian, rpm and others
# say of them.
distcheck:
	$(GO) test -C packaging/tools -tags dist -count=1 -timeout 20m -v ./dist

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not gofmt'ed: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e,conformance,verifiers,names,service,trust ./test/...
	GOOS=darwin $(GO) vet ./...
	GOOS=windows $(GO) vet ./...
	@for target in darwin/amd64 darwin/arm64 windows/amd64 windows/arm64; do \
		echo "build for $$target"; \
		CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} $(GO) build -o /dev/null ./cmd/... || exit 1; \
	done
	$(GO) tool staticcheck ./...
	cd packaging/tools && $(GO) vet -tags dist ./... && $$(cd $(CURDIR) && $(GO) tool -n staticcheck) -tags dist ./... && $(GO) mod tidy -diff
	$(GO) mod tidy -diff
	@if $(GO) tool govulncheck -version 2>&1 | grep -q 'DB updated'; then $(GO) tool govulncheck ./...; else echo 'lint: the vulnerability database cannot be reached, so govulncheck is left out'; fi

# What takes too long for CI: the tests that have a long form, of which those on
# the cluster take about an hour, and ten minutes for each fuzz target.
soak: export TUNNELD_SOAK = 1
soak: build
	$(GO) test -count=1 -timeout 30m -v -run '^TestNothingStaysOfConnectionsAndPods$$' ./internal/daemon
	$(GO) test -tags conformance -count=1 -timeout 30m -v -run '^TestLoad$$' ./test/dns
	$(GO) test -tags names -count=1 -timeout 2h -v ./test/names
	$(GO) test -tags service -count=1 -timeout 2h -v ./test/service
	$(GO) test -tags trust -count=1 -timeout 2h -v -run '^TestUndo' ./test/trust
	TUNNELD_BIN=$(BIN) $(GO) test -tags e2e -count=1 -timeout 2h -v -run '^TestFault' ./test/e2e
	$(GO) test -C packaging/tools -tags dist -count=1 -timeout 2h -v -run '^TestReproducible$$' ./dist
	$(MAKE) fuzz

FUZZTIME ?= 10m
fuzz:
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "fuzz: $$pkg $$target for $(FUZZTIME)"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

clean:
	rm -rf $(BIN) dist
