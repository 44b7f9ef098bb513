package daemon

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"zwrm/internal/fleet"
	"zwrm/internal/model"
)

// metrics returns the handler of /metrics. Figures are read when they are asked
// for, so none can be out of step with the state.
func metrics(d *Daemon, f *fleet.Fleet) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{
			daemon: d, fleet: f,
			vms:     prometheus.NewDesc("zwrm_vms", "VMs and attachments by state.", []string{"state"}, nil),
			slots:   prometheus.NewDesc("zwrm_slots", "Blocks of the subnet: used, free, or quarantined before reuse.", []string{"state"}, nil),
			drift:   prometheus.NewDesc("zwrm_network_drift_total", "Differences between kernel and plan that were mended.", nil, nil),
			repairs: prometheus.NewDesc("zwrm_network_repairs_total", "Differences between kernel and plan that were mended, by the kind of object.", []string{"object"}, nil),
			took:    prometheus.NewDesc("zwrm_network_repair_duration_seconds", "From the notice of a change until it was mended.", nil, nil),
			fights:  prometheus.NewDesc("zwrm_network_fights", "Things that somebody changes again and again while they are mended.", nil, nil),
			fought:  prometheus.NewDesc("zwrm_network_fights_total", "Fights that began.", nil, nil),
			drops:   prometheus.NewDesc("zwrm_network_dropped_packets_total", "Packets that the rules and the kernel dropped, by reason.", []string{"reason"}, nil),
			bytes:   prometheus.NewDesc("zwrm_network_dropped_bytes_total", "Bytes that the rules dropped, by reason.", []string{"reason"}, nil),
		},
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

type collector struct {
	daemon       *Daemon
	fleet        *fleet.Fleet
	vms, slots   *prometheus.Desc
	drops, bytes *prometheus.Desc

	drift, repairs, took, fights, fought *prometheus.Desc
}

// Describe sends the description of every metric.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.vms, c.slots, c.drift, c.repairs, c.took, c.fights, c.fought, c.drops, c.bytes} {
		descs <- desc
	}
}

// Collect reads the state and sends it as metrics.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, n int, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), labels...)
	}
	used, free, resting := c.fleet.Slots()
	gauge(c.slots, used, "used")
	gauge(c.slots, free, "free")
	gauge(c.slots, resting, "quarantined")
	c.collectDrift(out)
	c.collectDrops(out)
	states, err := c.fleet.States()
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.vms, err)
		return
	}
	for _, state := range []model.State{model.Pending, model.Starting, model.Running, model.Stopping, model.Failed} {
		gauge(c.vms, states[state], string(state))
	}
}

func (c *collector) collectDrift(out chan<- prometheus.Metric) {
	history := c.daemon.reconciler.History()
	count := func(desc *prometheus.Desc, n int, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	count(c.drift, history.Drift)
	for object, n := range history.Repairs {
		count(c.repairs, n, object)
	}
	count(c.fought, history.Fought)
	out <- prometheus.MustNewConstMetric(c.fights, prometheus.GaugeValue, float64(len(history.Fights)))
	took := history.Took
	out <- prometheus.MustNewConstHistogram(c.took, took.Count, took.Sum, took.Buckets)
}

func (c *collector) collectDrops(out chan<- prometheus.Metric) {
	drops, err := c.daemon.drops(context.Background()) // which is bounded
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.drops, err)
		return
	}
	for reason, count := range drops {
		out <- prometheus.MustNewConstMetric(c.drops, prometheus.CounterValue, float64(count.Packets), string(reason))
		out <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(count.Bytes), string(reason))
	}
}
