package powercut_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"zwrm/internal/client"
	"zwrm/internal/wire"
	"zwrm/test/powercut/disk"
)

// site is a machine with an app and an attachment, on whose disk something is wrong.
type site struct {
	*machine
	*client.Client
	t *testing.T
}

func newSite(t *testing.T, k kit) site {
	t.Helper()
	m := k.boot(t, k.newDisk(t))
	s := site{m, m.clients[0], t}
	must(t, m.addImage(s.soon()))
	s.succeed("deploy web", s.deploy("web", 2))
	s.succeed("attach mine", s.attach("mine"))
	return s
}

// soon ends when whatever is asked should long have an answer.
func (s site) soon() context.Context {
	ctx, cancel := context.WithTimeout(s.ctx, readyWithin)
	s.t.Cleanup(cancel)
	return ctx
}

// tell has the machine do something to its disk or a process.
func (s site) tell(command string) {
	s.t.Helper()
	conn, err := net.Dial("unix", s.control)
	must(s.t, err)
	defer conn.Close()
	must(s.t, conn.SetDeadline(time.Now().Add(readyWithin)))
	_, err = fmt.Fprintln(conn, command)
	must(s.t, err)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || answer != "ok\n" {
		s.t.Fatalf("%s: %q, %v", command, answer, err)
	}
}

func (s site) deploy(app string, scale int) error {
	_, err := s.Deploy(s.soon(), wire.Deploy{Name: app, Image: imageName, Scale: &scale}, 0)
	return err
}

func (s site) scale(app string, n int) error {
	_, err := s.Scale(s.soon(), app, n, 0)
	return err
}

func (s site) attach(name string) error {
	_, err := s.Attach(s.soon(), wire.Attach{Name: name, App: "by-hand"})
	return err
}

func (s site) image(name string) error {
	_, err := s.AddImage(s.soon(), wire.AddImage{Name: name, Kernel: "/bin/zwrmd"})
	return err
}

func (s site) succeed(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Errorf("%s: %v", what, err)
	}
}

// refused reports an error unless a request was refused because of the disk, in words
// that say so.
func (s site) refused(what string, err error, says string) {
	s.t.Helper()
	var problem *client.Problem
	if !errors.As(err, &problem) {
		s.t.Errorf("%s: error %v, want a refusal", what, err)
		return
	}
	const insufficientStorage = 507
	if problem.Code != "storage" || problem.Status != insufficientStorage || !strings.Contains(problem.Detail, says) || !strings.Contains(problem.Hint, "try again") {
		s.t.Errorf("%s: refused with %+v, want code storage and a detail with %q", what, problem.Problem, says)
	}
}

// state returns everything that the API tells of apps, VMs and images, once all VMs
// run. The kernel must agree with it.
func (s site) state() string {
	s.t.Helper()
	vms, err := settled(s.soon(), s.Client)
	must(s.t, err)
	apps, err := s.Apps(s.soon())
	must(s.t, err)
	images, err := s.Images(s.soon())
	must(s.t, err)
	check, err := s.CheckNetwork(s.soon())
	must(s.t, err)
	if !check.InSync {
		s.t.Errorf("kernel and zwrmd differ: %+v", check.Differences)
	}
	return fmt.Sprintf("apps %+v\nVMs %+v\nimages %+v\n", apps, vms, images)
}

// names returns the VMs that there are.
func (s site) names() []string {
	s.t.Helper()
	vms, err := s.VMs(s.soon(), "")
	must(s.t, err)
	var names []string
	for _, vm := range vms {
		names = append(names, vm.Name)
	}
	slices.Sort(names)
	return names
}

func (s site) unchanged(when, before string) {
	s.t.Helper()
	if now := s.state(); now != before {
		s.t.Errorf("%s there is\n%sand was\n%s", when, now, before)
	}
}

// TestDiskFull: something else fills the disk. What needs room is refused, for this
// reason and without a trace; what needs none goes on, removals above all; and when
// there is room again so does the rest, without a restart. A power cut meanwhile loses
// nothing.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	s := newSite(t, k)
	s.tell("fill")
	before := s.state()
	s.refused("image add", s.image("other"), "no space left on device")
	s.refused("deploy", s.deploy("other", 1), "no space left on device")
	s.refused("scale up", s.scale("web", 3), "no space left on device")
	s.unchanged("after what was refused", before)

	for i := range 100 { // by far more than the blocks that the write-ahead log has without its reserve
		s.succeed("attach", s.attach(fmt.Sprintf("more-%d", i)))
		s.succeed("detach", s.Detach(s.soon(), fmt.Sprintf("more-%d", i)))
	}
	s.succeed("scale down", s.scale("web", 1))
	s.succeed("detach", s.Detach(s.soon(), "mine"))
	s.succeed("attach", s.attach("late"))
	if got, want := s.names(), []string{"late", "web-0"}; !slices.Equal(got, want) {
		t.Errorf("on a full disk there are %q, want %q", got, want)
	}
	found, err := read(k.dir, s.disk.After(s.disk.Now(), disk.LoseAll, nil))
	must(t, err)
	if _, late := found.vms["late"]; len(found.vms) != 2 || !late {
		t.Errorf("a power cut on a full disk leaves %+v", found.vms)
	}

	s.tell("free")
	s.succeed("deploy after there is room", s.deploy("other", 1))
	s.succeed("image add after there is room", s.image("other"))
	s.succeed("destroy", s.Destroy(s.soon(), "web"))
	if got, want := s.names(), []string{"late", "other-0"}; !slices.Equal(got, want) {
		t.Errorf("after there is room there are %q, want %q", got, want)
	}
	s.state()
}

// TestDiskReadOnly: the kernel makes the disk read-only, as it does when a disk fails.
// Every change is refused for this reason and leaves nothing behind, VMs go on, and
// questions are answered. When the disk can be written again all goes on without a
// restart; a VM that died meanwhile is started again.
func TestDiskReadOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t, newKit(t))
	before := s.state()
	s.tell("read-only")
	for what, err := range map[string]error{
		"deploy":     s.deploy("other", 1),
		"update":     s.deploy("web", 1),
		"scale up":   s.scale("web", 3),
		"scale down": s.scale("web", 1),
		"destroy":    s.Destroy(s.soon(), "web"),
		"attach":     s.attach("more"),
		"detach":     s.Detach(s.soon(), "mine"),
		"image add":  s.image("other"),
	} {
		s.refused(what, err, "read-only")
	}
	s.unchanged("after what was refused", before)
	var console strings.Builder
	must(t, s.Console(s.soon(), "web-0", &console, false))
	if !strings.Contains(console.String(), "guest runs") {
		t.Errorf("console of a VM: %q", console.String())
	}

	vms, err := s.VMs(s.soon(), "web")
	must(t, err)
	s.tell(fmt.Sprint("kill ", vms[0].PID))
	s.tell("read-write")
	again := s.awaitOther(vms[0])
	if again.Slot != vms[0].Slot {
		t.Errorf("VM %q came back on slot %d, and had %d", again.Name, again.Slot, vms[0].Slot)
	}
	s.succeed("scale up", s.scale("web", 3))
	s.succeed("detach", s.Detach(s.soon(), "mine"))
	s.succeed("destroy", s.Destroy(s.soon(), "web"))
	if got := s.names(); len(got) > 0 {
		t.Errorf("after all was removed there are %q", got)
	}
	s.state()
}

// awaitOther waits until the VM runs in another process, and returns it.
func (s site) awaitOther(old wire.VM) wire.VM {
	s.t.Helper()
	const pollEvery = 50 * time.Millisecond
	for ctx := s.soon(); ; {
		vms, err := s.VMs(ctx, old.App)
		must(s.t, err)
		for _, vm := range vms {
			if vm.Name == old.Name && vm.State == "running" && vm.PID != old.PID {
				return vm
			}
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("VM %q was not started again: %+v", old.Name, vms)
		case <-time.After(pollEvery):
		}
	}
}
