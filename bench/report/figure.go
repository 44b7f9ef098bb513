package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// Measure is what a figure is of.
type Measure string

// The measures, with the unit of each.
const (
	Attach    Measure = "attach"            // ms
	Detach    Measure = "detach"            // ms
	Sustained Measure = "sustained attach"  // VMs per second
	Network   Measure = "deploy, network"   // ms, until the networks of all VMs are open
	Deploy    Measure = "deploy"            // ms, with the rows of each start
	Answered  Measure = "destroy, answered" // ms
	Destroy   Measure = "destroy, gone"     // ms, until the kernel has no link of them
	Restart   Measure = "restart"           // ms, in sync, until ready
	Rebuild   Measure = "rebuild"           // ms, from an empty kernel until all links are there
	Resident  Measure = "resident memory"   // MiB
	Kernel    Measure = "kernel memory"     // KiB per VM
	Idle      Measure = "idle"              // percent of one processor
	List      Measure = "list"              // ms
	Sync      Measure = "disk sync"         // ms
)

// Rate reports whether more is better.
func (m Measure) rate() bool { return m == Sustained }

// Part is the part of a run that a figure is from. Figures of one part are from the
// same rounds.
type Part string

// The parts.
const (
	Growth Part = "growth" // from no VM to the most
	Batch  Part = "batch"  // deploys
	Peers  Part = "peers"  // beside the programs of others
	Whole  Part = "whole"  // with the most VMs
)

// Floor is who the ratios of figures are to: the bare calls of the kernel.
const Floor = "floor"

// Key says which figure it is.
type Key struct {
	Part    Part    `json:"part"`
	Measure Measure `json:"measure"`
	By      string  `json:"by"`      // Floor, a dataplane, or a program of others
	Pool    bool    `json:"pool"`    // from the pool of ready TAPs
	Present int     `json:"present"` // VMs, before
	PerApp  int     `json:"per_app"` // VMs
	Count   int     `json:"count"`   // VMs at once
}

// Figure is what was measured.
type Figure struct {
	Key
	Samples int     `json:"samples"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	// Ratio is the median of the ratios to the floor of the same round, 0 where there
	// is no floor.
	Ratio float64 `json:"ratio,omitempty"`
}

// Results is one run.
type Results struct {
	Taken    time.Time `json:"taken"`
	Hardware string    `json:"hardware"`
	Versions []string  `json:"versions"`
	Levels   []int     `json:"levels"`  // numbers of VMs present
	PerApp   []int     `json:"per_app"` // the first is that of most figures
	Counts   []int     `json:"counts"`  // VMs of a deploy
	Peers    int       `json:"peers"`   // VMs present beside the programs of others
	Notes    []string  `json:"notes"`
	Figures  []Figure  `json:"figures"`
}

// Most returns the highest number of VMs present.
func (r *Results) Most() int { return slices.Max(r.Levels) }

// Note adds what a reader of the figures has to know.
func (r *Results) Note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Add adds the figure of some samples. floor has those of the same rounds, nil where
// there are none.
func (r *Results) Add(key Key, samples, floor []float64) {
	f := Figure{Key: key, Samples: len(samples), P50: percentile(samples, 50), P99: percentile(samples, 99)}
	if len(floor) == len(samples) && key.By != Floor {
		ratios := make([]float64, len(samples))
		for i := range samples {
			ratios[i] = samples[i] / floor[i]
		}
		f.Ratio = percentile(ratios, 50)
	}
	r.Figures = append(r.Figures, f)
}

// percentile returns the smallest sample that p percent of all are not above.
func percentile(samples []float64, p int) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// Find returns a figure, if it was measured.
func (r *Results) Find(key Key) (Figure, bool) {
	for _, f := range r.Figures {
		if f.Key == key {
			return f, true
		}
	}
	return Figure{}, false
}

// who returns who was measured in a part, in that order.
func (r *Results) who(part Part, measure Measure) []string {
	var all []string
	for _, f := range r.Figures {
		if f.Part == part && f.Measure == measure && !slices.Contains(all, f.By) {
			all = append(all, f.By)
		}
	}
	return all
}

// pooled returns false, and true if anything was measured from the pool.
func (r *Results) pooled() []bool {
	if slices.ContainsFunc(r.Figures, func(f Figure) bool { return f.Pool }) {
		return []bool{true, false}
	}
	return []bool{false}
}

// Write writes the results as JSON.
func (r *Results) Write(path string) error {
	slices.SortStableFunc(r.Figures, func(a, b Figure) int { return cmp.Compare(a.Part, b.Part) })
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Read reads results from JSON.
func Read(path string) (*Results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Results{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("results %q: %w", path, err)
	}
	return r, nil
}
