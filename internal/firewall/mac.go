package firewall

import "golang.org/x/net/bpf"

// ForeignMACProgram returns what decides about the property ForeignMAC: a program of
// the classic packet filter (linux/filter.h) which returns 0 if the Ethernet source
// is 02:5a and the IPv4 source. Both dataplanes give it to the kernel, since neither
// can compare two parts of a packet in another way: nftables can from Linux 6.13 on,
// but older programs nft (1.0.6 of Debian 12) abort when they find such a rule in any
// table of the host.
func ForeignMACProgram() ([]bpf.RawInstruction, error) {
	const link = 0xffe00000 // SKF_LL_OFF: the Ethernet header
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: link + 8, Size: 4},
		bpf.TAX{},
		bpf.LoadAbsolute{Off: 12, Size: 4}, // RFC 791
		bpf.JumpIfX{Cond: bpf.JumpEqual, SkipFalse: 3},
		bpf.LoadAbsolute{Off: link + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x025a, SkipFalse: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1},
	})
}
