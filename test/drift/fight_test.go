package drift_test

import (
	"strings"
	"testing"
	"time"

	"zwrm/test/zwrmtest"
)

// TestFight: a program that takes a rule away as often as it comes back raises an alarm:
// an event, a line of the status, a metric, a line of the log at level error. When it
// ends, the rule comes back. Meanwhile other things are mended at once.
func TestFight(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, settings("iptables"))
	d.Attach(t, "one", "web")
	before := h.Dump(t)
	foe := zwrmtest.Begin(t, h.Namespace, "sh", "-c", "while :; do iptables -D FORWARD 1; sleep 0.02; done")
	e := awaitEvent(t, d, 0, "fight", "iptables filter FORWARD", "begins: mended 5 times")
	if !names(e.By, "iptables") {
		t.Errorf("by %+v", e.By)
	}
	status := d.Must(t, "network", "status")
	if !strings.Contains(status, "fight:               iptables filter FORWARD rule 1, mended ") || !strings.Contains(status, "changed by iptables (") {
		t.Errorf("status is\n%s", status)
	}
	metrics := d.Metrics(t)
	for _, line := range []string{"zwrm_network_fights 1\n", "zwrm_network_fights_total 1\n", "zwrm_network_repairs_total{object=\"iptables\"} ", "zwrm_network_repair_duration_seconds_count "} {
		if !strings.Contains(metrics, line) {
			t.Errorf("metrics lack %q", line)
		}
	}
	if !strings.Contains(d.Log(), "level=ERROR msg=\"somebody changes again and again what is mended\" object=\"iptables filter FORWARD rule 1\"") {
		t.Error("the log has no such error")
	}
	known := len(events(t, d))
	shell(t, h, "ip link set zvm0 down")
	if e := awaitEvent(t, d, known, "repair", "link zvm0"); e.TookMS > 5000 {
		t.Errorf("a link is mended after %.0f ms", e.TookMS)
	}
	foe.Interrupt(t)
	await(t, "everything as before", func() bool { return h.Dump(t) == before })
}

// TestQuiet: what zwrmd does itself is no drift, however much of it there is at once.
func TestQuiet(t *testing.T) {
	t.Parallel()
	for _, dataplane := range dataplanes() {
		t.Run(dataplane, func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			d := h.Start(t, settings(dataplane))
			client := d.Client(t)
			done := make(chan error, 4)
			for worker := range cap(done) {
				go func() { done <- churn(t.Context(), client, worker) }()
			}
			for range cap(done) {
				must(t, <-done)
			}
			// Behind this change all those before it have been looked at.
			must(t, attach(t.Context(), client, "last", "last"))
			known := len(events(t, d))
			shell(t, h, "ip link set "+d.VMs(t)[0].TAP+" down")
			awaitEvent(t, d, known, "repair", "link")
			for _, e := range events(t, d)[:known] {
				if e.Kind != "vm" && e.Kind != "app" {
					t.Errorf("told: %+v", e)
				}
			}
		})
	}
}

// TestLegacy: the kernel does not tell of rules of iptables-legacy, so they are looked at
// from time to time.
func TestLegacy(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.NewDaemon(t, settings("iptables"))
	d.Prepare = legacy(t, h)
	d.Start(t)
	if status := d.Must(t, "network", "status"); !strings.Contains(status, "(legacy)") {
		t.Fatalf("it is another iptables:\n%s", status)
	}
	d.Attach(t, "one", "web")
	before := h.Run(t, "iptables-legacy", "-S")
	start := time.Now()
	shell(t, h, "iptables-legacy -D FORWARD 1")
	awaitEvent(t, d, 0, "repair", "iptables filter FORWARD rule 1", "missing")
	if got := h.Run(t, "iptables-legacy", "-S"); got != before {
		t.Errorf("rules are\n%s\nand were\n%s", got, before)
	}
	t.Logf("mended after %s", time.Since(start).Round(time.Millisecond))
}
