// Package iptables keeps a firewall.Ruleset in the kernel by means of iptables
// and ip6tables, in either of their variants (nft and legacy). What it keeps
// there is, in `iptables -S` form and shortened:
//
//	raw     -A PREROUTING  ... -j ZWRM-RAW       forged sources, closed TAPs, IPv6
//	filter  -A FORWARD     ... -j ZWRM-FORWARD   -> ZWRM-PRIVATE: ACCEPT per app, then DROP
//	        -A INPUT       ... -j ZWRM-INPUT
//	        -A OUTPUT      ... -j ZWRM-OUTPUT
//	nat     -A POSTROUTING ... -j ZWRM-NAT       masquerade
//
// Each jump is the first rule of its chain, before those of Docker, ufw and
// others. Each rule has a comment that begins with "zwrm:"; by it and by the
// names of the chains a process with no memory knows what is ours. Nothing else
// is read as ours, changed or removed.
//
// A change of structure is one iptables-restore per family, in which a table
// changes at once or not at all. A crash between two tables leaves drops without
// the rules that open something, never the other way round.
package iptables
