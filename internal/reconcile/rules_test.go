package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/firewall"
	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// TestRulesTogether: the rules of apps whose VMs are opened while others' are changed
// become one change, of which one that fails hurts nobody else. Who needs no rule does not
// wait.
func TestRulesTogether(t *testing.T) {
	w := newWorld(t)
	w.sync()
	broken := errors.New("broken on purpose")
	begun, hold := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var asked []string
	w.rules.Fail = func(op string) error {
		mu.Lock()
		asked = append(asked, op)
		first := len(asked) == 1
		mu.Unlock()
		if first {
			close(begun)
			<-hold
		}
		if strings.Contains(op, "appd") {
			return broken
		}
		return nil
	}
	pair := func(app model.AppID) []model.VM {
		return []model.VM{vm(app, ipam.Slot(2*app)), vm(app, ipam.Slot(2*app+1))}
	}
	var callers sync.WaitGroup
	errs := make([]error, 6)
	call := func(app model.AppID) {
		callers.Go(func() { errs[app] = w.open(t.Context(), pair(app)...) })
	}
	call(1)
	<-begun
	for app := model.AppID(2); app < 6; app++ {
		call(app)
	}
	w.must(w.open(t.Context(), vm(9, 40))) // alone in its app
	for w.Members() < 11 {
		time.Sleep(time.Millisecond) // all have come as far as their rules
	}
	time.Sleep(50 * time.Millisecond)
	close(hold)
	callers.Wait()
	for app, err := range errs {
		if errors.Is(err, broken) != (app == 3) || app != 3 && err != nil {
			t.Errorf("app %d: %v", app, err)
		}
	}
	if len(asked) < 2 || len(strings.Fields(asked[1])) != 5 {
		t.Errorf("asked for %q: the second is not of four apps", asked)
	}
	w.rules.Fail = nil
	w.rows = slices.Concat(pair(1), pair(2), pair(4), pair(5), []model.VM{vm(9, 40)})
	w.clean()
	w.inSync()
}

// TestRulesFollow: whoever comes and goes at the same time, an app has its rule in the
// end if two of its VMs are left, and none otherwise.
func TestRulesFollow(t *testing.T) {
	w := newWorld(t)
	w.sync()
	w.rules.Fail = func(string) error {
		time.Sleep(100 * time.Microsecond) // for others to come meanwhile
		return nil
	}
	const rounds = 50
	w.rows = []model.VM{vm(1, 0), vm(1, 1)}
	w.must(w.open(t.Context(), w.rows[0]))
	var members sync.WaitGroup
	for i := range 3 {
		mine := vm(1, ipam.Slot(1+i))
		members.Go(func() {
			for range rounds {
				err := w.open(t.Context(), mine)
				if err == nil {
					err = w.Close(t.Context(), mine)
				}
				if err == nil {
					err = w.Reconciler.Remove(t.Context(), mine)
				}
				if err != nil {
					t.Error(fmt.Errorf("VM %q: %w", mine.Name, err))
				}
			}
		})
	}
	members.Wait()
	if rules := w.rules.Dump(); strings.Contains(rules, "appb") {
		t.Errorf("one VM is left, and a rule:\n%s", rules)
	}
	w.must(w.open(t.Context(), w.rows[1]))
	w.clean()
	w.inSync()
}

// TestNobodyComesWhileOthersAreForgotten: while connections of guests that are nobody's
// are forgotten, which are those of slots without a VM, no VM gets one and opens it.
func TestNobodyComesWhileOthersAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.sync()
	w.rules.Change(func(rules []firewall.Rule) []firewall.Rule { return rules[1:] })
	w.SuspectRules(event.Culprit{})
	fresh, opened := vm(1, 0), make(chan error, 1)
	asked := false
	w.kernel.Fail = func(op string) error {
		if !strings.HasPrefix(op, "forget others") || asked {
			return nil
		}
		asked = true
		go func() { opened <- w.open(context.Background(), fresh) }()
		select {
		case <-opened:
			return errors.New("a VM was opened meanwhile")
		case <-time.After(50 * time.Millisecond):
			return nil
		}
	}
	w.mend()
	if !asked {
		t.Fatal("nothing was forgotten")
	}
	w.must(<-opened)
	w.rows = []model.VM{fresh}
	w.inSync()
}
