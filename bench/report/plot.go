package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"zwrm/test/page"
)

// The names of the plots.
const (
	attachPlot = "attach.svg"
	detachPlot = "detach.svg"
	deployPlot = "deploy.svg"
	peersPlot  = "peers.svg"
)

// The size of a plot.
const (
	width  = 18 * vg.Centimeter
	height = 9 * vg.Centimeter
	margin = 0.4 * vg.Centimeter
)

// Plots returns the plots, as SVG, by name.
func (r *Results) Plots() (map[string][]byte, error) {
	plots := map[string]*plot.Plot{
		attachPlot: r.growthPlot(Attach),
		detachPlot: r.growthPlot(Detach),
		deployPlot: r.deployPlot(),
	}
	var err error
	if plots[peersPlot], err = r.peersPlot(); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for name, p := range plots {
		if files[name], err = draws(p); err != nil {
			return nil, fmt.Errorf("plot %q: %w", name, err)
		}
	}
	return files, nil
}

func draws(p *plot.Plot) ([]byte, error) {
	p.BackgroundColor = color.White // also on a dark page
	canvas := vgsvg.New(width, height)
	p.Draw(inside(draw.New(canvas)))
	var out bytes.Buffer
	_, err := canvas.WriteTo(&out)
	return out.Bytes(), err
}

// inside leaves a margin, so that nothing at an edge is cut off.
func inside(c draw.Canvas) draw.Canvas { return draw.Crop(c, margin, -margin, margin, -margin) }

// curve is a line of a plot.
type curve struct {
	name   string
	points plotter.XYs
}

// growthPlot has the medians by the number of VMs.
func (r *Results) growthPlot(m Measure) *plot.Plot {
	p := newPlot("VMs present", string(m)+", median, ms")
	p.X.Tick.Marker = ticks(r.Levels)
	var curves []curve
	for _, by := range r.who(Growth, m) {
		for _, pool := range r.pooled() {
			c := curve{name: r.label(by, pool, r.PerApp[0])}
			for _, present := range r.Levels {
				if f, ok := r.Find(Key{Part: Growth, Measure: m, By: by, Pool: pool, Present: present, PerApp: r.PerApp[0]}); ok {
					c.points = append(c.points, plotter.XY{X: float64(present), Y: f.P50})
				}
			}
			curves = append(curves, c)
		}
	}
	add(p, curves)
	return p
}

// deployPlot has the time of each VM by how many are deployed at once.
func (r *Results) deployPlot() *plot.Plot {
	p := newPlot("VMs of one deploy", "network, median, ms per VM")
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, ticks(r.Counts)
	var curves []curve
	for _, by := range r.who(Batch, Network) {
		c := curve{name: by}
		for _, n := range r.Counts {
			if f, ok := r.Find(Key{Part: Batch, Measure: Network, By: by, Count: n}); ok {
				c.points = append(c.points, plotter.XY{X: float64(n), Y: f.P50 / float64(n)})
			}
		}
		curves = append(curves, c)
	}
	add(p, curves)
	return p
}

// newSans returns a plot whose texts are without serifs, as those of the page.
func newSans() *plot.Plot {
	p := plot.New()
	for _, style := range []*draw.TextStyle{&p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		style.Font.Variant = "Sans"
	}
	return p
}

func newPlot(x, y string) *plot.Plot {
	p := newSans()
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.Legend.Top, p.Legend.YOffs, p.Legend.Padding = true, -margin/2, margin/8
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{}
	return p
}

// add draws the curves, with room above them for the legend.
func add(p *plot.Plot, curves []curve) {
	p.Add(plotter.NewGrid())
	low, high := math.Inf(1), 0.0
	n := 0
	for _, c := range curves {
		if len(c.points) == 0 {
			continue
		}
		line := &plotter.Line{XYs: c.points, LineStyle: plotter.DefaultLineStyle}
		line.Color, line.Width, line.Dashes = plotutil.Color(n), vg.Points(1.5), plotutil.Dashes(n)
		dots := &plotter.Scatter{XYs: c.points, GlyphStyle: plotter.DefaultGlyphStyle}
		dots.Color, dots.Shape = plotutil.Color(n), plotutil.Shape(n)
		p.Add(line, dots)
		p.Legend.Add(c.name, line, dots)
		n++
		for _, point := range c.points {
			low, high = min(low, point.Y), max(high, point.Y)
		}
	}
	if n == 0 { // an axis without anything goes through 0, which has no logarithm
		p.X.Scale, p.Y.Scale = plot.LinearScale{}, plot.LinearScale{}
		return
	}
	p.Y.Min, p.Y.Max = low/1.5, high*math.Pow(high/low*2, 0.6)
}

// peersPlot has a bar for everyone, each next to its name.
func (r *Results) peersPlot() (*plot.Plot, error) {
	p := newSans()
	p.X.Label.Text = fmt.Sprintf("attach with %s networks present, median, ms; the scale is logarithmic", page.Number(r.Peers))
	var names []string
	var logs plotter.Values
	labels := plotter.XYLabels{}
	for _, by := range r.who(Peers, Attach) {
		f, ok := r.Find(Key{Part: Peers, Measure: Attach, By: by, Pool: r.pooled()[0], Present: r.Peers, PerApp: r.PerApp[0]})
		if !ok { // those of others have no pool
			f, ok = r.Find(Key{Part: Peers, Measure: Attach, By: by, Present: r.Peers, PerApp: r.PerApp[0]})
		}
		if ok {
			x := math.Log10(f.P50) + offset
			labels.XYs, labels.Labels = append(labels.XYs, plotter.XY{X: x, Y: float64(len(names))}), append(labels.Labels, " "+short(f.P50))
			names, logs = append(names, by), append(logs, x)
		}
	}
	if len(names) == 0 {
		return p, nil
	}
	bars, err := plotter.NewBarChart(logs, vg.Points(12))
	if err != nil {
		return nil, err
	}
	bars.Horizontal, bars.Color, bars.LineStyle.Width = true, plotutil.Color(2), 0
	texts, err := plotter.NewLabels(labels)
	if err != nil {
		return nil, err
	}
	for i := range texts.TextStyle {
		texts.TextStyle[i].YAlign = -0.4 // in the middle of the bar
		texts.TextStyle[i].Font.Variant = "Sans"
	}
	p.Add(bars, texts)
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, slices.Max(logs)+0.3
	p.Y.Min, p.Y.Max = -0.5, float64(len(names))-0.5
	p.X.Tick.Marker = plot.TickerFunc(func(_, high float64) []plot.Tick {
		var all []plot.Tick
		for x := 0.0; x <= high; x++ {
			all = append(all, plot.Tick{Value: x, Label: fmt.Sprint(math.Pow(10, x-offset))})
		}
		return all
	})
	return p, nil
}

// offset has a bar of 0.01 ms begin at the axis: a bar chart has no logarithmic scale.
const offset = 2

// ticks has a tick at each of some numbers.
type ticks []int

// Ticks is for plot.
func (t ticks) Ticks(_, _ float64) []plot.Tick {
	var all []plot.Tick
	for _, n := range t {
		all = append(all, plot.Tick{Value: float64(n), Label: page.Number(n)})
	}
	return all
}

// decades has ticks at 1, 2 and 5 of each power of ten.
type decades struct{}

// Ticks is for plot.
func (decades) Ticks(low, high float64) []plot.Tick {
	var all []plot.Tick
	for exponent := math.Floor(math.Log10(low)); exponent <= math.Log10(high); exponent++ {
		for _, digit := range []float64{1, 2, 5} {
			if x := digit * math.Pow(10, exponent); x >= low && x <= high {
				all = append(all, plot.Tick{Value: x, Label: fmt.Sprintf("%.3g", x)})
			}
		}
	}
	return all
}
