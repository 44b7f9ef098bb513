package powercut_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"zwrm/internal/client"
	"zwrm/internal/wire"
	"zwrm/test/powercut/disk"
)

var (
	seed = flag.Uint64("seed", 0, "of all that is random; 0: another one each time")
	cuts = flag.Int("cuts", 15, "power cuts of each of the two machines")
)

const (
	readyWithin = 2 * time.Minute
	loadWithin  = 20 * time.Second // a cut that has not come until then comes now
	imageName   = "small"
)

// TestPowerCut: zwrmd works for several clients on a machine whose power goes at a
// random moment, again and again, on one and the same disk. After every cut the
// database is whole, and has every deploy, scale, destroy, attach, detach and image
// that was acknowledged, on the same slots, and none of them half; and zwrmd comes
// up on it by itself, starts the VMs, and finds nothing to mend. Beside the cuts that
// happen, the log of the disk tells of many more moments what a cut there leaves.
func TestPowerCut(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d; the machines' own speed is not repeated with it", *seed)
	k := newKit(t)
	for number := range uint64(2) {
		t.Run(fmt.Sprint("machine ", number), func(t *testing.T) {
			t.Parallel()
			r := &runner{kit: k, random: rand.New(rand.NewPCG(*seed, number)), content: k.newDisk(t)}
			for range workers {
				r.worlds = append(r.worlds, world{map[string]app{}, map[string]vm{}, map[string]bool{}})
			}
			for range *cuts {
				r.cut(t)
				if t.Failed() {
					return
				}
			}
			m := k.boot(t, r.content)
			r.audit(t, m)
			m.off()
			t.Logf("%d power cuts, %d more from the log; %d requests were acknowledged and %d broken off; %d cuts came before zwrmd was ready",
				*cuts, r.replayed, r.acked, r.broken, r.early)
			if r.acked < *cuts || !r.lied {
				t.Errorf("too little was tested: %d acknowledged requests, disk that lies was caught: %t", r.acked, r.lied)
			}
		})
	}
}

// runner cuts the power of one machine.
type runner struct {
	kit     kit
	random  *rand.Rand
	content []byte  // of the disk
	worlds  []world // what each client made

	replayed, acked, broken, early int
	lied                           bool // the checks caught a disk that lies
}

func clientName(i int) string { return fmt.Sprintf("w%d", i) }

// cut switches the machine on, has it work, takes its power, and checks what is left.
func (r *runner) cut(t *testing.T) {
	m := r.kit.boot(t, r.content)
	const ofStart, ofWork = 60, 400 // entries of the log
	if r.random.IntN(4) == 0 {
		m.disk.Cut(disk.Moment(1 + r.random.IntN(ofStart)))
	}
	r.audit(t, m)
	histories := make([]history, workers)
	for i := range histories {
		histories[i] = history{client: clientName(i), start: r.worlds[i]}
	}
	select {
	case <-m.disk.Dead():
		r.early++
	default:
		m.disk.Cut(m.disk.Now() + disk.Moment(1+r.random.IntN(ofWork)))
		r.work(t, m, histories)
	}
	m.off()
	r.check(t, m, histories)
	m.disk.Forget() // the machine's clean-up holds on to it until the end of the test
}

// audit waits until zwrmd has started all VMs again, has ended what was broken off, and
// has nothing else. It is over when the power goes.
func (r *runner) audit(t *testing.T, m *machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(m.ctx, readyWithin)
	defer cancel()
	err := r.settle(ctx, m.clients[0])
	if err == nil {
		var check wire.Check
		if check, err = m.clients[0].CheckNetwork(ctx); err == nil && !check.InSync {
			t.Errorf("after the power came back zwrmd differs from the kernel: %+v", check.Differences)
		}
	}
	if err == nil {
		err = m.addImage(ctx)
	}
	if m.ctx.Err() != nil {
		if err := m.alive(); err != nil {
			t.Error(err)
		}
		return
	}
	if err != nil {
		t.Fatalf("after the power came back: %v", err)
	}
}

// settle waits until all VMs run, and those are the VMs that there should be.
func (r *runner) settle(ctx context.Context, c *client.Client) error {
	const pollEvery = 50 * time.Millisecond
	for {
		vms, err := settled(ctx, c)
		if err != nil {
			return err
		}
		found := world{vms: map[string]vm{}}
		for _, v := range vms {
			found.vms[v.Name] = vm{app: v.App, attachment: v.Attachment, slot: int(v.Slot)}
		}
		var all string
		for i, want := range r.worlds {
			all += world{vms: want.vms}.differences(found.of(clientName(i)))
		}
		if all == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("zwrmd still says: %s", all)
		case <-time.After(pollEvery):
		}
	}
}

// settled returns the VMs once all of them run.
func settled(ctx context.Context, c *client.Client) ([]wire.VM, error) {
	const pollEvery = 20 * time.Millisecond
	for {
		vms, err := c.VMs(ctx, "")
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(vms, func(vm wire.VM) bool { return vm.State != "running" }) {
			return vms, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("not all VMs run: %+v", vms)
		case <-time.After(pollEvery):
		}
	}
}

// addImage adds the image that all apps use, at the first start.
func (m *machine) addImage(ctx context.Context) error {
	images, err := m.clients[0].Images(ctx)
	if err != nil || slices.ContainsFunc(images, func(i wire.Image) bool { return i.Name == imageName }) {
		return err
	}
	_, err = m.clients[0].AddImage(ctx, wire.AddImage{Name: imageName, Kernel: "/kernel"})
	return err
}

// work has all clients work until the power goes.
func (r *runner) work(t *testing.T, m *machine, histories []history) {
	var work sync.WaitGroup
	for i := range histories {
		random := rand.New(rand.NewPCG(r.random.Uint64(), 0))
		work.Go(func() {
			if err := histories[i].work(m, m.clients[i], random); err != nil {
				t.Error(err)
				m.disk.Cut(0)
			}
		})
	}
	select {
	case <-m.disk.Dead():
	case <-time.After(loadWithin):
		m.disk.Cut(0)
	case <-m.ended:
		if err := m.alive(); err != nil {
			t.Error(err)
		}
	}
	work.Wait()
}

// work does one thing after the other until the power goes, which is no error.
func (h *history) work(m *machine, c *client.Client, random *rand.Rand) error {
	now := h.start
	for m.ctx.Err() == nil {
		o := now.choose(h.client, random)
		s := step{operation: o, begin: m.disk.Now(), before: now, after: now.after(o)}
		err := o.run(m.ctx, c)
		if err != nil && m.ctx.Err() == nil {
			return fmt.Errorf("%s: %w", o, err)
		}
		if err == nil {
			s.ack, s.acked, s.at = m.disk.Now(), true, time.Now()
			now = s.after
			if err := now.learn(m.ctx, c); err != nil && m.ctx.Err() == nil {
				return err
			}
		}
		h.steps = append(h.steps, s)
	}
	return nil
}

// run asks zwrmd for the operation.
func (o operation) run(ctx context.Context, c *client.Client) error {
	var err error
	switch o.kind {
	case deploy:
		_, err = c.Deploy(ctx, wire.Deploy{Name: o.name, Image: imageName, Scale: &o.scale, MemoryMiB: o.memory}, 0)
	case scale:
		_, err = c.Scale(ctx, o.name, o.scale, 0)
	case destroy:
		err = c.Destroy(ctx, o.name)
	case attach:
		_, err = c.Attach(ctx, wire.Attach{Name: o.name, App: o.app})
	case detach:
		err = c.Detach(ctx, o.name)
	case addImage:
		_, err = c.AddImage(ctx, wire.AddImage{Name: o.name, Kernel: "/kernel"})
	case removeImage:
		err = c.RemoveImage(ctx, o.name)
	default:
		err = errors.New("unknown operation")
	}
	return err
}

// learn fills in the slots that zwrmd gave.
func (w world) learn(ctx context.Context, c *client.Client) error {
	vms, err := c.VMs(ctx, "")
	if err != nil {
		return err
	}
	for _, found := range vms {
		if vm, ok := w.vms[found.Name]; ok && vm.slot == unknown {
			vm.slot = int(found.Slot)
			w.vms[found.Name] = vm
		}
	}
	return nil
}

// check reads the disk as the cut left it, which the machine goes on with, and as
// cuts at other moments would have.
func (r *runner) check(t *testing.T, m *machine, histories []history) {
	t.Helper()
	var acks []disk.Moment
	for _, h := range histories {
		for _, s := range h.steps {
			if s.acked {
				acks = append(acks, s.ack)
				r.acked++
			} else {
				r.broken++
			}
		}
	}
	end := m.disk.Now()
	r.content = m.disk.After(end, disk.LoseSome, r.random)
	found := r.examine(t, "at the end", r.content, histories, end)
	for i := range r.worlds {
		r.worlds[i] = found.of(clientName(i))
	}
	const others = 4
	for range others {
		if len(acks) > 0 { // the hardest moment: all that was promised must be safe already
			moment := acks[r.random.IntN(len(acks))]
			r.examine(t, fmt.Sprintf("at %d of %d, after an answer", moment, end), m.disk.After(moment, disk.LoseAll, r.random), histories, moment)
		}
		moment := disk.Moment(r.random.IntN(int(end) + 1))
		r.examine(t, fmt.Sprintf("at %d of %d", moment, end), m.disk.After(moment, disk.LoseSome, r.random), histories, moment)
		r.replayed += 2
	}
	r.lied = r.lied || r.catches(t, m, histories, end)
}

// examine compares a disk with what the clients know, and returns what is on it.
func (r *runner) examine(t *testing.T, when string, content []byte, histories []history, moment disk.Moment) contents {
	t.Helper()
	found, err := read(r.kit.dir, content)
	if err != nil {
		t.Errorf("power cut %s: %v", when, err)
		return found
	}
	for _, h := range histories {
		if diff := h.judge(found, moment); diff != "" {
			t.Errorf("power cut %s: %s", when, diff)
		}
	}
	return found
}

// judge returns what of a disk is not as the client may expect after a cut.
func (h history) judge(found contents, moment disk.Moment) string {
	wanted, doing := h.at(moment)
	var all string
	for _, want := range wanted {
		diff := want.differences(found.of(h.client))
		if diff == "" {
			return h.restless(found, moment)
		}
		all += diff + "\n"
	}
	return fmt.Sprintf("client %s was at %q, before which there was %+v; but\n%s", h.client, doing, wanted[0], all)
}

// restless returns the slots that were given back just now and do not rest.
func (h history) restless(found contents, moment disk.Moment) string {
	const quarantine = 25 * time.Second // 30 s, and some for clocks that differ
	for _, s := range h.steps {
		if !s.acked || s.ack > moment || time.Since(s.at) > quarantine {
			continue
		}
		for name, vm := range s.before.vms {
			if _, stays := s.after.vms[name]; !stays && vm.slot != unknown && !found.resting[vm.slot] {
				return fmt.Sprintf("slot %d of %q was given back by %q and does not rest", vm.slot, name, s)
			}
		}
	}
	return ""
}

// catches reports whether the checks find that a disk which lies has lost something.
// Only what was acknowledged and undone again can be lost unseen.
func (r *runner) catches(t *testing.T, m *machine, histories []history, end disk.Moment) bool {
	t.Helper()
	found, err := read(r.kit.dir, m.disk.After(end, disk.LoseFlush, r.random))
	if err != nil {
		t.Fatalf("the disk as it was before the start: %v", err)
	}
	return slices.ContainsFunc(histories, func(h history) bool { return h.judge(found, end) != "" })
}
