// Package nftables keeps a firewall.Ruleset in the kernel as one table of
// nf_tables, over netlink and without the program nft. What it keeps there is, as
// nft prints it and shortened:
//
//	table inet zwrm { comment "zwrm"          # flags owner and persist
//		set same_app  { one element per app }
//		chain prerouting   priority -300       closed TAPs, IPv6: drop; from a VM -> guest
//		chain guest                            forged sources, options, multicast: drop; to a VM: notrack
//		chain forward      priority 0          iifgroup . oifgroup @same_app accept; other VMs -> private: drop
//		chain input        priority 0
//		chain output       priority 0
//		chain postrouting  priority 100, nat   masquerade
//	}
//
// The number of rules does not depend on the number of apps. Each rule and each
// element has a comment that begins with "zwrm:"; the table's own comment is what
// a process with no memory knows it by. A table of this name without it is
// foreign, and is neither changed nor deleted.
//
// # What accept means
//
// A drop of this table is final. An accept is not: it ends the chain it stands in
// and the packet goes on to the chains of other tables at the same hook. So where
// the host's own rules drop what is forwarded (Docker and ufw set the policy of
// FORWARD to drop) they must be told to let our devices pass. All chains of this
// table have the policy accept, since what no rule of ours matches is the rest of
// the host's business.
//
// # Who may change it
//
// The table belongs to the socket that made it (flag owner, Linux 5.12): the
// kernel refuses changes by anybody else, and `nft flush ruleset` passes it by. It
// outlives the socket (flag persist, Linux 6.9), so after a kill it goes on
// dropping, and may be changed or deleted by others until the next zwrmd takes it
// over. A kernel without persist would delete the table with the socket, which
// opens everything: there, neither flag is used and anybody with root may change
// the table at any time.
//
// # Ethernet addresses
//
// Whether the Ethernet source is that of the IPv4 source is asked with a match of
// iptables, "bpf", by nft_compat of the kernel. nft prints it as `xt match`, with a
// warning that the table is managed by iptables-nft, and does not read it. From
// Linux 6.13 on nf_tables can compare two parts of a packet by itself; but nft
// 1.0.6, which Debian 12 has, aborts when it finds that in any table, even for `nft
// list tables`.
//
// # Changes
//
// A change is one transaction: a packet finds all of the rules from before it or
// all of those after it, even when the whole table is made anew. The counters of a
// table made anew begin at 0; what the old one had counted is kept by Drops.
package nftables
