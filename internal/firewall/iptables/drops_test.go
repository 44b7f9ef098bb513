package iptables

import (
	"testing"

	"zwrm/internal/firewall"
)

// TestReadDrops: counters are those of our rules that drop, by reason, of whichever
// chain of ours they stand in. Rules of others and those that accept are not counted.
func TestReadDrops(t *testing.T) {
	counters := func(host, spoofed string) snapshot {
		s, err := parse("*raw\n[" + spoofed + `] -A ZWRM-RAW -m comment --comment "zwrm: spoofed" -j DROP` + "\n[" + spoofed +
			`] -A ZWRM-RAW -m comment --comment "zwrm: spoofed" -j DROP` + "\n*filter\n[1:1] -A FORWARD " +
			`-m comment --comment "zwrm: other-app" -j DROP` + "\n:ZWRM-INPUT - [0:0]\n[9:9] -A ZWRM-INPUT -j ACCEPT\n[" + host +
			`] -A ZWRM-INPUT -m comment --comment "zwrm: host" -j DROP` + "\n")
		if err != nil {
			t.Fatal(err)
		}
		s[Raw].order = []ChainName{RawChain}
		return s
	}
	got := counters("7:420", "2:80").drops()
	want := firewall.Drops{"host": {Packets: 7, Bytes: 420}, "spoofed": {Packets: 4, Bytes: 160}}
	if len(got) != len(want) || got["host"] != want["host"] || got["spoofed"] != want["spoofed"] {
		t.Errorf("read %v, want %v", got, want)
	}
}
