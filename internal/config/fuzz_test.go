package config

import (
	"errors"
	"strings"
	"testing"
)

// FuzzParse holds that no text and no variable makes Parse panic, that what it
// refuses is told on one line each, and that what it accepts is valid.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"", Default(), fullFile, "[[network]]\nmtu = 1", "a.b.\"c\\n\" = [{x = 1}]", "network = {bridge = {name = \"x\"}}",
		"network.subnet = \"172.16.0.1/16\"", "[network]\ndns = [1, [2], {a = 3}]", "images.dir = 1979-05-27T07:32:00Z", "x = \"\"\"\n", "x = \"\\\n", "\ufeff[vmm]",
		"[network]\nfirewall = \"nftables\"\non_shutdown = \"keep\"\nhost_access = [\"udp/53\"]\negress_deny = [\"10.0.0.0/8\"]"} {
		for _, variable := range []string{"", "ZWRM_NETWORK_EGRESS_DENY=169.254.0.0/16,10.9.0.0/16", "ZWRM_NETWORK_\n=", "ZWRM_SERVER_LISTEN=[::1]:80"} {
			f.Add(text, variable)
		}
	}
	f.Fuzz(func(t *testing.T, text, variable string) {
		config, err := Parse(text, []string{variable})
		if err == nil {
			checkAccepted(t, config)
			return
		}
		var problems *Errors
		if !errors.As(err, &problems) || len(problems.Problems) == 0 {
			t.Fatalf("error is %v of type %T", err, err)
		}
		for _, p := range problems.Problems {
			if p.Key == "" || p.What == "" || p.Mend == "" || strings.ContainsAny(p.String(), "\n\r") {
				t.Errorf("problem is %#v", p)
			}
		}
	})
}

func checkAccepted(t *testing.T, config Config) {
	t.Helper()
	network := config.Network
	if network.Layout.Capacity() < 1 || !network.Bridge.Subnet.IsValid() || network.Firewall != Iptables && network.Firewall != Nftables {
		t.Errorf("network is %+v", network)
	}
	if network.Bridge.Enabled && network.Bridge.Subnet.Overlaps(network.Layout.Subnet()) {
		t.Errorf("the bridge %s overlaps %s", network.Bridge.Subnet, network.Layout.Subnet())
	}
	if config.Server.Listen != "" && config.Server.TokenFile == "" {
		t.Errorf("%q needs no token", config.Server.Listen)
	}
	for _, path := range []string{config.Server.Socket, config.Database.Path, config.Images.Dir} {
		if !strings.HasPrefix(path, "/") {
			t.Errorf("path %q is not absolute", path)
		}
	}
}
