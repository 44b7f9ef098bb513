package foreign

import (
	"fmt"
	"strings"

	"zwrm/internal/firewall"
	"zwrm/internal/model"
)

// Want is what must get through.
type Want struct {
	External   string          // interface to the internet
	HostAccess []model.Service // services of the host that VMs may use
	// Accepts says whether accepts are needed. With the dataplane iptables they are not:
	// its chains come first, and what they accept is accepted. Then there is only to take
	// away what may be left.
	Accepts bool
}

// Hook is where on its way a packet is asked for, by the name that nftables has for it.
type Hook string

// The hooks.
const (
	Prerouting Hook = "prerouting"
	Input      Hook = "input"
	Forward    Hook = "forward"
	Output     Hook = "output"
)

// mark begins the comment of each rule of ours.
const mark = "zwrm: "

// Let is what an accept lets through, as its comment says: a firewall.Reason, or one
// and the service.
type Let string

// accept is a rule that lets our devices pass, in two languages.
type accept struct {
	hook Hook
	let  Let
	xt   string // matches as iptables-save prints them
	nft  string // matches as nft reads them
}

// spec returns the rule as iptables-save prints it, without "-A CHAIN".
func (a accept) spec() string { return a.xt + " -m comment --comment " + a.comment() + " -j ACCEPT" }

// statement returns the rule as nft reads it.
func (a accept) statement() string { return a.nft + " accept comment " + a.comment() }

func (a accept) comment() string { return `"` + mark + string(a.let) + `"` }

// accepts returns the rules that chains of a hook must have. Those for the host are
// about the address of the device that a packet comes by, as ours are, and about
// nothing that is not listed: beside a table of ours that is gone, they would
// otherwise open all services.
func (w Want) accepts(hook Hook) []accept {
	const toGateway, nftToGateway = "-m addrtype --dst-type LOCAL --limit-iface-in", "fib daddr . iif type local"
	all := []accept{
		// Where it leads is not known yet.
		{Prerouting, Let(firewall.Internet), "", "{iif}"},
		{Prerouting, Let(firewall.Known), "", "{nft-in} {nft-known}"},

		{Forward, Let(firewall.Internet), "-o {ext} -m devgroup {from}", "{iif} {nft-out}"},
		{Forward, Let(firewall.Known), "-i {ext} -m devgroup {to} {known}", "{nft-in} {oif} {nft-known}"},
		{Forward, Let(firewall.Peers), "-m devgroup {from} {to}", "{iif} {oif}"},

		{Input, Let(firewall.Known), "-m devgroup {from} {known}", "{iif} {nft-known}"},
		{Input, Let(firewall.Ping), "-p icmp -m devgroup {from} -m icmp --icmp-type 8 " + toGateway, "{iif} icmp type echo-request " + nftToGateway},
	}
	for _, s := range w.HostAccess {
		all = append(all, accept{Input, Let(firewall.HostAccess) + " " + Let(s.String()),
			fmt.Sprintf("-p %s -m devgroup {from} -m %[1]s --dport %d %s", s.Protocol, s.Port, toGateway),
			fmt.Sprintf("{iif} %s dport %d %s", s.Protocol, s.Port, nftToGateway)})
	}
	all = append(all, accept{Output, Let(firewall.FromHost), "-m devgroup {to}", "{oif}"})
	words := w.words()
	var out []accept
	for _, a := range all {
		if a.hook == hook {
			a.xt, a.nft = words.Replace(a.xt), words.Replace(a.nft)
			out = append(out, a)
		}
	}
	return out
}

// words returns what the parts of rules in braces stand for.
func (w Want) words() *strings.Replacer {
	group := model.GroupUnassigned.String() + "/" + model.GroupMask.String()
	test := fmt.Sprintf("group & %s == %s", model.GroupMask, model.GroupUnassigned)
	return strings.NewReplacer(
		"{ext}", w.External, "{from}", "--src-group "+group, "{to}", "--dst-group "+group,
		"{known}", "-m conntrack --ctstate RELATED,ESTABLISHED",
		"{nft-in}", fmt.Sprintf("iifname %q", w.External), "{nft-out}", fmt.Sprintf("oifname %q", w.External),
		"{iif}", "iif"+test, "{oif}", "oif"+test, "{nft-known}", "ct state established,related")
}
