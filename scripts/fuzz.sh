#!/bin/sh
# Runs every fuzz target for a while, one after the other: fuzz.sh [TIME], as in 5m.
# What one finds is written to testdata/fuzz of its package, and is a test from then
# on: commit it with what mends it.
set -eu

cd "$(dirname "$0")/.."
time=${1:-1m}

grep -rl --include='*_test.go' '^func Fuzz' internal | xargs -n 1 dirname | sort -u | while read -r package; do
	grep -ho '^func Fuzz[A-Za-z]*' "$package"/*_test.go | cut -c 6- | while read -r target; do
		echo "== $package $target"
		go test "./$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time" </dev/null
	done
done
