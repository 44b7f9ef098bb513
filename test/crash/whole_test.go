package crash_test

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite"

	"zwrm/internal/host/netlink"
	"zwrm/internal/host/nstest"
	"zwrm/internal/model"
	"zwrm/internal/plan"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// whole reports what has no owner, and who lacks what is his, of everything outside of
// zwrmd.
func (s *site) whole() error {
	vms, err := s.VMs(s.t.Context(), "")
	if err != nil {
		return err
	}
	return errors.Join(s.rows(), s.links(vms), s.processes(vms), s.files(vms), s.remembered(vms), s.breached())
}

// rows looks for a slot that two have, or that rests while somebody has it.
func (s *site) rows() error {
	text, err := s.query(`SELECT 'slot ' || slot || ' is had ' || count(*) || ' times' FROM
		(SELECT slot FROM vm UNION ALL SELECT slot FROM released) GROUP BY slot HAVING count(*) > 1`)
	if err == nil && text != "" {
		err = errors.New(text)
	}
	return err
}

// query returns the rows of one column, a line each.
func (s *site) query(query string, args ...any) (string, error) {
	db, err := sql.Open("sqlite", "file:"+s.daemon.Database+"?mode=ro&_busy_timeout=5000")
	if err != nil {
		return "", err
	}
	defer db.Close()
	rows, err := db.QueryContext(s.t.Context(), query, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var out strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return "", err
		}
		out.WriteString(line + "\n")
	}
	return out.String(), rows.Err()
}

// links compares the links of the host with those that VMs should have.
func (s *site) links(vms []wire.VM) error {
	apps, err := s.Apps(s.t.Context())
	if err != nil {
		return err
	}
	groups := map[string]string{}
	for _, app := range apps {
		groups[app.Name] = app.Group
	}
	wanted := map[string]string{}
	for _, vm := range vms {
		wanted[vm.TAP] = fmt.Sprintf("tap up %s [%s/30]", groups[vm.App], vm.Gateway)
	}
	found := map[string]string{}
	all, err := s.kernel.Links(s.t.Context())
	if err != nil {
		return err
	}
	spare := 0
	for _, link := range all {
		switch link.Name {
		case "lo", zwrmtest.Uplink, "zwrmd0":
			continue
		}
		if link.Alias == plan.SpareAlias && link.Group == model.GroupUnassigned && spare < s.pool {
			spare++
			continue
		}
		state := "down"
		if link.Up {
			state = "up"
		}
		found[link.Name] = fmt.Sprintf("%s %s %s %s", link.Kind, state, link.Group, link.Addresses)
	}
	return differ("links", wanted, found)
}

// processes compares VMMs with VMs.
func (s *site) processes(vms []wire.VM) error {
	wanted, found := map[string]string{}, map[string]string{}
	for _, vm := range vms {
		if !vm.Attachment {
			wanted[strconv.Itoa(vm.PID)] = "VMM"
		}
	}
	for pid := range s.vmms() {
		found[strconv.Itoa(pid)] = "VMM"
	}
	return differ("processes", wanted, found)
}

// vmms returns the folders of the VMMs that run, by process.
func (s *site) vmms() map[int]string {
	found := map[int]string{}
	entries, err := os.ReadDir("/proc")
	s.must(err)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		dir, err := os.Readlink("/proc/" + entry.Name() + "/cwd") // none of a zombie
		if err == nil && strings.HasPrefix(dir, s.folder("vms")+"/") {
			found[pid] = filepath.Base(dir)
		}
	}
	return found
}

// folder returns a path in the folder of the database.
func (s *site) folder(name string) string {
	return filepath.Join(filepath.Dir(s.daemon.Database), name)
}

// files compares folders and files with VMs and images.
func (s *site) files(vms []wire.VM) error {
	text, err := s.query(`SELECT id FROM vm WHERE NOT attachment`)
	if err != nil {
		return err
	}
	images, err := s.Images(s.t.Context())
	if err != nil {
		return err
	}
	var names []string
	for _, image := range images {
		names = append(names, image.Name)
	}
	var errs []error
	for dir, wanted := range map[string][]string{
		s.folder("vms"): strings.Fields(text),
		filepath.Join(filepath.Dir(s.daemon.Config), "images"): names,
		s.folder(""): {"state.db", "state.db-shm", "state.db-wal", "state.db.lock", "vms"},
	} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		want, found := map[string]string{}, map[string]string{}
		for _, name := range wanted {
			want[name] = "file"
		}
		for _, entry := range entries {
			found[entry.Name()] = "file"
		}
		errs = append(errs, differ("in "+dir, want, found))
	}
	return errors.Join(errs...)
}

// remembered looks for connections and neighbours of addresses that no VM has.
func (s *site) remembered(vms []wire.VM) error {
	owned := map[netip.Addr]bool{}
	for _, vm := range vms {
		owned[netip.MustParseAddr(vm.GuestIP)] = true
		owned[netip.MustParseAddr(vm.Gateway)] = true
	}
	subnet := netip.MustParsePrefix("172.16.0.0/21")
	all, err := s.flows.all()
	if err != nil {
		return err
	}
	for _, address := range all {
		if subnet.Contains(address) && !owned[address] {
			return fmt.Errorf("the kernel remembers %s, which no VM has", address)
		}
	}
	return nil
}

// differ says what is not in both.
func differ(what string, wanted, found map[string]string) error {
	if maps.Equal(wanted, found) {
		return nil
	}
	text := func(m map[string]string) string {
		var lines []string
		for _, key := range slices.Sorted(maps.Keys(m)) {
			lines = append(lines, key+" "+m[key]+"\n")
		}
		return strings.Join(lines, "")
	}
	return fmt.Errorf("%s:\n%s", what, zwrmtest.Changes(text(wanted), text(found)))
}

// flows reads what a kernel remembers of connections and neighbours.
type flows struct{ conntrack, route *netlink.Conn }

func newFlows(t *testing.T, ns *nstest.Namespace) *flows {
	t.Helper()
	f := &flows{}
	var errs [2]error
	ns.Do(t, func() {
		f.conntrack, errs[0] = netlink.Dial(unix.NETLINK_NETFILTER)
		f.route, errs[1] = netlink.Dial(unix.NETLINK_ROUTE)
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.conntrack.Close()
		f.route.Close()
	})
	return f
}

// all returns the IPv4 addresses of all connections, in both directions, and of all
// neighbours.
func (f *flows) all() ([]netip.Addr, error) {
	var found []netip.Addr
	note := func(value []byte) {
		if address, ok := netip.AddrFromSlice(value); ok && address.Is4() {
			found = append(found, address)
		}
	}
	const ctGet = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	header := []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}
	neighbours := [unix.SizeofNdMsg]byte{unix.AF_INET}
	err := errors.Join(
		list(f.conntrack, netlink.NewRequest(ctGet, unix.NLM_F_DUMP, header), func(payload []byte) {
			for attribute, tuple := range netlink.Attributes(payload[len(header):]) {
				if attribute != 1 && attribute != 2 { // CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
					continue
				}
				for attribute, addresses := range netlink.Attributes(tuple) {
					if attribute != 1 { // CTA_TUPLE_IP
						continue
					}
					for _, address := range netlink.Attributes(addresses) {
						note(address)
					}
				}
			}
		}),
		list(f.route, netlink.NewRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, neighbours[:]), func(payload []byte) {
			for attribute, value := range netlink.Attributes(payload[unix.SizeofNdMsg:]) {
				if attribute == unix.NDA_DST {
					note(value)
				}
			}
		}))
	return found, err
}

// list reads a list, again while it changes.
func list(conn *netlink.Conn, request *netlink.Request, each func([]byte)) error {
	for {
		err := conn.Query(request, each)
		if !errors.Is(err, netlink.ErrInterrupted) {
			return err
		}
	}
}
