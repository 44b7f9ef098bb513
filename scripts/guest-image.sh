#!/bin/sh
# Makes the guest image of the demo and the tests: OUTDIR/kernel, Debian's cloud
# kernel, and OUTDIR/initrd, which holds that kernel's virtio modules, busybox,
# zwrm-init and the workload of scripts/guest. OUTDIR/host-modules has the modules
# of a guest that is itself a host of VMs, which test/powercut makes.
#
#	scripts/guest-image.sh OUTDIR [INIT]	INIT: zwrm-init, default build/zwrm-init
#
# The kernel package is unpacked, never installed: that would run boot loader
# hooks. The kernel is fetched once; the initrd is made again when one of its
# inputs is newer. Remove OUTDIR to get a newer kernel. Needs Debian, cpio and
# busybox-static (scripts/packages.sh demo).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
out=${1:?usage: guest-image.sh OUTDIR [INIT]}
init=${2:-$here/../build/zwrm-init}

# Those that zwrm-init loads (internal/guest/modules.go).
modules='virtio_ring virtio virtio_mmio failover net_failover virtio_net virtio_blk virtio_rng'

# Those that the guest of test/powercut loads (test/powercut/guest/modules.go).
host_modules='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk virtio_console tun llc stp bridge
	libcrc32c nfnetlink nf_tables nf_defrag_ipv4 nf_defrag_ipv6 nf_conntrack nf_conntrack_netlink nf_nat nft_chain_nat nft_ct nft_masq
	nft_fib nft_fib_ipv4 nft_fib_ipv6 nft_fib_inet'

say() { echo "guest-image: $*"; }
fail() {
	echo "guest-image: $*" >&2
	exit 1
}

# fetch_kernel puts the kernel and its modules into $out. Both arrive by renaming,
# the kernel last, so that an interrupted run is not taken for a finished one.
fetch_kernel() {
	arch=$(dpkg --print-architecture)
	package=$(kernel_package "$arch")
	if [ -z "$package" ]; then
		say "reading the package lists"
		apt-get -qq update
		package=$(kernel_package "$arch")
	fi
	[ -n "$package" ] || fail "no package linux-image-cloud-$arch: this needs Debian on amd64 or arm64"
	say "fetching $package"
	download "$package" || {
		say "reading the package lists, they are out of date"
		apt-get -qq update
		package=$(kernel_package "$arch")
		download "$package" || fail "could not fetch $package"
	}
	dpkg-deb -x "$work"/*.deb "$work/unpacked"
	for name in $modules; do
		unpack_module "$name" "$work/modules"
	done
	for name in $host_modules; do
		unpack_module "$name" "$work/host-modules"
	done
	cp "$work"/unpacked/boot/vmlinuz-* "$work/kernel"
	rm -rf "$out/modules" "$out/host-modules"
	mv "$work/modules" "$work/host-modules" "$out"
	mv "$work/kernel" "$out/kernel"
}

# kernel_package ARCH prints the package that linux-image-cloud-ARCH stands for.
kernel_package() {
	apt-cache show --no-all-versions "linux-image-cloud-$1" 2>/dev/null |
		sed -n 's/^Depends: .*\(linux-image-[0-9][^ ,]*\).*/\1/p'
}

# download PACKAGE: root's apt would fetch as the user _apt, who may not write here.
download() {
	(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$1")
}

# unpack_module NAME DIR puts NAME.ko into DIR, uncompressed. Its file may be spelled
# with "-" for "_".
unpack_module() {
	file=$(find "$work/unpacked" -name "$(echo "$1" | tr _ '?').ko*" | head -n 1)
	case $file in
	'')
		find "$work/unpacked" -name modules.builtin -exec cat {} + | grep -q "/$(echo "$1" | tr _ .).ko" ||
			say "this kernel has no $1"
		;;
	*.ko) cp "$file" "$2/$1.ko" ;;
	*.ko.xz) xz -dc "$file" >"$2/$1.ko" ;;
	*.ko.zst) zstd -qdc "$file" >"$2/$1.ko" ;;
	*) fail "cannot uncompress ${file##*/}" ;;
	esac
}

# make_initrd puts the initramfs into $out, again by renaming.
make_initrd() {
	root=$work/root
	mkdir -p "$root/bin" "$root/lib/modules"
	cp -R "$here/guest/." "$root"
	cp "$init" "$root/init"
	cp "$busybox" "$root/bin/busybox"
	"$busybox" --list | while read -r applet; do
		[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
	done
	find "$out/modules" -name '*.ko' -exec cp {} "$root/lib/modules/" \;
	(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --owner=0:0 --reproducible) >"$work/initrd.cpio"
	gzip -9n <"$work/initrd.cpio" >"$work/initrd"
	mv "$work/initrd" "$out/initrd"
}

# stale tells whether the initrd is missing or older than something in it.
stale() {
	[ ! -e "$out/initrd" ] ||
		[ -n "$(find "$here/guest" "$here/guest-image.sh" "$init" "$busybox" "$out/kernel" -newer "$out/initrd")" ]
}

[ -x "$init" ] || fail "no $init: run make first"
busybox=$(command -v busybox) || fail 'no busybox: run scripts/packages.sh demo as root'
busybox=$(readlink -f "$busybox")
command -v cpio >/dev/null || fail 'no cpio: run scripts/packages.sh demo as root'

mkdir -p "$out"
work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work/modules" "$work/host-modules"

if [ ! -e "$out/kernel" ] || [ ! -e "$out/host-modules" ]; then
	fetch_kernel
fi
if stale; then
	say "making the initramfs"
	make_initrd
fi
say "$out/kernel and $out/initrd are ready"
