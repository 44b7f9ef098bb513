package main

// modules returns the kernel modules of a host of VMs, each after those it depends
// on: there is no modprobe here. scripts/guest-image.sh puts them into the image.
func modules() []string {
	return []string{
		"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk", "virtio_console",
		"tun", "llc", "stp", "bridge",
		"libcrc32c", "nfnetlink", "nf_tables", "nf_defrag_ipv4", "nf_defrag_ipv6", "nf_conntrack", "nf_conntrack_netlink",
		"nf_nat", "nft_chain_nat", "nft_ct", "nft_masq", "nft_fib", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fib_inet",
	}
}
