#!/bin/sh
# Installs the Debian packages that a part of this repository needs and that are
# missing. When nothing is missing it changes nothing and needs no network.
#
#	scripts/packages.sh demo	what `make demo` needs
#	scripts/packages.sh test	what `make test` needs: the same, and a C compiler for -race
#	scripts/packages.sh lint	what `make lint` needs
set -eu

say() { echo "packages: $*"; }
fail() {
	echo "packages: $*" >&2
	exit 1
}

command -v dpkg-query >/dev/null || fail 'no dpkg: this needs Debian; elsewhere install by hand what this script lists'

case $(dpkg --print-architecture) in
amd64) qemu='qemu-system-x86' ;;
arm64) qemu='qemu-system-arm' ;;
*) fail "no microVMs on $(dpkg --print-architecture): use amd64 or arm64" ;;
esac

# cpio, busybox-static and the two decompressors make the guest image; procps has
# the pgrep of the demo, e2fsprogs the mkfs.ext4 of the tests, systemd the
# systemd-analyze. nftables is nft, by which the tests read what zwrmd wrote;
# containernetworking-plugins is what the benchmark compares zwrmd with. The rest is what the programs of
# neighbours.sh need of the machine; none of it is a service.
guests="iproute2 iptables $qemu busybox-static cpio xz-utils zstd procps"
case ${1:-} in
demo) wanted=$guests ;;
test) wanted="$guests e2fsprogs gcc libc6-dev nftables containernetworking-plugins dbus-daemon python3 python3-dbus python3-gi libdevmapper1.02.1 systemd" ;;
lint) wanted=shellcheck ;;
*) fail 'usage: packages.sh demo|test|lint' ;;
esac

missing=
for package in $wanted; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
	[ "$status" = installed ] || missing="$missing $package"
done
if [ -z "$missing" ]; then
	exit 0
fi

[ "$(id -u)" -eq 0 ] || fail "missing:$missing. Run this as root, or install them with: apt-get install$missing"
say "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 # a list of words
apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends $missing >/dev/null
say 'done'
