package firewalld

import "github.com/godbus/dbus/v5"

// Signals of the bus and of firewalld. Those about an interface have the names of the
// zone and of the interface, in this order.
const (
	busName      = "org.freedesktop.DBus"
	ownerChanged = "NameOwnerChanged" // name, old owner, new owner
	reloaded     = "Reloaded"
	added        = zoneCalls + ".InterfaceAdded"
	removed      = zoneCalls + ".InterfaceRemoved"
	moved        = zoneCalls + ".ZoneOfInterfaceChanged"
	updated      = zoneCalls + ".ZoneUpdated" // all settings of a zone at once
)

// meaning is what a signal means for the binding.
type meaning uint8

const (
	nothing  meaning = iota
	appeared         // firewalld starts
	ended            // firewalld is gone
	changed          // the binding may be gone or be possible
)

// meaning returns what a signal means. Changes that we make ourselves mean nothing.
func (b *bus) meaning(s *dbus.Signal) meaning {
	switch s.Name {
	case busName + "." + ownerChanged:
		if s.Sender != busName || len(s.Body) != 3 { // anybody may send anything to us alone
			return nothing
		}
		if s.Body[2] == "" {
			return ended
		}
		return appeared
	case service + "." + reloaded, updated:
		return changed
	case added, removed, moved:
		zone, i, ok := about(s)
		own := zone == trusted && i == taps && (s.Name == added || s.Name == removed && !b.wants())
		if ok && i.overlap() && !own {
			return changed
		}
	}
	return nothing
}

// about returns the zone and the interfaces that a signal is about.
func about(s *dbus.Signal) (ZoneName, Interfaces, bool) {
	if len(s.Body) != 2 {
		return "", "", false
	}
	zone, isZone := s.Body[0].(string)
	name, isName := s.Body[1].(string)
	return ZoneName(zone), Interfaces(name), isZone && isName
}
