package model_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
	"zwrm/test/zwrmtest"
)

// The names that requests use: few, so that they meet.
var (
	appNames        = []model.Name{"blog", "db", "shop"}
	attachmentNames = []model.Name{"ext", "lab", "mine"}
	memories        = []int{64, 128}
)

// history is what happened to a world, as far as one must know it to judge what
// there is now.
type history struct {
	*world
	done *tally

	notes   []string
	want    apps
	down    map[model.Name]time.Time // VMs that may be down, and until when
	owners  map[ipam.Slot]model.VMID // at the last look
	looked  time.Time                // when that was
	resting map[ipam.Slot]time.Time  // freed slots, and when they may be used again
	foreign string                   // what others have on the host
}

// live does random things and looks after each.
func live(t *rapid.T, w *world, done *tally) {
	h := &history{world: w, done: done, want: apps{}, down: map[model.Name]time.Time{},
		owners: map[ipam.Slot]model.VMID{}, looked: time.Now(), resting: map[ipam.Slot]time.Time{}}
	var err error
	h.foreign, err = w.site.foreign()
	must(t, err)
	actions := map[string]func(*rapid.T){}
	defer h.tell()
	for name, action := range map[string]func(*rapid.T){
		"deploy": h.deploy, "scale": h.scale, "destroy": h.destroy, "attach": h.attach, "detach": h.detach,
		"restart": h.restart, "VMM dies": h.dies, "time passes": h.passes, "drift": h.drift, "repair": h.mend,
		"end": h.finish, "traffic": h.traffic, "two at once": h.both,
	} {
		actions[name] = func(t *rapid.T) {
			h.note("%s", name)
			action(t)
			done.count(name)
		}
	}
	actions[""] = h.look
	t.Repeat(actions)
}

// arm draws the fate of what comes next.
func (h *history) arm(t *rapid.T, fates ...fate) fate {
	h.seen = nil
	return h.seam.arm(t, fates...)
}

// note keeps a line about what happens.
func (h *history) note(format string, args ...any) {
	h.notes = append(h.notes, fmt.Sprintf(format, args...))
}

// tell prints what happened before the first failure, as it was: rapid prints it again
// after it made it shorter, which may fail, since goroutines take turns as they like.
func (h *history) tell() {
	if failure := recover(); failure != nil {
		h.done.once.Do(func() { fmt.Fprintf(os.Stderr, "%s\n%v\n", strings.Join(h.notes, "\n"), failure) })
		panic(failure)
	}
}

// request is something that somebody asks of zwrmd.
type request struct {
	about  model.Name // the app
	want   apps       // when it is done
	code   model.Code // of the answer; empty: it is done
	keeps  bool       // takes nothing away, so that it can be undone
	remark string
	do     func(ctx context.Context) error
}

// ask makes a request that meets its fate.
func (h *history) ask(t *rapid.T, r request) {
	t.Helper()
	others, before, whole := h.pids(r.about), h.text(t), len(h.down) == 0
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h.seam.left = cancel
	fate := h.arm(t, well, well, well, well, fault, outage, crash, leave)
	err := r.do(ctx)
	calm()
	op := h.seam.disarm()
	h.done.count("fate: " + string(fate))
	if op != "" {
		h.done.count("struck: " + string(fate))
	}
	h.note("\t%s: fate %s, struck %q, answer %v", r.remark, fate, op, err)
	var problem *model.Problem
	refused := errors.As(err, &problem) && problem.Code == r.code
	switch {
	case fate == crash:
		h.diesAndBegins(t)
		if err == nil && r.code == "" {
			h.want = r.want // acknowledged is there for good
		} else {
			h.either(t, r.want)
		}
	case r.code != "" && (refused || op != "") && !whole:
		// What is cleaned up behind the answer takes its time, a second more when that
		// fails. VMs that are down may be started meanwhile.
		h.settle(t)
		h.either(t, h.want)
	case r.code != "" && op != "" && fate == outage: // what was made beside the row cannot go at once
		h.settle(t)
		h.same(t, before)
	case r.code != "" && (refused || op != ""):
		h.same(t, before)
	case r.code != "":
		t.Fatalf("answer %v, want one with code %q", err, r.code)
	case err == nil:
		h.want = r.want
	case op == "":
		t.Fatalf("nothing failed, and yet: %v", err)
	case r.keeps && fate != outage && whole:
		h.same(t, before)
	default:
		h.settle(t)
		h.either(t, r.want)
	}
	if err == nil && op != "" && (fate == fault || fate == outage) {
		h.settle(t) // what failed on the way may have been put off
	}
	if now := h.pids(r.about); fate != outage && whole && !maps.Equal(others, now) {
		t.Fatalf("VMMs of other apps were %v and are %v", others, now)
	}
}

// same fails when the host is not as it was.
func (h *history) same(t *rapid.T, before string) {
	t.Helper()
	if now := h.text(t); now != before {
		t.Fatalf("this changed and should not have:\n%s", zwrmtest.Changes(before, now))
	}
}

// either takes the model to what there is, which is what was or what was asked for.
func (h *history) either(t *rapid.T, want apps) {
	t.Helper()
	switch now := rows(h.state(t)); now {
	case want.String():
		h.want = want
	case h.want.String():
	default:
		t.Fatalf("half done; there was\n%s\nasked for was\n%s\nand there is\n%s", h.want, want, now)
	}
}

// diesAndBegins ends a zwrmd as a crash does, and starts another.
func (h *history) diesAndBegins(t *rapid.T) {
	t.Helper()
	h.dieNow()
	h.begins(t)
}

// dieNow ends a zwrmd as a crash does. Its goroutines end, too, and nothing that they
// still do has an effect.
func (h *history) dieNow() {
	h.seam.kill()
	_ = errors.Join(h.quit(), h.close())
	h.seam.disarm()
}

// begins starts a zwrmd, which may die on its way.
func (h *history) begins(t *rapid.T) {
	t.Helper()
	for {
		fate := h.arm(t, well, well, crash, fault)
		err := h.begin()
		op := h.seam.disarm()
		h.note("\tstart, fate %s, struck %q, %v", fate, op, err)
		switch {
		case err == nil && op == "":
			h.down = map[model.Name]time.Time{} // it starts them at once
			return
		case err == nil && fate == crash:
			h.dieNow()
		case err == nil:
			h.settle(t)
			return
		case op == "":
			t.Fatalf("start: %v", err)
		}
	}
}

// settle lets zwrmd finish what failed before.
func (h *history) settle(t *rapid.T) {
	t.Helper()
	time.Sleep(tick + patience)
	calm()
	_, err := h.repair(context.Background())
	must(t, err)
	time.Sleep(tick + patience)
	calm()
	h.down = map[model.Name]time.Time{}
}

// room returns how many slots are free.
func (h *history) room(t *rapid.T) int {
	t.Helper()
	_, free, _ := h.Slots()
	return free
}

func (h *history) deploy(t *rapid.T) {
	name := rapid.SampledFrom(appNames).Draw(t, "app")
	scale := rapid.SampledFrom([]int{0, 1, 2, 3, 4, 6, 9}).Draw(t, "scale")
	memory := rapid.SampledFrom(memories).Draw(t, "memory")
	was := h.want[name]
	r := request{about: name, want: h.want.deploy(name, scale, memory), remark: "deploy " + string(name),
		keeps: scale >= was.scale, do: func(ctx context.Context) error {
			_, err := h.Deploy(ctx, name, model.Spec{Image: "small", Scale: scale, MemoryMiB: memory})
			return err
		}}
	if scale-was.scale > h.room(t) {
		r.code = model.Exhausted
	}
	h.ask(t, r)
}

func (h *history) scale(t *rapid.T) {
	name := rapid.SampledFrom(appNames).Draw(t, "app")
	scale := rapid.IntRange(0, 5).Draw(t, "scale")
	was, there := h.want[name]
	r := request{about: name, want: h.want, remark: "scale " + string(name), keeps: scale >= was.scale,
		do: func(ctx context.Context) error { _, err := h.Scale(ctx, name, scale); return err }}
	switch {
	case !there:
		r.code = model.NotFound
	case was.memory == 0 && scale > 0:
		r.code = model.Conflict
	case scale-was.scale > h.room(t):
		r.code = model.Exhausted
	default:
		r.want = h.want.scale(name, scale)
	}
	h.ask(t, r)
}

func (h *history) destroy(t *rapid.T) {
	name := rapid.SampledFrom(appNames).Draw(t, "app")
	r := request{about: name, want: h.want, remark: "destroy " + string(name),
		do: func(ctx context.Context) error { return h.Destroy(ctx, name) }}
	if _, there := h.want[name]; there {
		r.want = h.want.destroy(name)
	} else {
		r.code = model.NotFound
	}
	h.ask(t, r)
}

func (h *history) attach(t *rapid.T) {
	name := rapid.SampledFrom(attachmentNames).Draw(t, "attachment")
	to := rapid.SampledFrom(appNames).Draw(t, "app")
	r := request{about: to, want: h.want, remark: "attach " + string(name), keeps: true,
		do: func(ctx context.Context) error { _, err := h.Attach(ctx, name, to); return err }}
	switch {
	case h.room(t) == 0:
		r.code = model.Exhausted
	case h.want.home(name) != "":
		r.code = model.Conflict
	default:
		r.want = h.want.attach(name, to)
	}
	h.ask(t, r)
}

func (h *history) detach(t *rapid.T) {
	machines := append(slices.Clone(attachmentNames), h.want.machines()...)
	name := rapid.SampledFrom(machines).Draw(t, "attachment")
	r := request{about: h.want.home(name), want: h.want, remark: "detach " + string(name),
		do: func(ctx context.Context) error { return h.Detach(ctx, name) }}
	switch {
	case r.about != "":
		r.want = h.want.detach(name)
	case slices.Contains(attachmentNames, name):
		r.code = model.NotFound
	default:
		r.code = model.Conflict
	}
	h.ask(t, r)
}

// both has two people ask at the same time, for different apps. Neither waits for
// the other, and both get what they want.
func (h *history) both(t *rapid.T) {
	names := rapid.Permutation(appNames).Draw(t, "apps")
	need := 0
	var group errgroup.Group
	want := h.want
	var work []func() error
	for _, name := range names[:2] {
		scale := rapid.IntRange(0, 4).Draw(t, "scale")
		memory := rapid.SampledFrom(memories).Draw(t, "memory")
		if _, there := want[name]; there && scale == 0 {
			want = want.destroy(name)
			work = append(work, func() error { return h.Destroy(context.Background(), name) })
			continue
		}
		need += max(0, scale-want[name].scale)
		want = want.deploy(name, scale, memory)
		work = append(work, func() error {
			_, err := h.Deploy(context.Background(), name, model.Spec{Image: "small", Scale: scale, MemoryMiB: memory})
			return err
		})
	}
	if need > h.room(t) {
		impossible(t, "no room for both")
	}
	h.seen = nil
	for _, do := range work {
		group.Go(do)
	}
	must(t, group.Wait())
	calm()
	h.want = want
}
