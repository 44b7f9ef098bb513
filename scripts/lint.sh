#!/bin/sh
# The checks that need no kernel: formatting, vet, golangci-lint, shellcheck, and
# that everything builds for both architectures without cgo.
set -eu

cd "$(dirname "$0")/.."
scripts/packages.sh lint

unformatted=$(git ls-files '*.go' | xargs gofmt -l)
[ -z "$unformatted" ] || { echo "not gofmt-ed: $unformatted" >&2; exit 1; }

for arch in amd64 arm64; do
	echo "== build and vet, $arch"
	CGO_ENABLED=0 GOARCH=$arch go build -o /dev/null ./cmd/zwrm
	CGO_ENABLED=0 GOARCH=$arch go build -o /dev/null ./cmd/zwrmd
	CGO_ENABLED=0 GOARCH=$arch go build -o /dev/null ./cmd/zwrm-init
	CGO_ENABLED=0 GOARCH=$arch go vet ./...
done
for module in test bench; do
	(cd "$module" && go vet ./...)
done

echo "== golangci-lint"
go build -C tools -o ../build/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
build/golangci-lint run ./...
for module in test bench; do
	(cd "$module" && ../build/golangci-lint run --config ../.golangci.yml ./...)
done

echo "== shellcheck"
git ls-files 'scripts/*.sh' .ci/run | xargs shellcheck
