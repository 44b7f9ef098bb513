package firewalld

import "github.com/godbus/dbus/v5"

// mood is what is known of firewalld's readiness to answer.
type mood uint8

const (
	unknown  mood = iota // ask and see
	starting             // it has its name, and answers when it has made its rules
	silent               // it has not answered in time
)

// become notes a mood.
func (b *bus) become(m mood) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mood = m
}

func (b *bus) is(m mood) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mood == m
}

// ready returns the connection if it makes sense to ask firewalld.
func (b *bus) ready() (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.conn == nil, b.mood == starting:
		return nil, errAbsent
	case b.mood == silent:
		return nil, errSilent
	}
	return b.conn, nil
}

// doubt notes that firewalld did not answer in time, and has follow wait for it.
func (b *bus) doubt(conn *dbus.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != conn || b.mood != unknown {
		return
	}
	b.mood = silent
	select {
	case b.doubts <- struct{}{}:
	default:
	}
}

// want notes whether the binding is wanted.
func (b *bus) want(wanted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wanted = wanted
}

func (b *bus) wants() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wanted
}
