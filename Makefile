# "make" alone lists the targets. Nothing here needs more than Go, Node and what make/deps.sh installs.

VERSION    := $(shell git describe --tags --always --dirty 2>/dev/null | sed 's/^v//' || echo dev)
LDFLAGS    := -s -w -X github.com/lull-dev/lull/cli.version=$(VERSION)

# Tools are run at a fixed version and stay out of go.mod.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

.DEFAULT_GOAL := help
.PHONY: help build demo test race soak lint bench clean install-deps

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

# Static, because a sandbox is started from this same file inside an empty root.
build: ## build bin/lull
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/lull ./cmd/lull

demo: ## a chat room is deployed, talks, sleeps and wakes; DEMO_EXIT=1 ends it by itself
	@make/deps.sh demo
	@$(MAKE) --no-print-directory build
	@demo/demo.sh

test: ## all tests, as .ci/run does them
	@make/deps.sh test
	@$(MAKE) --no-print-directory build
	@make/test.sh

race: ## all tests that can, with the race detector, again and again: make race COUNT=10
	@make/deps.sh test
	go test -race -count=$(or $(COUNT),5) $$(make/packages.sh race)

soak: ## the long runs: 10,000 pauses, 1,000 hibernations, 10,000 invocations, 5 minutes of messages
	@make/deps.sh test
	@$(MAKE) --no-print-directory build
	LULL_E2E_FULL=1 LULL_BINARY=$(CURDIR)/bin/lull CGO_ENABLED=0 go test -trimpath -count=1 -timeout 120m -run 'EveryMessage|RoundsAdd|NoInvocation' -v ./e2e

lint: ## gofmt, go vet, staticcheck, govulncheck
	@make/lint.sh $(STATICCHECK) $(GOVULNCHECK)

bench: ## measure, beside bare Node and Caddy: make bench BENCHFLAGS=-markdown
	@make/deps.sh bench
	@$(MAKE) --no-print-directory build
	@LULL_BINARY=$(CURDIR)/bin/lull go run ./bench $(BENCHFLAGS)

clean: ## remove what was built
	rm -rf bin .demo

install-deps: ## install what the demo, the tests and the benchmarks need
	@make/deps.sh demo
	@make/deps.sh test
	@make/deps.sh bench
