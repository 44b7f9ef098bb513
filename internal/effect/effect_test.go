package effect_test

import (
	"errors"
	"slices"
	"testing"

	"zwrm/internal/effect"
)

// story notes what it is told.
type story struct {
	lines  []string
	refuse error
}

func (s *story) Before(op effect.Op) error {
	s.lines = append(s.lines, "before "+string(op))
	return s.refuse
}

func (s *story) After(op effect.Op) { s.lines = append(s.lines, "after "+string(op)) }

func TestDo(t *testing.T) {
	failure, refusal := errors.New("failure"), errors.New("refusal")
	tests := []struct {
		name           string
		refuse, result error
		want           error
		lines          []string
	}{
		{"done", nil, nil, nil, []string{"before x", "done", "after x"}},
		{"failed", nil, failure, failure, []string{"before x", "done", "after x"}},
		{"refused", refusal, failure, refusal, []string{"before x"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &story{refuse: test.refuse}
			err := effect.Do(s, "x", func() error {
				s.lines = append(s.lines, "done")
				return test.result
			})
			if !errors.Is(err, test.want) || !slices.Equal(s.lines, test.lines) {
				t.Errorf("error %v after %q\nwant  %v after %q", err, s.lines, test.want, test.lines)
			}
		})
	}
}

func TestDoWithoutHook(t *testing.T) {
	failure := errors.New("failure")
	if err := effect.Do(nil, "x", func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("error %v, want that of the side effect", err)
	}
	done := 0
	if n := testing.AllocsPerRun(100, func() { _ = effect.Do(nil, "x", func() error { done++; return nil }) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
