package hosttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"zwrm/internal/host"
	"zwrm/internal/ipam"
)

const ipForward = "net/ipv4/ip_forward"

// bootSysctls returns the settings of a new network namespace (net/ipv4/devinet.c
// ipv4_devconf_dflt) that a Fake has.
func bootSysctls() map[string]string {
	sysctls := map[string]string{ipForward: "0"}
	for _, s := range host.TAPSettings() {
		value := "0"
		switch s.Key {
		case "send_redirects", "accept_redirects", "secure_redirects":
			value = "1"
		}
		sysctls[s.Sysctl("all")] = value
		sysctls[s.Sysctl("default")] = value
	}
	return sysctls
}

// Sysctl is host.Kernel's.
func (f *Fake) Sysctl(name string) (string, error) {
	if err := f.allow("read " + name); err != nil {
		return "", fmt.Errorf("read sysctl %q: %w", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if value, ok := f.sysctls[name]; ok {
		return value, nil
	}
	if value := f.setting(name); value != nil {
		return strconv.Itoa(int(*value)), nil
	}
	return "", fmt.Errorf("read sysctl %q: %w", name, fs.ErrNotExist)
}

// SetSysctl is host.Kernel's. As in the kernel, a change of net/ipv4/ip_forward
// is one of every link's forwarding.
func (f *Fake) SetSysctl(name, value string) error {
	err := f.do(fmt.Sprintf("sysctl %s = %s", name, value), func() (bool, error) {
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return false, errors.New("invalid argument")
		}
		return f.setSysctl(name, int32(n))
	})
	if err != nil {
		return fmt.Errorf("set sysctl %q to %q: %w", name, value, err)
	}
	return nil
}

func (f *Fake) setSysctl(name string, value int32) (bool, error) {
	text := strconv.Itoa(int(value))
	old, ok := f.sysctls[name]
	switch own := f.setting(name); {
	case own != nil:
		changed := *own != value
		*own = value
		return changed, nil
	case !ok:
		return false, fs.ErrNotExist
	}
	f.sysctls[name] = text
	if name == ipForward && old != text {
		for i, s := range host.TAPSettings() {
			if s.Key != "forwarding" {
				continue
			}
			f.sysctls[s.Sysctl("all")], f.sysctls[s.Sysctl("default")] = text, text
			for _, l := range f.links {
				l.settings[i] = value
			}
		}
	}
	return old != text, nil
}

// setting returns a link's own setting, nil if there is none of that name.
func (f *Fake) setting(sysctl string) *int32 {
	parts := strings.Split(sysctl, "/")
	if len(parts) != 5 {
		return nil
	}
	l, ok := f.links[parts[3]]
	if !ok {
		return nil
	}
	for i, s := range host.TAPSettings() {
		if s.Sysctl(l.Name) == sysctl {
			return &l.settings[i]
		}
	}
	return nil
}

func number(text string) int32 {
	n, _ := strconv.ParseInt(text, 10, 32)
	return int32(n)
}

// Forget is host.Kernel's.
func (f *Fake) Forget(ctx context.Context, guests ...netip.Addr) error {
	if len(guests) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("forget guest %s and %d more: %w", guests[0], len(guests)-1, err)
	}
	var errs []error
	for _, guest := range guests {
		err := f.do("forget "+guest.String(), func() (bool, error) {
			changed := f.forgetFlows(func(flow Flow) bool {
				return slices.Contains([]netip.Addr{flow.Src, flow.Dst, flow.ReplySrc, flow.ReplyDst}, guest)
			})
			for n := range f.neighbours {
				if n.address == guest {
					delete(f.neighbours, n)
					changed = true
				}
			}
			return changed, nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("forget guest %s: %w", guest, err))
		}
	}
	return errors.Join(errs...)
}

// ForgetBetween is host.Kernel's.
func (f *Fake) ForgetBetween(ctx context.Context, subnet netip.Prefix) error {
	err := ctx.Err()
	if err == nil {
		err = f.do("forget within "+subnet.String(), func() (bool, error) {
			return f.forgetFlows(func(flow Flow) bool {
				return subnet.Contains(flow.Src) && subnet.Contains(flow.Dst)
			}), nil
		})
	}
	if err != nil {
		return fmt.Errorf("forget connections within %s: %w", subnet, err)
	}
	return nil
}

// ForgetOthers is host.Kernel's.
func (f *Fake) ForgetOthers(ctx context.Context, subnet netip.Prefix, guests ...netip.Addr) error {
	other := func(a netip.Addr) bool {
		return subnet.Contains(a) && ipam.IsGuest(a) && !slices.Contains(guests, a)
	}
	err := ctx.Err()
	if err == nil {
		err = f.do("forget others within "+subnet.String(), func() (bool, error) {
			return f.forgetFlows(func(flow Flow) bool {
				return slices.ContainsFunc([]netip.Addr{flow.Src, flow.Dst, flow.ReplySrc, flow.ReplyDst}, other)
			}), nil
		})
	}
	if err != nil {
		return fmt.Errorf("forget connections of no guest within %s: %w", subnet, err)
	}
	return nil
}

func (f *Fake) forgetFlows(match func(Flow) bool) (changed bool) {
	before := len(f.flows)
	f.flows = slices.DeleteFunc(f.flows, match)
	return len(f.flows) != before
}
