package firewalld

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
)

const missing = "firewalld interface zvm+: wanted zone trusted, found no zone\n"

// TestBinding: Diff says what is missing, Apply makes it and a second one does
// nothing. What others have put elsewhere is left alone, and told.
func TestBinding(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		zones   map[string][]string
		targets map[string]string
		diff    string // "" or what it says
		apply   string // what the error says
		did     string
	}{
		{name: "no zone in use", diff: missing, did: "addInterface trusted zvm+"},
		{name: "other interfaces in zones", zones: map[string][]string{"public": {"eth0", "zv", "zvn+"}, "trusted": {"lxc0"}},
			diff: missing, did: "addInterface trusted zvm+"},
		{name: "bound", zones: map[string][]string{"trusted": {"zvm+"}}},
		{name: "bound to another zone that accepts", zones: map[string][]string{"vms": {"zvm+"}}, targets: map[string]string{"vms": "ACCEPT", "trusted": "DROP"}},
		{name: "bound to a zone that does not", zones: map[string][]string{"public": {"eth0", "zvm+"}},
			apply: `interfaces "zvm+" are in zone "public" of firewalld, whose target is "default"`},
		{name: "one TAP in a zone that drops", zones: map[string][]string{"drop": {"zvm3"}}, targets: map[string]string{"drop": "DROP"},
			apply: `interfaces "zvm3" are in zone "drop"`},
		{name: "one TAP in another zone while bound", zones: map[string][]string{"trusted": {"zvm+"}, "work": {"zvm3"}},
			apply: `interfaces "zvm3" are in zone "work"`},
		{name: "one TAP in a zone that accepts", zones: map[string][]string{"vms": {"zvm3"}}, targets: map[string]string{"vms": "ACCEPT"},
			diff: missing, did: "addInterface trusted zvm+"},
		{name: "wider wildcards", zones: map[string][]string{"public": {"z+", "+"}},
			apply: `interfaces "+" are in zone "public"`},
		{name: "narrower wildcard", zones: map[string][]string{"home": {"zvm1+"}},
			apply: `interfaces "zvm1+" are in zone "home"`},
		{name: "trusted does not accept", targets: map[string]string{"trusted": "%%REJECT%%"},
			apply: `zone "trusted" of firewalld has the target "%%REJECT%%"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bus := startBus(t)
			f := bus.prepare(test.zones)
			maps.Copy(f.targets, test.targets)
			f.own()
			z := bus.open()
			if got := diff(t, z); got != test.diff {
				t.Errorf("Diff: %s, want %s", got, test.diff)
			}
			for range 2 {
				var conflict *ConflictError
				switch err := z.Apply(t.Context()); {
				case test.apply == "" && err != nil:
					t.Errorf("Apply: %v", err)
				case test.apply != "" && (!errors.As(err, &conflict) || !strings.Contains(err.Error(), test.apply) || len(conflict.Conflicts) == 0):
					t.Errorf("Apply: %v, want a conflict: %s", err, test.apply)
				}
			}
			if got := f.did(); got != test.did {
				t.Errorf("Apply did %q, want %q", got, test.did)
			}
			if got := diff(t, z); got != "" {
				t.Errorf("Diff after Apply: %s, want none", got)
			}
			state, err := z.State(t.Context())
			if want := test.apply == ""; err != nil || !state.Running || state.Bound != want || (len(state.Conflicts) == 0) != want {
				t.Errorf("State: %+v, %v", state, err)
			}
		})
	}
}

// TestRemove: what is taken away is the binding at runtime alone, and nothing that
// the permanent configuration has.
func TestRemove(t *testing.T) {
	t.Parallel()
	const did = "removeInterface trusted zvm+"
	tests := []struct {
		name      string
		zones     map[string][]string
		permanent string
		refuse    map[string]string
		did       string
		err       string
	}{
		{name: "ours", zones: map[string][]string{"trusted": {"zvm+"}}, did: did},
		{name: "ours while trusted has others", zones: map[string][]string{"trusted": {"lxc0", "zvm+"}}, did: did},
		{name: "ours while the permanent configuration has another zone", zones: map[string][]string{"trusted": {"zvm+"}}, permanent: "public", did: did},
		{name: "not there", zones: map[string][]string{"trusted": {"lxc0"}}},
		{name: "permanent", zones: map[string][]string{"trusted": {"zvm+"}}, permanent: "trusted"},
		{name: "permanent in a part of the zone", zones: map[string][]string{"trusted": {"zvm+"}}, permanent: "trusted/site"},
		{name: "permanent in two zones", zones: map[string][]string{"trusted": {"zvm+"}},
			permanent: "public trusted  (ERROR: interface 'zvm+' is in 2 zone XML files, can be only in one)"},
		{name: "in another zone", zones: map[string][]string{"vms": {"zvm+"}}},
		{name: "a wildcard of others", zones: map[string][]string{"trusted": {"z+", "zvm3"}}},
		{name: "somebody was faster", zones: map[string][]string{"trusted": {"zvm+"}}, did: did,
			refuse: map[string]string{"removeInterface": "UNKNOWN_INTERFACE: 'zvm+' is not in any zone"}},
		{name: "somebody moved it", zones: map[string][]string{"trusted": {"zvm+"}}, did: did,
			refuse: map[string]string{"removeInterface": "ZONE_CONFLICT: remove_interface(trusted, zvm+): zoi='public'"}},
		{name: "refused", zones: map[string][]string{"trusted": {"zvm+"}}, did: did,
			refuse: map[string]string{"removeInterface": "PANIC_MODE"}, err: `take interfaces "zvm+" out of zone "trusted" of firewalld: PANIC_MODE`},
		{name: "permanent configuration not known", zones: map[string][]string{"trusted": {"zvm+"}},
			refuse: map[string]string{"config.getZoneOfInterface": "ACCESS_DENIED"}, err: `take interfaces "zvm+" out of zone "trusted" of firewalld: ACCESS_DENIED`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bus := startBus(t)
			f := bus.prepare(test.zones)
			f.permanent, f.refuse = test.permanent, test.refuse
			f.own()
			z := bus.open()
			err := z.Remove(t.Context())
			if text := message(err); text != test.err {
				t.Errorf("Remove: %q, want %q", text, test.err)
			}
			if got := f.did(); got != test.did {
				t.Errorf("Remove did %q, want %q", got, test.did)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestRefused: what firewalld refuses is told, but for what is so already.
func TestRefused(t *testing.T) {
	t.Parallel()
	tests := []struct{ method, text, apply, diff, state string }{
		{method: "addInterface", text: "ZONE_ALREADY_SET: 'zvm+' already bound to 'trusted'"},
		{method: "addInterface", text: "PANIC_MODE", apply: `put interfaces "zvm+" into zone "trusted" of firewalld: PANIC_MODE`},
		{method: "addInterface", text: "ZONE_CONFLICT: 'zvm+' already bound to 'public'",
			apply: `put interfaces "zvm+" into zone "trusted" of firewalld: ZONE_CONFLICT: 'zvm+' already bound to 'public'`},
		{method: "getActiveZones", text: "ACCESS_DENIED", apply: `ask firewalld for the zone of interfaces "zvm+": ACCESS_DENIED`,
			diff: `ask firewalld for the zone of interfaces "zvm+": ACCESS_DENIED`, state: `ask firewalld for the zone of interfaces "zvm+": ACCESS_DENIED`},
		{method: "getZoneSettings2", text: "INVALID_ZONE: trusted", apply: `ask firewalld for the zone of interfaces "zvm+": INVALID_ZONE: trusted`,
			diff: `ask firewalld for the zone of interfaces "zvm+": INVALID_ZONE: trusted`, state: `ask firewalld for the zone of interfaces "zvm+": INVALID_ZONE: trusted`},
		{method: "get", text: "UNKNOWN_ERROR", state: "ask firewalld for its state: UNKNOWN_ERROR"},
	}
	for _, test := range tests {
		t.Run(test.method+" "+test.text, func(t *testing.T) {
			t.Parallel()
			bus := startBus(t)
			f := bus.prepare(nil)
			f.refuse[test.method] = test.text
			f.own()
			z := bus.open()
			if got := message(z.Apply(t.Context())); got != test.apply {
				t.Errorf("Apply: %q, want %q", got, test.apply)
			}
			_, err := z.Diff(t.Context())
			if got := message(err); got != test.diff {
				t.Errorf("Diff: %q, want %q", got, test.diff)
			}
			_, err = z.State(t.Context())
			if got := message(err); got != test.state {
				t.Errorf("State: %q, want %q", got, test.state)
			}
		})
	}
}

// TestState: what people are told.
func TestState(t *testing.T) {
	t.Parallel()
	bus := startBus(t)
	f := bus.prepare(map[string][]string{"trusted": {"zvm+"}})
	f.permanent = "trusted"
	f.own()
	z := bus.open()
	got, err := z.State(t.Context())
	must(t, err)
	if got.Version != "1.3.3" || got.Backend != "nftables" || !got.Running || !got.Bound || !got.Permanent || len(got.Conflicts) != 0 {
		t.Errorf("%+v", got)
	}
	f.mu.Lock()
	f.targets["trusted"] = "none"
	f.mu.Unlock()
	if _, err := z.State(t.Context()); !strings.Contains(message(err), `settings of zone "trusted" have no target`) {
		t.Errorf("without a target: %v", err)
	}
}

// TestMend: the commands for each conflict.
func TestMend(t *testing.T) {
	t.Parallel()
	for conflict, want := range map[Conflict]string{
		{"zvm3", "work", "default"}:       "firewall-cmd --zone=work --remove-interface=zvm3\nfirewall-cmd --permanent --zone=work --remove-interface=zvm3",
		{"zvm+", "trusted", "%%REJECT%%"}: "firewall-cmd --permanent --zone=trusted --set-target=ACCEPT\nfirewall-cmd --reload",
	} {
		if got := conflict.Mend(); got != want {
			t.Errorf("of %+v: %q, want %q", conflict, got, want)
		}
	}
}

// TestAtTheSameTime: the methods may be called from everywhere, and the binding is
// made or taken away once each time.
func TestAtTheSameTime(t *testing.T) {
	t.Parallel()
	bus := startBus(t)
	f := bus.firewalld(nil)
	z := bus.open()
	z.bus.patience = arriveWithin
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 10 {
				_, err := z.Diff(t.Context())
				_, err2 := z.State(t.Context())
				change := z.Apply
				if i%4 == 0 {
					change = z.Remove
				}
				if err := errors.Join(err, err2, change(t.Context())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	last := "removeInterface trusted zvm+"
	for did := range strings.SplitSeq(f.did(), ", ") {
		if did == last {
			t.Fatalf("%q twice in a row", did)
		}
		last = did
	}
}
