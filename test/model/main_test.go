package model_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"zwrm/internal/host/nstest"
)

var (
	inMemory = flag.Int("memory", 400, "operations on a kernel in memory")
	onKernel = flag.Int("kernel", 50, "operations on the real kernel")
)

// A check is one host's life of so many operations on average, and a batch so many
// checks: rapid says the seed of the check that failed.
const (
	checks = "10"
	steps  = "200"
)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.steps": steps} {
		if err := flag.Set(name, value); err != nil { // the command line may say otherwise
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	nstest.Main(m)
}

// TestInMemory has the real fleet, reconciler and database on a kernel, a
// dataplane and VMMs in memory, and a clock that the test moves.
func TestInMemory(t *testing.T) {
	done := newTally(*inMemory)
	t.Run("workers", func(t *testing.T) {
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				repeat(t, done, newMemory)
			})
		}
	})
	t.Log(done)
}

// repeat lives lives on hosts until enough was done.
func repeat(t *testing.T, done *tally, host func(*rapid.T, *seam) site) {
	for !t.Failed() && done.open() {
		rapid.Check(t, func(t *rapid.T) {
			if !done.open() {
				return
			}
			rapid.SyncTest(t, func(t *rapid.T) {
				seam := &seam{fate: well}
				live(t, newWorld(t, seam, host(t, seam)), done)
			})
		})
	}
}

// tally counts the operations of each kind.
type tally struct {
	wanted int
	once   sync.Once // a failure was told

	mu    sync.Mutex
	kinds map[string]int
	total int
}

func newTally(wanted int) *tally { return &tally{wanted: wanted, kinds: map[string]int{}} }

func (c *tally) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total < c.wanted
}

// count counts an operation. A name with a colon is a remark on one, not one more.
func (c *tally) count(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kinds[kind]++
	if !strings.Contains(kind, ":") {
		c.total++
	}
}

// String returns how many there were of each kind.
func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d operations\n", c.total)
	for _, kind := range slices.Sorted(maps.Keys(c.kinds)) {
		fmt.Fprintf(&b, "%8d %s\n", c.kinds[kind], kind)
	}
	return b.String()
}
