#!/bin/sh
# Every test. Arguments go to the tests, as in: test.sh -update
set -eu

cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "make test needs root: it makes network namespaces" >&2; exit 1; }

ZWRM_TEST_IMAGE=$PWD/build/guest
ZWRM_TEST_BIN=$PWD/build
export ZWRM_TEST_IMAGE ZWRM_TEST_BIN

echo "== packages, with the race detector"
CGO_ENABLED=1 go test -race -timeout 15m ./... "$@"

echo "== guests, real microVMs, the specification"
cd test
CGO_ENABLED=1 go test -race -timeout 20m -p 1 ./... "$@"
