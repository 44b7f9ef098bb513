#!/bin/sh
# Every test. With -update, the tests that compare with files write the files
# anew instead.
set -eu

cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "make test needs root: it makes network namespaces" >&2; exit 1; }

ZWRM_TEST_IMAGE=$PWD/build/guest
ZWRM_TEST_BIN=$PWD/build
export ZWRM_TEST_IMAGE ZWRM_TEST_BIN
update=${1:-}
export CGO_ENABLED=1 # for the race detector; what is built for use has none

# run_tests runs the tests of one module with the given flags: all, or those that
# write files.
run_tests() {
	if [ "$update" != -update ]; then
		go test -race -timeout 40m "$@" ./...
		return
	fi
	packages=$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | grep -vE '^\./(test|bench)/' | xargs -r -n 1 dirname | sort -u)
	# shellcheck disable=SC2086 # a list of words
	go test "$@" $packages -args -update
}

echo "== packages, with the race detector"
run_tests -p 2

echo "== guests, real microVMs, the specification, the benchmark with few of everything"
cd test
# One package at a time, since each makes hosts of its own and times what does not
# answer; and always, since go does not know that they run what is in build/.
run_tests -p 1 -count=1
cd ../bench
run_tests -count=1
[ "$update" = -update ] && exit
cd ../test

echo "== random histories, which took a small part of this above, with the race detector"
go test -timeout 40m -count=1 -v ./model -memory 100000 -kernel 2000

echo "== the demo"
cd ..
said=$(scripts/demo.sh 2>&1) || { echo "$said"; exit 1; }
