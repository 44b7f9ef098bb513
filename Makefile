# ZWRM. The two that matter: make demo, make test. Both want root and install
# what they need from Debian's packages.

PREFIX ?= /usr/local
DESTDIR ?=
BUILD := build
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags "-s -w"

.PHONY: all
all: build

.PHONY: build
build: ## the programs, static, into build/
	$(GOBUILD) -o $(BUILD)/ ./cmd/zwrm ./cmd/zwrmd ./cmd/zwrm-init

.PHONY: image
image: build ## a guest image from Debian's cloud kernel and busybox, into build/guest/
	scripts/packages.sh demo
	scripts/guest-image.sh $(BUILD)/guest

.PHONY: demo
demo: image ## two apps of real microVMs, and who reaches whom
	scripts/demo.sh

.PHONY: test
test: image ## everything, on the real kernel, in namespaces of its own
	scripts/packages.sh test
	scripts/neighbours.sh
	scripts/test.sh

FUZZTIME ?= 1m

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME; needs root
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: ## vet, formatting, golangci-lint, shellcheck, arm64 build
	scripts/lint.sh

BENCH ?= -json bench/results/performance.json -page docs/performance.md
.PHONY: bench
bench: build ## zwrmd beside the bare kernel calls and other programs, with up to 16,384 VMs, half an hour; writes the figures of docs/performance.md. Two minutes, and writes nothing: make bench BENCH=-quick
	scripts/packages.sh test
	-GOBIN=$(CURDIR)/$(BUILD)/cni CGO_ENABLED=0 go install github.com/awslabs/tc-redirect-tap/cmd/tc-redirect-tap@latest
	cd bench && CGO_ENABLED=0 go build -o ../$(BUILD)/zwrm-bench .
	CNI_PATH=$(CURDIR)/$(BUILD)/cni $(BUILD)/zwrm-bench -bin $(BUILD) $(BENCH)

.PHONY: bench-dataplanes
bench-dataplanes: ## iptables and nftables beside plain routing; writes the figures of docs/dataplanes.md
	scripts/packages.sh test
	cd test && go test ./bench -run '^$$' -bench Dataplanes -benchtime 200x -timeout 30m -v -args -update

MEMORY ?= 1000000
KERNEL ?= 20000
.PHONY: soak
soak: ## random histories for long: MEMORY operations on a kernel in memory, KERNEL on the real one
	scripts/packages.sh test
	cd test && go test -timeout 0 -count=1 -v ./model -memory $(MEMORY) -kernel $(KERNEL)

.PHONY: bench-drift
bench-drift: build ## how fast drift is noticed and mended, with 8 and 16,384 VMs; writes the figures of docs/drift.md
	scripts/packages.sh test
	cd test && ZWRM_TEST_BIN=$(CURDIR)/$(BUILD) go test ./bench -run '^$$' -bench Drift -benchtime 3x -timeout 60m -v -args -update

.PHONY: golden
golden: image ## rewrite the files that tests compare with, and docs/networking.md from a live run
	scripts/packages.sh test
	scripts/test.sh -update

.PHONY: install
install: build ## onto this host; honours DESTDIR and PREFIX
	DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) scripts/install.sh install

.PHONY: uninstall
uninstall: build ## takes back what install put; keeps apps, images and a changed configuration
	DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) scripts/install.sh uninstall

.PHONY: purge
purge: build ## as uninstall, and takes those, too
	DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) scripts/install.sh purge

.PHONY: clean
clean:
	rm -rf $(BUILD)

.PHONY: help
help:
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12
