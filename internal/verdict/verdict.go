package verdict

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"zwrm/internal/firewall"
	"zwrm/internal/host"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// World is the state in which a packet is judged.
type World struct {
	Layout     ipam.Layout
	External   string // interface to the internet
	EgressDeny []netip.Prefix
	VMs        []model.VM
	Rules      firewall.Ruleset
}

// Router is the kernel's links, and its choice of ways.
type Router interface {
	// LinksNamed leaves out what is not there.
	LinksNamed(ctx context.Context, names ...string) ([]host.Link, error)
	Route(ctx context.Context, q host.RouteQuery) (host.Hop, error)
}

// Question is what a user asks: does Source reach Dest? Both are the name of a VM, an
// IP address, Internet or Host.
type Question struct {
	Source, Dest string
	Service      model.Service // zero: an ICMP echo request
}

// The words for ends that are neither VMs nor addresses. A VM of such a name can be
// asked about by its address.
const (
	Internet = "internet"
	Host     = "host"
)

// Verdict is what becomes of the packet.
type Verdict string

// The verdicts.
const (
	Pass Verdict = "pass"
	Drop Verdict = "drop"
)

// The reasons that are none of a rule.
const (
	NoRule  firewall.Reason = "no-rule"  // no rule of ours is about it
	NoRoute firewall.Reason = "no-route" // the kernel has no way for it
	NoTAP   firewall.Reason = "no-tap"   // the TAP of a VM is missing or down
)

// Answer is what becomes of the packet, and why.
type Answer struct {
	Verdict     Verdict
	Reason      firewall.Reason
	Rule        firewall.Rule // that decides; zero: none of ours
	Why         string        // the reason as a sentence
	Note        string        // what else one should know; may be empty
	Flow        firewall.Flow // the packet, as far as it was followed
	Masqueraded bool          // the receiver sees the address of the device it leaves by
}

// Traced is what the kernel did with a packet that was sent to see.
type Traced struct {
	Verdict Verdict
	Rule    string // that decided, as the kernel has it; empty: none did
	Table   string
	Chain   string
}

// Explain answers a question. A name that is not known, and ends that no packet goes
// between, are a *model.Problem.
func Explain(ctx context.Context, world World, router Router, q Question) (Answer, error) {
	c := &inquiry{World: world, router: router, links: map[string]host.Link{}}
	c.lookUp = func(name string) ([]host.Link, error) { return router.LinksNamed(ctx, name) }
	if err := cmp.Or(c.resolve(ctx, q), c.failed); err != nil {
		return Answer{}, err
	}
	c.flow.Service = q.Service
	answer, err := c.answer(ctx)
	if err := cmp.Or(err, c.failed); err != nil {
		return Answer{}, err
	}
	return answer, nil
}

// inquiry is one question at work.
type inquiry struct {
	World
	router   Router
	lookUp   func(name string) ([]host.Link, error)
	links    map[string]host.Link // that were looked up; the zero Link: there is none
	failed   error                // why one could not be
	from, to end
	flow     firewall.Flow
}

// link returns a link, and whether there is one of that name.
func (c *inquiry) link(name string) (host.Link, bool) {
	link, known := c.links[name]
	if !known && name != "" {
		found, err := c.lookUp(name)
		c.failed = cmp.Or(c.failed, err)
		for _, l := range found {
			link = l
		}
		c.links[name] = link
	}
	return link, link.Name != ""
}

// answer follows the packet: the TAP that it enters by, the rules before routing, the
// kernel's route, and the rules behind it.
func (c *inquiry) answer(ctx context.Context) (Answer, error) {
	if c.flow.Family == firewall.IPv6 {
		return c.answerIPv6(), nil
	}
	if why := c.noTAP(c.from); why != "" {
		return c.dropped(NoTAP, why), nil
	}
	if err := c.observe(ctx); err != nil {
		return Answer{}, err
	}
	if c.flow.From.Name != "" {
		ingress := firewall.Ruleset{Rules: slices.Concat(c.Rules.Stage(firewall.Ingress, c.flow.Family), c.Rules.Stage(firewall.Guest, c.flow.Family))}
		if early := ingress.Decide(c.flow); early.Verdict == firewall.Drop {
			return c.decided(early), nil
		}
	}
	hop, err := c.router.Route(ctx, host.RouteQuery{Dest: c.flow.Dest, Source: c.flow.Source, In: c.flow.From.Name})
	if errors.Is(err, host.ErrNoLink) {
		return c.dropped(NoRoute, fmt.Sprintf("there is no interface %q", c.flow.From.Name)), nil
	}
	if err != nil {
		return Answer{}, err
	}
	switch hop.Type {
	case host.RouteUnreachable, host.RouteProhibited, host.RouteRefused:
		return c.dropped(NoRoute, c.noRoute(hop.Type)), nil
	}
	if !c.flow.Source.IsValid() {
		c.flow.Source = hop.Source
	}
	c.flow.To = c.device(hop.Device)
	answer := c.decided(c.Rules.Decide(c.flow))
	// The kernel sends what is for a VM without a TAP wherever its address leads to.
	if why := c.noTAP(c.to); why != "" && answer.Verdict == Pass {
		return c.dropped(NoTAP, why), nil
	}
	return answer, nil
}

// answerIPv6 judges without the kernel's routes: no VM has an address that one leads
// to.
func (c *inquiry) answerIPv6() Answer {
	answer := c.decided(c.Rules.Decide(c.flow))
	if answer.Reason == NoRule {
		answer.Note = "IPv6 of VMs is off, so an IPv6 address is never one of a VM; " + answer.Note
	}
	return answer
}

// observe finds the properties of the packet that rules ask for. A guest that
// behaves has the right Ethernet address, and no options in its IP header.
func (c *inquiry) observe(ctx context.Context) error {
	in := c.flow.From
	if in.Name == "" {
		return nil
	}
	note := func(property firewall.Packet, holds bool) {
		if holds {
			c.flow.Is = append(c.flow.Is, property)
		}
	}
	if in.Group.Ours() {
		back, err := c.router.Route(ctx, host.RouteQuery{Dest: c.flow.Source})
		if err != nil {
			return err
		}
		note(firewall.Misrouted, back.Device != in.Name)
	}
	everybody, err := c.toEverybody(ctx)
	if err != nil {
		return err
	}
	note(firewall.NotUnicast, everybody)
	link, _ := c.link(in.Name)
	for _, address := range link.Addresses {
		if address.Addr() == c.flow.Dest {
			note(firewall.ToGateway, true)
			note(firewall.EchoGateway, c.flow.Service == model.Service{})
		}
	}
	return nil
}

// toEverybody reports whether the sender puts a group or everybody as the receiver
// into the Ethernet header: not for the broadcast address of another network, which
// goes to the gateway.
func (c *inquiry) toEverybody(ctx context.Context) (bool, error) {
	dest := c.flow.Dest
	if dest.IsMulticast() || dest == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return true, nil
	}
	hop, err := c.router.Route(ctx, host.RouteQuery{Dest: dest})
	return hop.Type == host.RouteBroadcast && hop.Device == c.flow.From.Name, err
}

// decided turns what the rules decide into an answer.
func (c *inquiry) decided(d firewall.Decision) Answer {
	answer := Answer{Verdict: Pass, Reason: d.Rule.Reason, Rule: d.Rule, Flow: c.flow, Masqueraded: d.Masquerade}
	if d.Verdict == firewall.Drop {
		answer.Verdict = Drop
	}
	if d.Rule.Stage == firewall.Ingress {
		answer.Flow.To = firewall.Device{} // it gets no further
	}
	if d.Rule == (firewall.Rule{}) {
		answer.Reason = NoRule
		answer.Note = "other rules and settings of this host decide"
	}
	answer.Why = c.why(answer)
	return answer
}

func (c *inquiry) dropped(reason firewall.Reason, why string) Answer {
	return Answer{Verdict: Drop, Reason: reason, Why: why, Flow: c.flow, Note: "zwrm network check and zwrm doctor look for the cause"}
}

// device returns what rules compare of a link; "" is none.
func (c *inquiry) device(name string) firewall.Device {
	link, _ := c.link(name)
	return firewall.Device{Name: name, Group: link.Group}
}
