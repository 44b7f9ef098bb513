package disk

import (
	"math"
	"math/rand/v2"
	"sync"
)

// sector is what a disk writes whole or not at all, in bytes. With 512 the file system
// of Linux before 6.3 is lost when the block that ends a transaction is torn.
const sector = 4096

// Moment is a place in the log of a disk: so many of its entries came before.
type Moment int

// entry is one write, or a flush, which has no data.
type entry struct {
	offset int64
	data   []byte
}

// Disk is a disk with the power on. It is safe for concurrent use.
type Disk struct {
	mu   sync.Mutex
	base []byte // what it had when the power came
	now  []byte // what reads see
	log  []entry
	cut  Moment        // the power goes with this entry
	dead chan struct{} // closed then
}

// New returns a disk with the content, which it owns from now on.
func New(content []byte) *Disk {
	return &Disk{base: content, now: append([]byte(nil), content...), cut: math.MaxInt, dead: make(chan struct{})}
}

// Now returns the present moment.
func (d *Disk) Now() Moment {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Moment(len(d.log))
}

// Dead returns a channel that is closed when the power is gone.
func (d *Disk) Dead() <-chan struct{} { return d.dead }

// Cut takes the power away when the log has as many entries as the moment says,
// which is now if it has that many already.
func (d *Disk) Cut(moment Moment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut = moment
	d.checkPower()
}

// Forget lets go of all content, for a disk that stays referred to when its power is
// long gone.
func (d *Disk) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.base, d.now, d.log = nil, nil, nil
}

// checkPower reports whether the power is on.
func (d *Disk) checkPower() bool {
	on := Moment(len(d.log)) < d.cut
	if !on {
		select {
		case <-d.dead:
		default:
			close(d.dead)
		}
	}
	return on
}

func (d *Disk) size() int64 { return int64(len(d.base)) }

// read copies a part of the disk.
func (d *Disk) read(offset int64, into []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(into, d.now[offset:])
}

// note puts an entry into the log and reports whether the power was on.
func (d *Disk) note(e entry) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.checkPower() {
		return false
	}
	d.log = append(d.log, e)
	copy(d.now[e.offset:], e.data)
	return d.checkPower()
}

// Loss says what a power cut does to the writes that no flush came after.
type Loss int

// The kinds of Loss.
const (
	LoseAll   Loss = iota // none is on the disk
	LoseSome              // each is there, not there, or torn
	LoseFlush             // as LoseAll, on a disk that lies: its flushes do nothing
)

// After returns what is on the disk when the power goes at the moment.
func (d *Disk) After(moment Moment, loss Loss, random *rand.Rand) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	content := append([]byte(nil), d.base...)
	if loss == LoseFlush {
		return content
	}
	log := d.log[:moment]
	safe := 0
	for i, e := range log {
		if e.data == nil {
			safe = i
		}
	}
	for i, e := range log {
		switch {
		case i < safe:
			copy(content[e.offset:], e.data)
		case loss == LoseSome:
			e.survive(content, random)
		}
	}
	return content
}

// survive writes as much of an entry as chance leaves.
func (e entry) survive(content []byte, random *rand.Rand) {
	const lost, whole, kinds = 0, 1, 3
	fate := random.IntN(kinds)
	for at := 0; at < len(e.data); at += sector {
		if fate == whole || fate != lost && random.IntN(2) == 0 {
			copy(content[e.offset+int64(at):], e.data[at:min(at+sector, len(e.data))])
		}
	}
}
