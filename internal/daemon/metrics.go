package daemon

import (
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
			vms:   prometheus.NewDesc("zwrm_vms", "VMs and attachments by state.", []string{"state"}, nil),
			slots: prometheus.NewDesc("zwrm_slots", "Blocks of the subnet: used, free, or quarantined before reuse.", []string{"state"}, nil),
			drift: prometheus.NewDesc("zwrm_network_drift_total", "Differences between kernel and plan that were mended.", nil, nil),
		},
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

type collector struct {
	daemon            *Daemon
	fleet             *fleet.Fleet
	vms, slots, drift *prometheus.Desc
}

// Describe sends the description of every metric.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.vms, c.slots, c.drift} {
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
	drift, _ := c.daemon.reconciler.Drift()
	out <- prometheus.MustNewConstMetric(c.drift, prometheus.CounterValue, float64(drift))
	states, err := c.fleet.States()
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.vms, err)
		return
	}
	for _, state := range []model.State{model.Pending, model.Starting, model.Running, model.Stopping, model.Failed} {
		gauge(c.vms, states[state], string(state))
	}
}
