package hosttest

import (
	"slices"

	"zwrm/internal/host"
	"zwrm/internal/model"
)

// alias is that of a spare TAP.
const alias = "spare"

func (s *suite) spare() {
	ctx, tap := s.t.Context(), s.tap(3)
	tap.Alias = alias
	s.must(s.CreateTAP(ctx, tap))
	spare := made(tap, model.GroupUnassigned)
	spare.Alias = alias
	s.is(spare)
	tap.Alias = ""
	s.must(s.CreateTAP(ctx, tap))
	s.is(spare)
	s.must(s.SetGroup(ctx, model.AppID(7).Group(), tap.Name))
	s.is(made(tap, model.AppID(7).Group()))
}

func (s *suite) fresh() {
	ctx, tap := s.t.Context(), s.tap(3)
	s.must(s.CreateTAP(ctx, tap))
	s.must(s.SetGroup(ctx, model.AppID(7).Group(), tap.Name))
	before := s.link(tap.Name).Index
	tap.Fresh = true
	s.must(s.CreateTAP(ctx, tap))
	s.is(made(tap, model.GroupUnassigned))
	if s.link(tap.Name).Index == before {
		s.t.Error("it is the one of before")
	}
	s.must(s.others.AddLink(host.Link{Name: "zvm4", Kind: host.KindTAP, Group: model.GroupCondemned}))
	s.must(s.CreateTAP(ctx, s.tap(4)))
	s.is(made(s.tap(4), model.GroupUnassigned))
}

func (s *suite) recycle() {
	ctx := s.t.Context()
	open, used, closed := s.tap(1), s.tap(2), s.tap(3)
	for _, tap := range []host.TAP{open, used, closed} {
		s.must(s.CreateTAP(ctx, tap))
	}
	s.must(s.SetGroup(ctx, model.AppID(7).Group(), open.Name))
	vmm, err := s.others.OpenTAP(used.Name)
	s.must(err)
	names, err := s.Recycle(ctx, alias, open.Name, used.Name, closed.Name, "zvm99")
	s.must(err)
	if !slices.Equal(names, []string{closed.Name}) {
		s.t.Errorf("recycled %v", names)
	}
	s.is(made(open, model.AppID(7).Group()))
	s.is(made(used, model.GroupUnassigned))
	spare := made(closed, model.GroupUnassigned)
	spare.Alias = alias
	s.is(spare)
	if s.link(closed.Name).Opened {
		s.t.Error("it stays open")
	}
	s.must(vmm.Close())
	if names, err = s.Recycle(ctx, alias, used.Name); err != nil || len(names) != 1 {
		s.t.Errorf("recycled %v, %v once nobody has it open", names, err)
	}
}
