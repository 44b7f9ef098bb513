package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/netlink"
)

// crowd is how long notices gather before they are passed on.
const crowd = 10 * time.Millisecond

// Of linux/netconf.h, which golang.org/x/sys does not name.
const (
	netconfIndex      = 1  // NETCONFA_IFINDEX
	netconfForwarding = 2  // NETCONFA_FORWARDING
	netconfRPFilter   = 3  // NETCONFA_RP_FILTER
	netconfAll        = -1 // NETCONFA_IFINDEX_ALL
)

// About says what a Notice is about.
type About string

// What notices are about.
const (
	AboutLink    About = "link"    // it was made or changed: Link is how it is now, without addresses
	AboutNoLink  About = "no link" // it was deleted, or lost the name
	AboutAddress About = "address" // Address was added to the link, or, if Gone, removed
	AboutRoute   About = "route"   // the IPv4 route to Address by the link was removed, or replaced by another
	AboutSetting About = "setting" // forwarding or rp_filter of the link, or, without Name, of all links
	AboutLost    About = "lost"    // the kernel had no room to tell: anything may have changed
)

// Notice is what the kernel tells of one change of links, addresses, routes or
// settings, whoever made it. That an IPv4 route was added is not told.
type Notice struct {
	About   About
	Name    string // of the link, empty: not known
	Link    Link
	Address netip.Prefix
	Gone    bool
	Off     bool // AboutSetting: forwarding or rp_filter is not 1
	// PID is who asked for the change: the netlink port, which for most programs is
	// the process id. 0: the kernel does not say, as with most changes of links, or
	// it was this process.
	PID     int
	Program string // its name, as far as it still runs
}

// watcher makes Notices of what the kernel tells.
type watcher struct {
	listener *netlink.Listener
	settings []Setting
	names    map[int]string // of links, by index
	batch    []Notice
}

// Watch tells of changes in the namespace of the calling thread, in the order in
// which they were made, until ctx ends, which closes the channel. A slow reader
// loses some, and is told so. Kernels have no notice of settings other than those of
// AboutSetting.
func (k *Kernel) Watch(ctx context.Context) (<-chan []Notice, error) {
	listener, err := netlink.Listen(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF)
	if err != nil {
		return nil, fmt.Errorf("watch links: %w", err)
	}
	w := &watcher{listener: listener, settings: TAPSettings(), names: map[int]string{}}
	links, err := k.Devices(ctx)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	for _, l := range links {
		w.names[l.Index] = l.Name
	}
	batches := make(chan []Notice)
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() }) // ends Receive
	go func() {
		defer stop()
		defer close(batches)
		for w.next(ctx) {
			select {
			case batches <- w.batch:
			case <-ctx.Done():
			}
		}
	}()
	return batches, nil
}

// next gathers a batch. It reports whether there may be more.
func (w *watcher) next(ctx context.Context) bool {
	w.batch = nil
	err := w.listener.Receive(ctx, crowd, w.take)
	if errors.Is(err, netlink.ErrLost) {
		w.batch = append(w.batch, Notice{About: AboutLost})
		err = nil
	}
	return err == nil
}

// take notes what one message tells.
func (w *watcher) take(n netlink.Notice) {
	var notice Notice
	// The kernel makes up ports below 0 for sockets of a process behind its first.
	if port := int(int32(n.Port)); port > 0 && port != os.Getpid() {
		notice.PID, notice.Program = port, programOf(port)
	}
	switch n.Kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		w.link(notice, n)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		w.address(notice, n)
	case unix.RTM_DELROUTE:
		w.route(notice, n)
	case unix.RTM_NEWROUTE:
		if n.Flags&unix.NLM_F_REPLACE != 0 {
			w.route(notice, n)
		}
	case unix.RTM_NEWNETCONF:
		w.setting(notice, n)
	}
}

func (w *watcher) add(n Notice) { w.batch = append(w.batch, n) }

func (w *watcher) link(notice Notice, n netlink.Notice) {
	if len(n.Payload) < unix.SizeofIfInfomsg || n.Payload[0] != unix.AF_UNSPEC { // of bridges' ports, and of IPv6
		return
	}
	var d device
	d.parse(n.Payload, w.settings)
	was, known := w.names[d.Index]
	if n.Kind == unix.RTM_DELLINK {
		delete(w.names, d.Index)
		notice.About, notice.Name = AboutNoLink, d.Name
		w.add(notice)
		return
	}
	if known && was != d.Name {
		gone := notice
		gone.About, gone.Name = AboutNoLink, was
		w.add(gone)
	}
	w.names[d.Index] = d.Name
	notice.About, notice.Name, notice.Link = AboutLink, d.Name, d.Link
	w.add(notice)
}

func (w *watcher) address(notice Notice, n netlink.Notice) {
	if len(n.Payload) < unix.SizeofIfAddrmsg || n.Payload[0] != unix.AF_INET {
		return
	}
	notice.About, notice.Gone = AboutAddress, n.Kind == unix.RTM_DELADDR
	notice.Name = w.names[int(netlink.Uint32(n.Payload, 4))]
	for attribute, value := range netlink.Attributes(n.Payload[unix.SizeofIfAddrmsg:]) {
		if address, ok := netip.AddrFromSlice(value); ok && attribute == unix.IFA_LOCAL {
			notice.Address = netip.PrefixFrom(address, int(n.Payload[1]))
		}
	}
	w.add(notice)
}

func (w *watcher) route(notice Notice, n netlink.Notice) {
	p := n.Payload
	if len(p) < unix.SizeofRtMsg || p[0] != unix.AF_INET || netlink.Uint32(p, 8)&unix.RTM_F_CLONED != 0 {
		return
	}
	notice.About = AboutRoute
	for attribute, value := range netlink.Attributes(p[unix.SizeofRtMsg:]) {
		switch attribute {
		case unix.RTA_DST:
			if address, ok := netip.AddrFromSlice(value); ok {
				notice.Address = netip.PrefixFrom(address, int(p[1]))
			}
		case unix.RTA_OIF:
			notice.Name = w.names[int(netlink.Uint32(value, 0))]
		}
	}
	w.add(notice)
}

// setting passes on what is neither about the links to come nor about other settings.
func (w *watcher) setting(notice Notice, n netlink.Notice) {
	const sizeofNetconfMsg = 4 // struct netconfmsg, padded
	if len(n.Payload) < sizeofNetconfMsg || n.Payload[0] != unix.AF_INET {
		return
	}
	index, told := 0, false
	for attribute, value := range netlink.Attributes(n.Payload[sizeofNetconfMsg:]) {
		switch attribute {
		case netconfIndex:
			index = int(int32(netlink.Uint32(value, 0)))
		case netconfForwarding, netconfRPFilter:
			told = true
			notice.Off = notice.Off || netlink.Uint32(value, 0) != 1
		}
	}
	name, known := w.names[index]
	if !told || !known && index != netconfAll {
		return
	}
	notice.About, notice.Name = AboutSetting, name
	w.add(notice)
}

// programOf returns the name of a process, empty if it has ended.
func programOf(pid int) string {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}
