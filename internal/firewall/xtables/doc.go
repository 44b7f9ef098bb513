// Package xtables speaks with the programs of iptables, in either of their variants
// (nft and legacy): it finds them, runs iptables-save and iptables-restore, and reads
// what they print. It does not know what ZWRM writes there.
package xtables
