.PHONY: help build test race lint bench quickstart check

help: ## show this help
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

build: ## compile everything
	go build ./... ./examples/...

test: ## run the tests
	go test ./... ./examples/...

race: ## run the tests with the race detector
	go test -race ./... ./examples/...

lint: ## gofmt, vet, staticcheck
	@test -z "$$(git ls-files '*.go' | xargs gofmt -l)" || { git ls-files '*.go' | xargs gofmt -l; exit 1; }
	go vet ./... ./examples/...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./... ./examples/...

bench: ## run the micro-benchmarks
	go test -run '^$$' -bench . -benchmem ./...

quickstart: ## run the quickstart
	go run ./examples/quickstart

check: ## all that CI checks
	.ci/run
