package disk

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestLoss: what is flushed is there after a power cut, what is not may be.
func TestLoss(t *testing.T) {
	block := func(b byte) []byte { return bytes.Repeat([]byte{b}, 4*sector) }
	d := New(make([]byte, 8*sector))
	d.note(entry{0, block('a')})
	d.note(entry{}) // flush
	d.note(entry{2 * sector, block('b')})
	if got := d.Now(); got != 3 {
		t.Fatalf("moment %d, want 3", got)
	}
	text := func(content []byte) string {
		var out []byte
		for at := 0; at < len(content); at += sector {
			out = append(out, max(content[at], '.'))
		}
		return string(out)
	}
	for _, test := range []struct {
		at   Moment
		loss Loss
		want string
	}{
		{0, LoseAll, "........"},
		{1, LoseAll, "........"},
		{2, LoseAll, "aaaa...."},
		{3, LoseAll, "aaaa...."},
		{3, LoseFlush, "........"},
	} {
		if got := text(d.After(test.at, test.loss, nil)); got != test.want {
			t.Errorf("a cut at %d, loss %d, leaves %s, want %s", test.at, test.loss, got, test.want)
		}
	}
	seen := map[string]bool{}
	for seed := range uint64(1000) {
		got := text(d.After(3, LoseSome, rand.New(rand.NewPCG(seed, 0))))
		if got[:2] != "aa" || got[6:] != ".." {
			t.Fatalf("a cut leaves %s: flushed sectors are lost, or sectors appear that nobody wrote", got)
		}
		seen[got] = true
	}
	if len(seen) != 16 { // of four sectors, each the old or the new
		t.Errorf("%d outcomes of 16: %v", len(seen), seen)
	}
}

// TestPowerGoes: the entry of the cut is the last one.
func TestPowerGoes(t *testing.T) {
	d := New(make([]byte, sector))
	d.Cut(2)
	if !d.note(entry{0, []byte{1}}) || d.note(entry{0, []byte{2}}) || d.note(entry{0, []byte{3}}) {
		t.Error("the power does not go with the second entry")
	}
	if got := d.Now(); got != 2 {
		t.Errorf("%d entries, want 2", got)
	}
	<-d.Dead()
}
