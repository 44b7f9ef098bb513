// Package trace asks the kernel which of its rules decides about a packet: it marks
// one packet, has it sent, and listens to what nf_tables tells of it, rule by rule
// (nftrace, as by `nft monitor trace`). That goes for our table and for the tables
// that iptables-nft keeps; of iptables-legacy the kernel tells nothing.
//
// The packet is a real one: whoever it is for receives it if the rules let it pass,
// may answer, and the kernel remembers the connection for as long as any that nobody
// uses (30 to 120 seconds).
//
// # What it leaves
//
// To mark the packet it takes a rule, and to know that it came through all others it
// takes chains behind them. They are in a table of their own, "inet zwrm-trace", for
// two seconds at most:
//
//	chain prerouting    priority -350          the packet: meta nftrace set 1
//	chain output        priority -350          the same, for what the host itself sends
//	chain input         priority 2147483646    empty: who comes here is delivered
//	chain postrouting   priority 2147483646    empty: who comes here is sent
//
// -350 is behind the reassembly of fragments and before iptables' raw. The table
// belongs to the socket that made it (flag owner, Linux 5.12) and goes when the
// process dies. Where the kernel has no such flag it is deleted in the end, and a
// crash leaves it behind; it drops nothing, and the next Run takes it away.
package trace
