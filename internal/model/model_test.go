package model_test

import (
	"strings"
	"testing"

	"zwrm/internal/model"
)

func TestParseName(t *testing.T) {
	for _, good := range []string{"a", "web", "web-0", "0", strings.Repeat("a", 63)} {
		if _, err := model.ParseName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "A", "a.b", "a_b", "ä", "a b", "../a", strings.Repeat("a", 64)} {
		if name, err := model.ParseName(bad); err == nil {
			t.Errorf("%q was taken for %q", bad, name)
		}
	}
}

func TestGroup(t *testing.T) {
	if got := model.AppID(0x123456).Group(); got != 0x5a123456 || got.App() != 0x123456 || !got.Ours() {
		t.Errorf("group %s of app %d, ours %t", got, got.App(), got.Ours())
	}
	for _, foreign := range []model.Group{0, 1, 0x5b000001} {
		if foreign.Ours() || foreign.App() != 0 {
			t.Errorf("group %s is taken for ours", foreign)
		}
	}
	if !model.GroupUnassigned.Ours() || model.GroupUnassigned.App() != 0 {
		t.Error("the unassigned group is ours, and of no app")
	}
}

func TestParseService(t *testing.T) {
	for _, good := range []string{"udp/53", "tcp/1", "tcp/65535"} {
		if s, err := model.ParseService(good); err != nil || s.String() != good {
			t.Errorf("%q: %v, %v", good, s, err)
		}
	}
	for _, bad := range []string{"", "53", "udp/", "udp/0", "udp/65536", "icmp/1", "UDP/53", "tcp/80/90"} {
		if s, err := model.ParseService(bad); err == nil {
			t.Errorf("%q was taken for %q", bad, s)
		}
	}
}
