package crash_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"zwrm/internal/client"
	"zwrm/internal/effect"
	"zwrm/internal/plan"
	"zwrm/internal/wire"
	"zwrm/test/crash/order"
	"zwrm/test/zwrmtest"
)

// story is something that zwrmd is asked to do, and the state that it is asked in.
type story struct {
	name string
	// before brings the site from where the last telling left it to where the story
	// begins: zwrmd runs, unless the story starts it.
	before func(s *site) error
	// ask is the request. It returns what zwrmd answered.
	ask func(s *site) error
	// starts says that the story is a start of zwrmd: ask is nil.
	starts bool
	// parallel says that side effects happen at the same time, so that what is outside
	// right after one may differ from what is there right before the next.
	parallel bool
	// behind is what has happened when the request is not undone any more, but done to
	// its end by housekeeping. Empty: the request is always undone.
	behind effect.Op
	// goesOn says that a failure is not undone: zwrmd, or the next such request, goes on
	// from where it left off.
	goesOn bool
	// shared says that zwrmd does the same by itself meanwhile.
	shared bool
	// sites is on how many sites the story is told, since it takes long; 0: one.
	sites int
	// pool is how many TAPs are made ahead.
	pool int
	// again says that whoever got an error has to ask once more.
	again bool
}

func stories() []story {
	return append(requests(), starts()...)
}

// requests are the stories in which zwrmd runs.
func requests() []story {
	scale := func(app string, n int) func(s *site) error {
		return func(s *site) error { return s.deploy(app, n, 128) }
	}
	return []story{
		{name: "deploy", before: gone("web"), ask: scale("web", 2), parallel: true, sites: 2},
		{name: "deploy anew", before: scale("web", 2), parallel: true, behind: "store.retire",
			ask: func(s *site) error { return s.deploy("web", 1, 160) }},
		{name: "scale up", before: scale("web", 1), parallel: true, ask: func(s *site) error {
			_, err := s.Scale(s.t.Context(), "web", 2, 0)
			return err
		}},
		{name: "scale down", before: scale("web", 2), behind: "store.retire", ask: func(s *site) error {
			_, err := s.Scale(s.t.Context(), "web", 1, 0)
			return err
		}},
		{name: "destroy", before: scale("web", 2), parallel: true, behind: "store.retire", ask: func(s *site) error {
			return s.Destroy(s.t.Context(), "web")
		}},
		{name: "attach first", before: gone("job"), parallel: true, ask: func(s *site) error { return s.attach("job-0", "job") }},
		{name: "attach", before: attached(1), parallel: true, ask: func(s *site) error { return s.attach("job-1", "job") }},
		{name: "attach from the stock", pool: 2, goesOn: true, shared: true, before: func(s *site) error { return errors.Join(attached(1)(s), s.eventually(s.stocked)) },
			ask: func(s *site) error { return s.attach("job-1", "job") }},
		{name: "detach", before: attached(2), behind: "store.remove", ask: func(s *site) error {
			return s.Detach(s.t.Context(), "job-1")
		}},
		{name: "detach last", before: attached(1), behind: "store.remove", ask: func(s *site) error {
			return s.Detach(s.t.Context(), "job-0")
		}},
		{name: "restart", before: scale("web", 1), goesOn: true, ask: func(s *site) error {
			return s.Restart(s.t.Context(), "web-0")
		}},
		{name: "repair", before: attached(2), goesOn: true, shared: true, ask: (*site).driftAndRepair},
		{name: "add image", before: noImage, ask: func(s *site) error { return s.addImage("other") }},
		{name: "remove image", before: func(s *site) error { return errors.Join(noImage(s), s.addImage("other")) }, behind: "image.retire", again: true,
			ask: func(s *site) error { return s.RemoveImage(s.t.Context(), "other") }},
		{name: "stop", before: scale("web", 2), goesOn: true, ask: (*site).stop},
	}
}

// starts are the stories in which zwrmd starts.
func starts() []story {
	return []story{
		{name: "start from nothing", starts: true, before: (*site).fromNothing},
		{name: "start", starts: true, parallel: true, sites: 2, goesOn: true, before: func(s *site) error {
			return errors.Join(s.runWith(s.plane), s.deploy("web", 2, 128), s.stop())
		}},
		{name: "start after a kill", starts: true, parallel: true, goesOn: true, before: func(s *site) error {
			return errors.Join(s.runWith(s.plane), s.deploy("web", 2, 128), s.killed())
		}},
		{name: "start after a boot", starts: true, sites: 4, parallel: true, goesOn: true, before: func(s *site) error {
			return errors.Join(s.runWith(s.plane), s.deploy("web", 2, 128), s.killed(), s.reboot())
		}},
		{name: "switch of dataplane", starts: true, parallel: true, goesOn: true, before: func(s *site) error {
			return errors.Join(s.runWith(s.other()), s.deploy("web", 2, 128), s.killed(), s.configure(s.plane))
		}},
	}
}

func gone(app string) func(s *site) error {
	return func(s *site) error {
		err := s.Destroy(s.t.Context(), app)
		var problem *client.Problem
		if errors.As(err, &problem) && problem.Code == "not_found" {
			err = nil
		}
		return err
	}
}

// attached has the app "job" have n attachments.
func attached(n int) func(s *site) error {
	return func(s *site) error {
		vms, err := s.VMs(s.t.Context(), "")
		have := map[string]bool{}
		for _, vm := range vms {
			have[vm.Name] = true
		}
		for i := range 2 {
			name := fmt.Sprintf("job-%d", i)
			switch {
			case err == nil && i < n && !have[name]:
				err = s.attach(name, "job")
			case err == nil && i >= n && have[name]:
				err = s.Detach(s.t.Context(), name)
			}
		}
		return err
	}
}

// stocked fails unless as many TAPs are made ahead as there are to be.
func (s *site) stocked() error {
	links, err := s.kernel.Links(s.t.Context())
	if err != nil {
		return err
	}
	spare := 0
	for _, link := range links {
		if link.Alias == plan.SpareAlias && link.Up {
			spare++
		}
	}
	if spare != s.pool {
		return fmt.Errorf("%d TAPs are made ahead", spare)
	}
	return nil
}

func noImage(s *site) error {
	images, err := s.Images(s.t.Context())
	for _, image := range images {
		if image.Name == "other" {
			err = errors.Join(err, s.RemoveImage(s.t.Context(), "other"))
		}
	}
	return err
}

func (s *site) attach(name, app string) error {
	_, err := s.Attach(s.t.Context(), wire.Attach{Name: name, App: app})
	return err
}

func (s *site) deploy(app string, n, memory int) error {
	_, err := s.Deploy(s.t.Context(), wire.Deploy{Name: app, Image: "small", Scale: &n, MemoryMiB: memory}, 0)
	return err
}

// driftAndRepair has somebody take the app's rule and a TAP away, and zwrmd mend it.
func (s *site) driftAndRepair() error {
	vms, err := s.VMs(s.t.Context(), "job")
	if err != nil {
		return err
	}
	s.Run(s.t, "ip", "link", "del", vms[0].TAP)
	s.Set(s.t, "net/ipv4/conf/"+vms[1].TAP+"/rp_filter", "0")
	_, err = s.RepairNetwork(s.t.Context())
	return err
}

// other returns the other dataplane.
func (s *site) other() string {
	if s.plane == "iptables" {
		return "nftables"
	}
	return "iptables"
}

func (s *site) configure(plane string) error {
	s.configured = plane
	s.daemon.Configure(s.t, s.settings(zwrmtest.Settings{"network.firewall": `"` + plane + `"`}))
	return nil
}

// runWith has zwrmd run with a dataplane.
func (s *site) runWith(plane string) error {
	if s.runs() && s.configured == plane {
		return nil
	}
	s.kill()
	_ = s.configure(plane)
	s.start(order.Order{})
	return s.eventually(s.converged)
}

func (s *site) killed() error {
	s.kill()
	return nil
}

// fromNothing takes away all that a zwrmd has left.
func (s *site) fromNothing() error {
	if s.runs() {
		for _, app := range []string{"web", "job", "prey", "spy"} {
			if err := gone(app)(s); err != nil {
				return err
			}
		}
		if err := s.stop(); err != nil {
			return err
		}
	}
	s.Set(s.t, "net/ipv4/ip_forward", "0")
	return errors.Join(os.RemoveAll(s.folder("")), os.RemoveAll(filepath.Join(filepath.Dir(s.daemon.Config), "images")))
}

// reboot leaves only what is on the disk.
func (s *site) reboot() error {
	for pid := range s.vmms() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	err := s.eventually(func() error {
		if left := s.vmms(); len(left) > 0 {
			return fmt.Errorf("VMMs %v do not end", left)
		}
		return nil
	})
	links, failed := s.kernel.Links(s.t.Context())
	for _, link := range links {
		if link.Name != "lo" && link.Name != zwrmtest.Uplink {
			s.Run(s.t, "ip", "link", "del", link.Name)
		}
	}
	s.Set(s.t, "net/ipv4/ip_forward", "0")
	s.Run(s.t, "nft", "flush", "ruleset")
	return errors.Join(err, failed)
}
