package bench_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/iptables"
	"zwrm/internal/firewall/nftables"
	"zwrm/internal/host"
	"zwrm/internal/host/netlink"
	"zwrm/internal/host/nstest"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

type pvar struct {
	name  string
	ns    *nstest.Namespace
	pairs []*ppair
}

type ppair struct {
	a, b     int
	ab, ba   []byte
	as, bs   netip.Addr
}

func envInt(name string, d int) int {
	if v, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return v
	}
	return d
}

func openRaw(t testing.TB, name string) int {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := unix.NewIfreq(name)
	r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		t.Fatal(err)
	}
	return fd
}

func csum(b []byte, sum uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func udpFrame(src, dst netip.Addr, sp, dp uint16, n int) []byte {
	f := make([]byte, 10+14+20+8+n)
	e := f[10:]
	gw := ipam.GatewayMAC()
	copy(e, gw[:])
	m := ipam.MACOf(src)
	copy(e[6:], m[:])
	e[12] = 8
	ip := e[14:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[6] = 0x40
	ip[8] = 64
	ip[9] = 17
	s4, d4 := src.As4(), dst.As4()
	copy(ip[12:], s4[:])
	copy(ip[16:], d4[:])
	binary.BigEndian.PutUint16(ip[10:], csum(ip[:20], 0))
	u := ip[20:]
	binary.BigEndian.PutUint16(u, sp)
	binary.BigEndian.PutUint16(u[2:], dp)
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	pseudo := uint32(17 + len(u))
	for i := 12; i < 20; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(u[6:], csum(u, pseudo))
	return f
}

func (v *pvar) populate(t testing.TB, l ipam.Layout, vms, npairs int, rules string, rs firewall.Ruleset) {
	start := time.Now()
	v.ns = nstest.New(t)
	ctx := t.Context()
	v.ns.Do(t, func() {
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		for f, val := range map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/default/disable_ipv6": "1"} {
			must(os.WriteFile("/proc/sys/"+f, []byte(val), 0))
		}
		k, err := host.Open()
		must(err)
		defer k.Close()
		for s := range vms {
			slot := ipam.Slot(s)
			must(k.CreateTAP(ctx, host.TAP{Name: slot.TAP(), MAC: ipam.GatewayMAC(), MTU: 1500, Address: netip.PrefixFrom(l.Gateway(slot), 30)}))
			must(k.SetGroup(ctx, model.AppID(s/10+1).Group(), slot.TAP()))
		}
		fmt.Printf("%s: taps %v\n", v.name, time.Since(start))
		switch rules {
		case "iptables":
			d, err := iptables.Open(ctx)
			must(err)
			must(d.Apply(ctx, rs))
		case "nftables":
			d, err := nftables.Open(ctx)
			must(err)
			must(d.Apply(ctx, rs))
			t.Cleanup(func() { d.Close() })
		case "":
		default:
			c := exec.Command("nft", "-f", rules)
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("nft: %v %s", err, out)
			}
		}
		conn, err := netlink.Dial(unix.NETLINK_ROUTE)
		must(err)
		defer conn.Close()
		for p := range npairs {
			app := (2*p + 1) * (vms / 10) / (2 * npairs)
			sa, sb := ipam.Slot(app*10), ipam.Slot(app*10+9)
			x := &ppair{as: l.Guest(sa), bs: l.Guest(sb)}
			x.a, x.b = openRaw(t, sa.TAP()), openRaw(t, sb.TAP())
			t.Cleanup(func() { unix.Close(x.a); unix.Close(x.b) })
			x.ab = udpFrame(x.as, x.bs, 4000, 5000, 64)
			x.ba = udpFrame(x.bs, x.as, 5000, 4000, 64)
			for _, s := range []ipam.Slot{sa, sb} {
				idx, err := indexOf(s.TAP())
				must(err)
				fixed := make([]byte, unix.SizeofNdMsg)
				fixed[0] = unix.AF_INET
				binary.NativeEndian.PutUint32(fixed[4:], uint32(idx))
				binary.NativeEndian.PutUint16(fixed[8:], unix.NUD_PERMANENT)
				r := netlink.NewRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, fixed)
				r.Bytes(unix.NDA_DST, l.Guest(s).AsSlice())
				m := ipam.MACOf(l.Guest(s))
				r.Bytes(unix.NDA_LLADDR, m[:])
				must(conn.Do(r))
			}
			v.pairs = append(v.pairs, x)
		}
		out, _ := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		fmt.Printf("%s: all %v conntrack %s", v.name, time.Since(start), out)
	})
}

var pbuf = make([]byte, 2048)

func pass(from, to int, f []byte) bool {
	if _, err := unix.Write(from, f); err != nil {
		panic(err)
	}
	for {
		n, err := unix.Read(to, pbuf)
		if err != nil {
			return false
		}
		if n == len(f) {
			return true
		}
	}
}

func cputime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}

func TestProto(t *testing.T) {
	vms := envInt("VMS", 1600)
	np := envInt("PAIRS", 16)
	rounds := envInt("ROUNDS", 500)
	l, err := ipam.NewLayout(netip.MustParsePrefix("172.16.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	var apps []firewall.App
	for i := range vms / 10 {
		apps = append(apps, firewall.App{Name: model.Name(fmt.Sprintf("app%d", i)), Group: model.AppID(i + 1).Group()})
	}
	rs := firewall.Build(firewall.Policy{Subnet: l.Subnet(), External: "eth0", Private: true,
		EgressDeny: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")}, Apps: apps})
	vs := []*pvar{{name: "plain"}, {name: "plain2"}, {name: "iptables"}, {name: "nftables"}}
	kinds := []string{"", "", "iptables", "nftables"}
	for _, f := range os.Args {
		_ = f
	}
	if extra := os.Getenv("NFTFILES"); extra != "" {
		for _, f := range splitc(extra) {
			vs = append(vs, &pvar{name: f})
			kinds = append(kinds, f)
		}
	}
	for i, v := range vs {
		v.populate(t, l, vms, np, kinds[i], rs)
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	// check
	for _, v := range vs {
		for _, p := range v.pairs {
			for try := 0; !pass(p.a, p.b, p.ab) || !pass(p.b, p.a, p.ba); try++ {
				if try > 300 { t.Fatalf("%s does not pass", v.name) }
				time.Sleep(10*time.Millisecond)
			}
		}
	}
	run := func(what string, each func(v *pvar) int) {
		ratios := make([][]float64, len(vs))
		times := make([][]float64, len(vs))
		for r := range rounds {
			took := make([]float64, len(vs))
			for i := range vs {
				j := (i + r) % len(vs)
				s := cputime()
				n := each(vs[j])
				took[j] = float64(cputime()-s) / float64(n)
			}
			for i := range vs {
				ratios[i] = append(ratios[i], took[i]/took[0])
				times[i] = append(times[i], took[i])
			}
		}
		for i, v := range vs {
			slices.Sort(ratios[i])
			slices.Sort(times[i])
			q := func(x []float64, p float64) float64 { return x[int(p*float64(len(x)-1))] }
			fmt.Printf("%-12s %-24s ratio %.3f  p10 %.3f p90 %.3f   ns %.0f\n", what, v.name, q(ratios[i], .5), q(ratios[i], .1), q(ratios[i], .9), q(times[i], .5))
		}
	}
	if w := os.Getenv("ONLY"); w != "" {
		for _, v := range vs { if v.name == w {
			fmt.Println("tid", unix.Gettid())
			c := exec.Command("perf", "record", "-q", "-F", "8000", "-e", "cpu-clock", "-t", fmt.Sprint(unix.Gettid()), "-o", "/tmp/w/proto/perf.data", "sleep", "7")
			c.Start()
			defer c.Wait()
			for end := time.Now().Add(8*time.Second); time.Now().Before(end); { for _, p := range v.pairs { pass(p.a,p.b,p.ab); pass(p.b,p.a,p.ba) } }
		}}
		return
	}
	run("roundtrip", func(v *pvar) int {
		n := 0
		for range 8 {
			for _, p := range v.pairs {
				if !pass(p.a, p.b, p.ab) || !pass(p.b, p.a, p.ba) {
					t.Fatalf("%s does not pass", v.name)
				}
				n++
			}
		}
		return n
	})
	type guest struct { fd, sock int; addr netip.Addr }
	mk := func(addr, peer netip.Addr, sp, dp int) guest {
		g := guest{addr: addr}
		ns := nstest.New(t)
		ns.Do(t, func() {
			g.fd = openRaw(t, "eth0")
			m := ipam.MACOf(addr)
			gw := addr.Prev()
			gm := ipam.GatewayMAC()
			for _, c := range []string{"sysctl -qw net.ipv6.conf.all.disable_ipv6=1", "ip link set eth0 address "+m.String()+" up", "ip addr add "+addr.String()+"/30 dev eth0",
				"ip route add default via "+gw.String(), "ip neigh replace "+gw.String()+" lladdr "+gm.String()+" dev eth0 nud permanent"} {
				if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil { t.Fatalf("%s: %s", c, out) }
			}
			var err error
			if g.sock, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0); err != nil { t.Fatal(err) }
			if err := unix.Bind(g.sock, &unix.SockaddrInet4{Port: sp, Addr: addr.As4()}); err != nil { t.Fatal(err) }
			if err := unix.Connect(g.sock, &unix.SockaddrInet4{Port: dp, Addr: peer.As4()}); err != nil { t.Fatal(err) }
		})
		return g
	}
	var gs [][2]guest
	for i := range 2 {
		p := vs[0].pairs[i]
		gs = append(gs, [2]guest{mk(p.as, p.bs, 4100, 5100), mk(p.bs, p.as, 5100, 4100)})
	}
	time.Sleep(500*time.Millisecond)
	msg := make([]byte, 64)
	carry := func(from, to int) bool {
		n, err := unix.Read(from, pbuf)
		if err != nil { return false }
		_, err = unix.Write(to, pbuf[:n])
		return err == nil
	}
	say := func(v *pvar, g, h guest, zg, zh int) bool {
		if _, err := unix.Write(g.sock, msg); err != nil { t.Fatal(err) }
		if !carry(g.fd, zg) || !carry(zh, h.fd) { return false }
		_, err := unix.Read(h.sock, pbuf)
		return err == nil
	}
	for _, v := range vs { for i, g := range gs {
		for try := 0; !say(v, g[0], g[1], v.pairs[i].a, v.pairs[i].b) || !say(v, g[1], g[0], v.pairs[i].b, v.pairs[i].a); try++ {
			if try > 30 { t.Fatal("guests") }
			time.Sleep(50*time.Millisecond)
		}
	}}
	run("guests", func(v *pvar) int {
		n := 0
		for range 30 { for i, g := range gs {
			if !say(v, g[0], g[1], v.pairs[i].a, v.pairs[i].b) || !say(v, g[1], g[0], v.pairs[i].b, v.pairs[i].a) { t.Fatal("lost") }
			n++
		}}
		return n
	})
	port := map[*pvar]uint16{}
	run("first", func(v *pvar) int {
		n := 0
		for range 4 {
			port[v]++
			for _, p := range v.pairs {
				binary.BigEndian.PutUint16(p.ab[44:], port[v])
				p.ab[50], p.ab[51] = 0, 0
				if !pass(p.a, p.b, p.ab) {
					t.Fatalf("%s does not pass", v.name)
				}
				n++
			}
		}
		return n
	})
	for _, v := range vs {
		v.ns.Do(t, func() {
			out, _ := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
			fmt.Printf("%s: conntrack %s", v.name, out)
		})
	}
}

func splitc(s string) (out []string) {
	for len(s) > 0 {
		i := 0
		for i < len(s) && s[i] != ',' {
			i++
		}
		out = append(out, s[:i])
		if i < len(s) {
			i++
		}
		s = s[i:]
	}
	return
}
