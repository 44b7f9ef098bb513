package qemu

import (
	"context"
	"time"
)

// readTSC returns the CPU's time stamp counter (RDTSC).
func readTSC() uint64

// softTSC measures how fast the guests' time stamp counter runs under TCG, in
// kHz: as fast as the host's, since TCG reads that one.
//
// The guest is told (tsc_early_khz=, Linux 5.9), because it cannot find out
// reliably. It would compare the counter with the old timer (PIT), and gives up
// when the host takes the CPU away for 0.2 ms meanwhile. On this board it has no
// other clock, and then waits for a tick that never comes, before its first line
// about memory: with two busy CPUs that was 5 of 12 boots.
func softTSC(ctx context.Context) (int, error) {
	const period = 50 * time.Millisecond
	start, first := sampleTSC()
	timer := time.NewTimer(period)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-timer.C:
	}
	end, second := sampleTSC()
	return int(float64(second-first) / end.Sub(start).Seconds() / 1000), nil
}

// sampleTSC reads clock and counter at one moment: of several tries the one in
// which the least time went by.
func sampleTSC() (time.Time, uint64) {
	var at time.Time
	var count uint64
	shortest := time.Duration(1<<63 - 1)
	for range 32 {
		before := time.Now()
		tsc := readTSC()
		if took := time.Since(before); took < shortest {
			shortest, at, count = took, before.Add(took/2), tsc
		}
	}
	return at, count
}
