package reconcile

import (
	"strings"
	"time"

	"zwrm/internal/event"
	"zwrm/internal/firewall"
)

// What can be fought about: a link, by its object, or one of these.
const (
	classAll   = "all"
	classRules = "rules"
	classBase  = "settings"

	linkObject = "link "
)

func isBase(object string) bool {
	return strings.HasPrefix(object, "sysctl ") || strings.HasPrefix(object, "bridge ")
}

// classOf returns what of a fight an object is.
func classOf(object string) string {
	switch {
	case strings.HasPrefix(object, linkObject):
		return object
	case isBase(object):
		return classBase
	}
	return classRules
}

const (
	// fightAfter is how many mendings of one thing, none long after the one before,
	// make a fight.
	fightAfter = 5
	// quiet is how long nothing has to be mended until a fight is over.
	quiet = 30 * time.Second
	// firstPause is how long the first mending of a fight waits, twice as long each
	// time. lastPause is the longest: rules of ours lack meanwhile.
	firstPause = 250 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Fight is somebody who changes again and again what is mended each time.
type Fight struct {
	Object string // that was mended last
	Since  time.Time
	Mended int // times
	By     []event.Culprit
}

// fights knows what was mended lately.
type fights struct {
	open  map[string]*bout // by class
	total int              // since the start
}

// bout is what was mended, at first without being called a fight.
type bout struct {
	Fight
	last  time.Time
	until time.Time // the next mending waits until then
}

// mended counts mendings in, and returns the fights that began by that.
func (f *fights) mended(now time.Time, findings []firewall.Difference, by func(object string) []event.Culprit) (began []Fight) {
	seen := map[string]bool{}
	for _, d := range findings {
		class := classOf(d.Object)
		if seen[class] {
			continue
		}
		seen[class] = true
		b := f.open[class]
		if b == nil || now.Sub(b.last) > quiet {
			b = &bout{Fight: Fight{Since: now}}
			f.open[class] = b
		}
		b.Mended++
		b.last, b.Object = now, d.Object
		if who := by(d.Object); len(who) > 0 {
			b.By = who
		}
		if b.Mended == fightAfter {
			f.total++
			began = append(began, b.Fight)
		}
		if b.Mended >= fightAfter {
			b.until = now.Add(pause(b.Mended - fightAfter))
		}
	}
	return began
}

// pause returns how long the next mending waits after so many of a fight.
func pause(n int) time.Duration {
	if n >= 5 { // 8 s, and more would soon be more than a number holds
		return lastPause
	}
	return min(firstPause<<n, lastPause)
}

// held returns until when a class is not to be mended. Who fights about forwarding
// changes every link each time.
func (f *fights) held(class string) time.Time {
	if class == classAll {
		class = classBase
	}
	if b := f.open[class]; b != nil {
		return b.until
	}
	return time.Time{}
}

// settle forgets what was not mended for long, and returns the fights that are over by
// that.
func (f *fights) settle(now time.Time) (over []Fight) {
	for class, b := range f.open {
		if now.Sub(b.last) <= quiet {
			continue
		}
		delete(f.open, class)
		if b.Mended >= fightAfter {
			over = append(over, b.Fight)
		}
	}
	return over
}

// current returns the fights that go on.
func (f *fights) current() []Fight {
	var all []Fight
	for _, b := range f.open {
		if b.Mended >= fightAfter {
			all = append(all, b.Fight)
		}
	}
	return all
}
