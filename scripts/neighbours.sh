#!/bin/sh
# Fetches the firewalls beside which ZWRM is tested (test/neighbours), with what of
# their dependencies is not on this machine, and unpacks them into
# build/neighbours. When they are there it changes nothing and needs no network.
#
#	scripts/neighbours.sh
#
# They are never installed: a machine with systemd would start them at once, and its
# own network would have another firewall, for good. So nothing of a package runs but
# what a test starts, and the tests say where their files are. Remove
# build/neighbours to get newer ones. Needs Debian.
set -eu

cd "$(dirname "$0")/.."
out=build/neighbours
wanted='docker.io firewalld ufw'

say() { echo "neighbours: $*"; }
fail() {
	echo "neighbours: $*" >&2
	exit 1
}

[ "$(cat "$out/fetched" 2>/dev/null)" != "$wanted" ] || exit 0
command -v apt-get >/dev/null || fail 'no apt-get: this needs Debian'

# packages prints what is wanted, and what of its dependencies is not installed.
packages() {
	# shellcheck disable=SC2086 # a list of words
	{
		printf '%s\n' $wanted
		apt-get -qq install --simulate --no-install-recommends $wanted | awk '$1 == "Inst" { print $2 }'
	} | sort -u
}

# fetch fetches and unpacks into $work/unpacked.
fetch() {
	list=$(packages) && [ -n "$list" ] || return 1
	rm -rf "$work/packages" "$work/unpacked"
	mkdir -p "$work/packages" "$work/unpacked"
	# shellcheck disable=SC2086 # a list of words
	(cd "$work/packages" && apt-get -qq -o APT::Sandbox::User=root download $list) || return 1
	for package in "$work"/packages/*.deb; do
		dpkg-deb -x "$package" "$work/unpacked" || return 1
	done
}

mkdir -p build
work=$(mktemp -d -p build neighbours.XXXXXX)
trap 'rm -rf "$work"' EXIT
say "fetching $wanted"
fetch || {
	say 'reading the package lists, they are out of date'
	apt-get -qq update
	fetch || fail "could not fetch $wanted"
}
# It arrives by renaming, so that an interrupted run is not taken for a finished one.
echo "$wanted" >"$work/unpacked/fetched"
chmod 0755 "$work/unpacked"
rm -rf "$out"
mv "$work/unpacked" "$out"
say "unpacked $(find "$work/packages" -name '*.deb' | wc -l) packages into $out"
