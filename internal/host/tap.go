package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
	"zwrm/internal/host/netlink"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// queueLength is how many packets a TAP's queue holds. The kernel's default of
// 1000 costs 30 KiB more for each TAP, as soon as it is up.
const queueLength = 256

// TAP is what CreateTAP makes.
type TAP struct {
	Name    string
	MAC     ipam.MAC
	MTU     int          // bytes
	Address netip.Prefix // IPv4, of the host's side
	Alias   string       // of a new one; that of one that exists stays
	// Fresh has one that exists deleted first: nobody knows what its last VMM left on it.
	Fresh bool
	// Reroute has the routes of Address made anew on a TAP that exists, without a look
	// whether they are there, which would go through the routes of all TAPs.
	Reroute bool
}

// Check says what of a TAP no kernel would take, or would take for something
// else. Limits that a kernel enforces and explains are left to it.
func (t TAP) Check() error {
	switch {
	case !validName(t.Name):
		return errors.New("no link can have this name")
	case t.MAC[0]&1 != 0 || t.MAC == ipam.MAC{}:
		return fmt.Errorf("address %s cannot be that of a single link", t.MAC)
	case !t.Address.IsValid() || !t.Address.Addr().Is4():
		return fmt.Errorf("address %q is not IPv4", t.Address)
	}
	return nil
}

// validName reports whether a link can have this name (net/core/dev.c
// dev_valid_name). "%" is allowed there, but a pattern where links are made.
func validName(name string) bool {
	const refused = "/:% \t\n\v\f\r\x00\xa0" // bytes: the kernel knows no UTF-8
	for i := range len(name) {
		if strings.IndexByte(refused, name[i]) >= 0 {
			return false
		}
	}
	return name != "" && len(name) < unix.IFNAMSIZ && name != "." && name != ".."
}

// createTAP makes a TAP that is not up yet and returns its index, or brings an existing
// one to what is asked for and returns 0.
func (k *Kernel) createTAP(ctx context.Context, tap TAP) (index int, err error) {
	if err := tap.Check(); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	index, err = k.makeTAP(tap, model.GroupUnassigned)
	if !errors.Is(err, errExists) {
		return index, err
	}
	have, err := k.device(tap.Name)
	if err != nil {
		return 0, err
	}
	if err := have.foreign(tap.Name); err != nil {
		return 0, err
	}
	switch {
	case have.Group == model.GroupCondemned || tap.Fresh:
		return k.remakeTAP(tap, have, model.GroupUnassigned)
	case have.multiQueue:
		// No VMM that takes it for a TAP of ours can open it, and nothing can change it.
		return k.remakeTAP(tap, have, have.Group)
	case !have.persistent:
		return 0, errors.New("a process holds it open and it goes when that does")
	case len(tap.differences(have, k.ipv6)) == 0:
		return 0, k.reroute(tap, have)
	}
	if have.notOwned() {
		if err := k.ownTAP(tap.Name); err != nil {
			return 0, err
		}
	}
	if err := k.shape(tap, keepGroup); err != nil {
		return 0, err
	}
	if err := k.address(have, tap.Address); err != nil {
		return 0, err
	}
	if err := k.verify(tap); err != nil {
		return 0, err
	}
	return 0, k.reroute(tap, have)
}

// remakeTAP deletes a TAP and makes it anew.
func (k *Kernel) remakeTAP(tap TAP, have device, group model.Group) (index int, err error) {
	if err := k.deleteLink(k.route, have.Index); err != nil {
		return 0, err
	}
	return k.makeTAP(tap, group)
}

// reroute makes the routes of a TAP anew, if that is asked for.
func (k *Kernel) reroute(tap TAP, have device) error {
	if !tap.Reroute {
		return nil
	}
	return k.makeRoutes(have.Index, tap.Address)
}

// makeTAP makes a TAP that is whole but for its address, and not up. The error is
// errExists if there is a link of that name.
func (k *Kernel) makeTAP(tap TAP, group model.Group) (index int, err error) {
	tun, err := k.newTUN(opMakeTAP, tap.Name)
	if err != nil {
		return 0, err
	}
	// It becomes persistent after it is in a group of ours: in no other it would
	// be taken for a stranger's.
	err = k.shape(tap, group)
	if err == nil {
		err = effect.Do(k.hook, opOwnTAP, tun.own)
	}
	if err == nil {
		err = effect.Do(k.hook, opPersistTAP, tun.persist)
	}
	// It goes up after the descriptor is closed: closing it then would take the
	// carrier off, and the kernel would go through its routes for that.
	if err := errors.Join(err, tun.close()); err != nil {
		return 0, err
	}
	// Looking it up lets the kernel take note of the missing carrier now. That is
	// free while the link is down, and 50 us as soon as it is up.
	have, err := lookUp(k.route, tap.Name)
	if err != nil {
		return 0, errors.Join(err, k.deleteNew(tap.Name))
	}
	return have.Index, nil
}

// keepGroup is for a link that somebody else may close at this moment: to write
// the group that was read before would open it again.
const keepGroup model.Group = 0

// shape sets all that must stand before a link is up.
func (k *Kernel) shape(tap TAP, group model.Group) error {
	request := netlink.NewLink(unix.RTM_SETLINK, 0, 0, 0, 0)
	request.Text(unix.IFLA_IFNAME, tap.Name)
	if group != keepGroup {
		request.Uint32(unix.IFLA_GROUP, uint32(group))
		request.Text(unix.IFLA_IFALIAS, tap.Alias)
	}
	request.Uint32(unix.IFLA_TXQLEN, queueLength)
	request.Bytes(unix.IFLA_ADDRESS, tap.MAC[:])
	request.Uint32(unix.IFLA_MTU, uint32(tap.MTU))
	setIPv4(request, TAPSettings())
	requests := []*netlink.Request{request}
	if tap.hasIPv6(k.ipv6) {
		// Separately: the MTU may have brought IPv6 to the link just now.
		request := netlink.NewLink(unix.RTM_SETLINK, 0, 0, 0, 0)
		request.Text(unix.IFLA_IFNAME, tap.Name)
		setNoLinkLocal(request)
		requests = append(requests, request)
	}
	if err := k.change(k.route, opShapeTAP, requests...); err != nil {
		return fmt.Errorf("set up link: %w", linkError(err))
	}
	if tap.hasIPv6(k.ipv6) {
		if err := k.writeSysctl("net/ipv6/conf/"+tap.Name+"/disable_ipv6", "1"); err != nil {
			return fmt.Errorf("switch IPv6 off: %w", err)
		}
	}
	return nil
}

// hasIPv6 reports whether the kernel, which has IPv6 at all or not, has it on a
// link of this MTU (RFC 8200 section 5; net/ipv6/addrconf.c ipv6_add_dev).
func (t TAP) hasIPv6(kernel bool) bool { return kernel && t.MTU >= minMTUOfIPv6 }

// verify checks that the kernel has a TAP as asked for.
func (k *Kernel) verify(tap TAP) error {
	have, err := k.device(tap.Name)
	if err != nil {
		return err
	}
	if wrong := tap.differences(have, k.ipv6); len(wrong) > 0 {
		return fmt.Errorf("the kernel did not take it: %s", strings.Join(wrong, ", "))
	}
	return nil
}

// differences says in which ways a TAP of ours is not as asked for.
func (t TAP) differences(have device, ipv6 bool) []string {
	wrong := have.Hardening.Wrong
	note := func(differs bool, format string, args ...any) {
		if differs {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	note(have.MAC != t.MAC, "address is %s, not %s", have.MAC, t.MAC)
	note(have.MTU != t.MTU, "MTU is %d, not %d", have.MTU, t.MTU)
	note(have.queueLength != queueLength, "queue holds %d packets, not %d", have.queueLength, queueLength)
	note(len(have.Addresses) != 1 || have.Addresses[0] != t.Address, "addresses are %s, not %s", have.Addresses, t.Address)
	note(have.linkLocal && t.hasIPv6(ipv6), "it makes itself an IPv6 address")
	note(!have.Group.Ours(), "group is %s", have.Group)
	note(!have.Up, "it is down")
	return wrong
}
