.PHONY: help build test-fast test race fmt vet lint fuzz cover bench quickstart verify emulator binaries check

help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

build: ## compile everything
	go build ./... ./cmd/ots/... ./credentials/... ./examples/... ./otscontainer/...

# The slowest packages first, several at once because most of their tests wait. Watermill's
# own suite is left out: it has no short form worth its time.
slow = ./subscriber ./internal/laws ./router ./internal/verify
test-fast: ## run the library's tests without the long ones
	go test -short -p 4 -parallel 8 $(slow) $$(go list ./... | grep -v -e /internal/pubsubtest -e /subscriber$$ -e /internal/laws$$ -e /router$$ -e /internal/verify$$)

test: ## run the tests
	go test ./... ./cmd/ots/... ./credentials/... ./examples/... ./otscontainer/...

race: ## run the tests with the race detector
	go test -race ./... ./cmd/ots/... ./credentials/... ./examples/... ./otscontainer/...

fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

vet: ## go vet
	go vet ./... ./cmd/ots/... ./credentials/... ./examples/... ./otscontainer/...

fuzz: ## run each fuzz target with 20,000 inputs
	@for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime 20000x $$pkg || exit 1; \
		done; \
	done

cover: ## coverage of the library, as cover.html
	go test -short -coverprofile cover.out -coverpkg ./... ./...
	go tool cover -html cover.out -o cover.html

lint: ## gofmt, vet, staticcheck
	@test -z "$$(git ls-files '*.go' | xargs gofmt -l)" || { git ls-files '*.go' | xargs gofmt -l; exit 1; }
	go vet ./... ./cmd/ots/... ./credentials/... ./examples/... ./otscontainer/...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./... ./cmd/ots/... ./credentials/... ./examples/... ./otscontainer/...

bench: ## run the micro-benchmarks
	go test -run '^$$' -bench . -benchmem ./...

quickstart: ## run the quickstart
	go run ./examples/quickstart

verify: ## check the assumptions about the service, on an emulator
	go -C cmd/ots run . verify --emulator

emulator: ## run the emulator at 127.0.0.1:8087
	go run ./cmd/ots-emulator

binaries: ## build ots-emulator as static binaries for Linux, macOS and Windows into bin/
	.ci/binaries bin

check: ## all that CI checks, without installing anything
	NO_INSTALL=1 .ci/run
