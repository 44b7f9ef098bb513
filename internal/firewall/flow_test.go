package firewall_test

import (
	"net/netip"
	"testing"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// decided are the rules of two apps whose VMs may ask the host for one service.
func decided() firewall.Ruleset {
	return firewall.Build(policy(func(p *firewall.Policy) {
		p.Private, p.Apps = true, apps()
		p.HostAccess = []model.Service{{Protocol: model.UDP, Port: 53}}
	}))
}

func TestDecide(t *testing.T) {
	rules := decided()
	var (
		web0    = firewall.Device{Name: "zvm0", Group: model.AppID(2).Group()}
		web1    = firewall.Device{Name: "zvm1", Group: model.AppID(2).Group()}
		lonely  = firewall.Device{Name: "zvm2", Group: model.AppID(3).Group()}
		closed  = firewall.Device{Name: "zvm3", Group: model.GroupUnassigned}
		stray   = firewall.Device{Name: "zvm4"}
		eth0    = firewall.Device{Name: "eth0"}
		lan0    = firewall.Device{Name: "lan0"}
		host    = firewall.Device{}
		guest   = netip.MustParseAddr("172.16.0.2")
		gateway = netip.MustParseAddr("172.16.0.1")
		other   = netip.MustParseAddr("172.16.0.6")
		public  = netip.MustParseAddr("192.0.2.9")
	)
	is := func(p ...firewall.Packet) []firewall.Packet { return p }
	tests := []struct {
		name       string
		from, to   firewall.Device
		source     netip.Addr
		dest       netip.Addr
		service    string
		is         []firewall.Packet
		want       firewall.Verdict
		reason     firewall.Reason
		masquerade bool
	}{
		{"same app", web0, web1, guest, other, "", nil, firewall.Accept, firewall.SameApp, false},
		{"other app", web0, lonely, guest, other, "", nil, firewall.Drop, firewall.OtherApp, false},
		{"error about another app's connection", web0, lonely, guest, other, "", is(firewall.Related), firewall.Drop, firewall.OtherApp, false},
		{"error from outside", eth0, web0, public, guest, "", is(firewall.Related), firewall.Accept, firewall.Known, false},
		{"internet", web0, eth0, guest, public, "tcp/80", nil, firewall.Accept, firewall.Internet, true},
		{"internet, later packet", web0, eth0, guest, public, "tcp/80", is(firewall.Established), firewall.Accept, firewall.Known, false},
		{"internet, of no connection", web0, eth0, guest, public, "tcp/80", is(firewall.Invalid), firewall.Drop, firewall.NotTracked, false},
		{"metadata", web0, eth0, guest, netip.MustParseAddr("169.254.169.254"), "tcp/80", nil, firewall.Drop, firewall.EgressDenied, false},
		{"nobody's address", web0, eth0, guest, netip.MustParseAddr("172.16.9.9"), "", nil, firewall.Drop, firewall.Unowned, false},
		{"another interface", web0, lan0, guest, public, "", nil, firewall.Drop, firewall.OtherDevice, false},
		{"from outside", eth0, web0, public, guest, "", nil, firewall.Drop, firewall.Unpublished, false},
		{"answer from outside", eth0, web0, public, guest, "", is(firewall.Established), firewall.Accept, firewall.Known, false},
		{"forged source", web0, eth0, public, guest, "", is(firewall.Misrouted), firewall.Drop, firewall.Spoofed, false},
		{"source is the gateway's", web0, eth0, gateway, public, "", nil, firewall.Drop, firewall.Spoofed, false},
		{"foreign MAC", web0, web1, guest, other, "", is(firewall.ForeignMAC), firewall.Drop, firewall.SpoofedMAC, false},
		{"options", web0, web1, guest, other, "", is(firewall.Options), firewall.Drop, firewall.WithOptions, false},
		{"multicast", web0, host, guest, netip.MustParseAddr("224.0.0.1"), "", nil, firewall.Drop, firewall.Multicast, false},
		{"unassigned", closed, host, guest, gateway, "", is(firewall.EchoGateway), firewall.Drop, firewall.Unassigned, false},
		{"to unassigned", web0, closed, guest, other, "", is(firewall.Established), firewall.Drop, firewall.Unassigned, false},
		{"stray", stray, eth0, guest, public, "", nil, firewall.Drop, firewall.StrayTAP, false},
		{"ping", web0, host, guest, gateway, "", is(firewall.EchoGateway, firewall.ToGateway), firewall.Accept, firewall.Ping, false},
		{"service of the host", web0, host, guest, gateway, "udp/53", is(firewall.ToGateway), firewall.Accept, firewall.HostAccess, false},
		{"another service", web0, host, guest, gateway, "tcp/53", is(firewall.ToGateway), firewall.Drop, firewall.HostClosed, false},
		{"the service elsewhere", web0, host, guest, public, "udp/53", nil, firewall.Drop, firewall.HostClosed, false},
		{"error to the gateway", web0, host, guest, gateway, "", is(firewall.Related, firewall.ToGateway), firewall.Accept, firewall.Known, false},
		{"error to the host elsewhere", web0, host, guest, public, "", is(firewall.Related), firewall.Drop, firewall.HostClosed, false},
		{"host", host, web0, gateway, guest, "", nil, firewall.Accept, firewall.FromHost, false},
		{"host to unassigned", host, closed, gateway, guest, "", nil, firewall.Drop, firewall.Unassigned, false},
		{"no VM", lan0, eth0, public, public, "", nil, firewall.Accept, "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := firewall.Flow{Family: firewall.IPv4, From: test.from, To: test.to, Source: test.source, Dest: test.dest, Is: test.is}
			if test.service != "" {
				var err error
				if f.Service, err = model.ParseService(test.service); err != nil {
					t.Fatal(err)
				}
			}
			got := rules.Decide(f)
			if got.Verdict != test.want || got.Rule.Reason != test.reason || got.Masquerade != test.masquerade {
				t.Errorf("%s by rule %q, masquerade %t; want %s (%s), masquerade %t", got.Verdict, got.Rule, got.Masquerade, test.want, test.reason, test.masquerade)
			}
		})
	}
}

func TestDecideIPv6(t *testing.T) {
	web := model.AppID(2).Group()
	v6 := decided().Decide(firewall.Flow{Family: firewall.IPv6,
		From: firewall.Device{Name: "zvm0", Group: web}, To: firewall.Device{Name: "zvm1", Group: web}})
	if v6.Verdict != firewall.Drop || v6.Rule.Reason != firewall.NoIPv6 {
		t.Errorf("IPv6: %v", v6)
	}
}
