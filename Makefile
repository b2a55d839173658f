# All that is needed is Go; modules are downloaded on first use. `make` alone lists the targets.

# Static binaries, the same with and without a C compiler, and no C to compile in a cold clone.
export CGO_ENABLED := 0
# The revision is not stamped: git may be missing, or may not trust the folder's owner. Without debug information a cold
# build takes a sixth less; all targets have the same flags, so that what one compiled serves the others.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false -gcflags=all=-dwarf=false -ldflags=-s)
# The compiler, the tests and layersim make much garbage in a short life: collecting it less often saves a tenth of the time.
export GOGC ?= 400

.DEFAULT_GOAL := help
# Go decides what is up to date, and runs in parallel by itself; so every target is a command.
.PHONY: help build live run test live-tests conformance bench cold lint generate controlplane likeness e2e-envtest nodeimage e2e up down clean
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

build: ## build bin/layersim
	@echo "building bin/layersim (over two minutes in a cold clone, seconds afterwards)"
	@go build $$(hack/trim) -o bin/layersim ./cmd/layersim

live: ## build bin/layersim-live, which has the real clusters, and the controllers as programs
	@echo "building bin/layersim-live and the controllers (about four minutes in a cold clone)"
	@go build -tags live -o bin/layersim-live ./cmd/layersim
	@go build -o bin/ ./cmd/machine-os-builder ./cmd/machine-config-controller ./cmd/layersim-agent

run: build ## run all scenarios; reports go to out/
	@mkdir -p out
	@bin/layersim run --json out/report.json --junit out/junit.xml --html out/report.html scenarios; status=$$?; \
	if [ -e out/report.json ]; then echo "reports: out/report.html out/report.json out/junit.xml"; fi; exit $$status

# All of vet runs with the tests, which is less work than `go vet` and then `go test`, with its own choice of vet. What runs
# on real control planes comes side by side, since most of it is waiting; vet has compiled before what they have in common.
test: lint controlplane ## lint, vet, run all tests, and the conformance scenarios on a real control plane
	go test -vet=all ./...
	go vet -tags 'live e2e likeness kind upstream' ./cmd/layersim ./e2e ./sim/cluster/...
	@$(MAKE) --no-print-directory --jobs=2 SIDE_BY_SIDE=yes live-tests conformance

live-tests:
	go test -vet=off -count=1 -tags=live ./cmd/layersim ./sim/cluster/envtest

# The scenarios that a release must pass.
conformance:
	$(suite) --label-filter=conformance --fail-on-empty --junit-report=conformance.xml -- -speed=100

# Six scenarios side by side: most of a run is waiting for pauses that controllers make.
suite = hack/suite --procs=6

e2e-envtest: controlplane ## run all scenarios on real control planes
	$(suite) --junit-report=envtest.xml

nodeimage: ## build the image of kind's node, or pull it, once a machine (about six minutes)
	@hack/nodeimage/build

# PARALLEL clusters side by side, by default as many as two cores carry, or as there are inotify instances for (the default
# of Linux, 128, is too little for a fourth). All of the library takes over an hour (LABELS='').
PARALLEL ?= $(shell [ "$$(cat /proc/sys/fs/inotify/max_user_instances)" -ge 160 ] && echo 4 || echo 3)
LABELS ?= conformance || needs: containsAny host

e2e: nodeimage live ## run the scenarios with LABELS on real clusters in containers: by default conformance, and faults of a cluster
	hack/suite --procs=$(PARALLEL) --label-filter='$(LABELS)' --fail-on-empty --junit-report=kind.xml -- -cluster=kind -speed=400

up: nodeimage build live ## make a cluster of kind and keep it
	@bin/layersim up

down: build live ## remove the cluster of kind
	@bin/layersim down

# Each benchmark runs once: it is a whole rollout, and reports its numbers per virtual second or per node by itself.
bench: build cold ## print the numbers of the README
	go test -run='^$$' -bench=. -benchtime=1x -timeout=30m ./...

cold: ## time the first `make run` in a fresh clone with empty caches
	@hack/cold

lint: ## check formatting, the rules in hack/lint, and that generated files are fresh
	@files=$$(gofmt -l .) && if [ -n "$$files" ]; then echo "not formatted; run gofmt -w on:" $$files; exit 1; fi
	go run ./hack/lint -test=false ./...
	go run ./hack/crds -check
	go run ./hack/rbac -check

generate: ## write the generated files: fixtures/crds, fixtures/controllers
	go run ./hack/crds
	go run ./hack/rbac

# Into the user's cache, where `make clean` leaves it.
controlplane: ## download or build a real control plane, once a machine (up to eight minutes)
	@hack/controlplane/build

likeness: controlplane ## compare the simulated API server with a real one, answer by answer
	go test -count=1 -tags=likeness ./sim/cluster/envtest -sequences=100 -mutants=150
	go test -count=1 -tags=likeness ./sim/cluster/proxy

clean: ## remove what was built and written
	rm -rf bin out
