package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"zwrm/internal/model"
)

// What a TAP can carry. The least is what every IPv4 host must take (RFC 1122
// section 3.3.2); the most is 65535 less the Ethernet header, which the kernel
// keeps back (tun_net_init in drivers/net/tun.c: "maxmtu 65521" of ip -d link).
const (
	minMTU = 576
	maxMTU = 65521
)

// maxPool bounds what the TAPs of no VM take of the kernel's memory, to about 240 MiB.
const maxPool = 4096

// maxDNS is how many resolvers the kernel's ip= argument has room for.
const maxDNS = 2

// config checks the raw values and returns them typed. It reports what is wrong;
// the result counts only when nothing was reported.
func (l *loader) config() Config {
	return Config{
		Server:   l.server(),
		Database: l.database(),
		Network:  l.network(),
		VMM:      VMM{Driver: l.vmmDriver(), UIDBase: l.uidBase()},
		Images:   Images{Dir: l.path("images.dir", l.raw.Images.Dir)},
	}
}

func (l *loader) server() Server {
	r := l.raw.Server
	server := Server{Socket: l.path("server.socket", r.Socket), Listen: r.Listen, TokenFile: r.TokenFile}
	server.Hosts = list(l, "server.hosts", r.Hosts, parseHost)
	if r.Listen != "" {
		l.listen(r.Listen)
	}
	switch {
	case r.TokenFile != "":
		l.path("server.token_file", r.TokenFile)
	case r.Listen != "" && !l.faulty("server.token_file"):
		// Whoever reaches the port would command the host.
		l.report(Problem{Key: "server.listen", Value: quote(r.Listen), What: "needs a token",
			Mend: `set server.token_file to the file that holds it, or listen to ""`})
	}
	return server
}

// parseHost returns the name of a host as it is compared. A port is no part of it.
func parseHost(text string) (string, fault) {
	name := strings.ToLower(text)
	const digits = "0123456789"
	if name == "" || len(name) > 253 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz.-_"+digits) != "" || strings.Trim(name, digits+".") == "" {
		return "", fault{"not the name of a host", `use a form such as "vms.example.com", without a port`}
	}
	return name, fault{}
}

func (l *loader) database() Database {
	r := l.raw.Database
	if r.Driver != "sqlite" {
		l.report(Problem{Key: "database.driver", Value: quote(r.Driver), What: "unknown driver", Mend: `use "sqlite"`})
	}
	return Database{Path: l.path("database.path", r.Path)}
}

func (l *loader) vmmDriver() string {
	driver := l.raw.VMM.Driver
	problem := Problem{Key: "vmm.driver", Value: quote(driver), Mend: `use "auto" or "qemu"`}
	switch driver {
	case "auto", "qemu":
		return driver
	case "firecracker", "cloud-hypervisor":
		problem.What = "this version does not have this driver yet"
	default:
		problem.What = "unknown driver"
	}
	l.report(problem)
	return ""
}

// The uids that VMs may have: behind those of 16 bits, which are the host's own
// users, and of what a signed number of 32 bits holds, as many programs take them.
const (
	minUID = 1 << 16
	maxUID = 1<<31 - 1
)

func (l *loader) uidBase() uint32 {
	base := l.raw.VMM.UIDBase
	last := maxUID - int64(1)<<(32-2-minSubnetBits)
	if base < minUID || base > last {
		l.report(Problem{Key: "vmm.uid_base", Value: fmt.Sprint(base), What: "not the first of enough uids that no account has",
			Mend: fmt.Sprintf("use %d to %d, such as 1879048192", minUID, last)})
	}
	return uint32(base)
}

func (l *loader) network() Network {
	r := l.raw.Network
	network := Network{
		Layout:            l.layout(),
		ExternalInterface: r.ExternalInterface,
		Firewall:          l.firewall(),
		OnShutdown:        l.onShutdown(),
		EgressDeny:        l.egressDeny(),
		HostAccess:        l.hostAccess(),
		DNS:               l.dns(),
		MTU:               l.mtu(),
		Pool:              l.pool(),
	}
	if r.ExternalInterface != "" {
		l.link("network.external_interface", r.ExternalInterface,
			`name an interface that "ip link" shows, or use "" for that of the default route`)
	}
	network.Bridge = l.bridge(network)
	return network
}

func (l *loader) firewall() Dataplane {
	firewall := Dataplane(l.raw.Network.Firewall)
	if firewall != Iptables && firewall != Nftables {
		l.report(Problem{Key: "network.firewall", Value: quote(string(firewall)), What: "unknown firewall", Mend: `use "iptables" or "nftables"`})
	}
	return firewall
}

func (l *loader) onShutdown() Shutdown {
	shutdown := Shutdown(l.raw.Network.OnShutdown)
	if shutdown != ShutdownClean && shutdown != ShutdownKeep {
		l.report(Problem{Key: "network.on_shutdown", Value: quote(string(shutdown)), What: "unknown way to stop",
			Mend: `use "clean" or "keep"`})
	}
	return shutdown
}

func (l *loader) mtu() int {
	mtu := l.raw.Network.MTU
	if mtu != 0 && (mtu < minMTU || mtu > maxMTU) {
		l.report(Problem{Key: "network.mtu", Value: fmt.Sprint(mtu), What: "not a size that a TAP and IPv4 can have",
			Mend: fmt.Sprintf("use %d to %d, or 0 for that of the external interface", minMTU, maxMTU)})
	}
	return int(mtu)
}

func (l *loader) pool() int {
	pool := l.raw.Network.Pool
	if pool < 0 || pool > maxPool {
		l.report(Problem{Key: "network.pool", Value: fmt.Sprint(pool), What: "not a number of networks to make ahead",
			Mend: fmt.Sprintf("use 0 to %d", maxPool)})
	}
	return int(pool)
}

func (l *loader) hostAccess() []model.Service {
	return list(l, "network.host_access", l.raw.Network.HostAccess, func(text string) (model.Service, fault) {
		service, err := model.ParseService(text)
		if err != nil {
			return model.Service{}, fault{"not a service", `use "tcp/PORT" or "udp/PORT" with a port from 1 to 65535`}
		}
		return service, fault{}
	})
}

// path reports a path that is not absolute: it would depend on the folder that
// the daemon happens to be started in.
func (l *loader) path(key, path string) string {
	if !filepath.IsAbs(path) {
		l.report(Problem{Key: key, Value: quote(path), What: "not an absolute path", Mend: `begin it with "/"`})
	}
	return path
}

// fault is what is wrong with a value and what to do; the zero value is nothing.
type fault struct{ what, mend string }

// list returns the items of a list typed, and reports those that parse refuses
// and those that are there already.
func list[T comparable](l *loader, key string, texts []string, parse func(string) (T, fault)) []T {
	var items []T
	first := map[T]int{}
	for i, text := range texts {
		place := fmt.Sprintf("%s[%d]", key, i)
		if l.faulty(place) {
			continue // not even a string
		}
		item, wrong := parse(text)
		if before, twice := first[item]; twice && wrong == (fault{}) {
			wrong = fault{fmt.Sprintf("the same as %s[%d]", key, before), "remove one of them"}
		}
		if wrong != (fault{}) {
			l.report(Problem{Key: place, Value: quote(text), What: wrong.what, Mend: wrong.mend})
			continue
		}
		first[item] = i
		items = append(items, item)
	}
	return items
}
