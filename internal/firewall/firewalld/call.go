package firewalld

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// What of firewalld's interface is used (firewalld.dbus(5)). It is the same from
// version 0.9 to 2.5.
const (
	service     = "org.fedoraproject.FirewallD1"
	path        = dbus.ObjectPath("/org/fedoraproject/FirewallD1")
	config      = path + "/config"
	zoneCalls   = service + ".zone"
	configCalls = service + ".config"
	getProperty = "org.freedesktop.DBus.Properties.Get"
)

// code begins the text of firewalld's errors.
type code string

const (
	alreadySet  code = "ZONE_ALREADY_SET"  // the interface is in this zone already
	inNoZone    code = "UNKNOWN_INTERFACE" // the interface is in no zone
	inOtherZone code = "ZONE_CONFLICT"     // the interface is in another zone
)

// is reports whether firewalld refused for this reason.
func is(err error, c code) bool {
	var refused dbus.Error
	if !errors.As(err, &refused) {
		return false
	}
	reason, _, _ := strings.Cut(refused.Error(), ":")
	return code(reason) == c
}

// zones returns the zones that are in use, and what they are for.
func (b *bus) zones(ctx context.Context) (zones, error) {
	all := zones{}
	return all, b.ask(ctx, path, zoneCalls+".getActiveZones", &all)
}

// target returns a zone's target.
func (b *bus) target(ctx context.Context, zone ZoneName) (Target, error) {
	settings := map[string]dbus.Variant{}
	if err := b.ask(ctx, path, zoneCalls+".getZoneSettings2", &settings, zone); err != nil {
		return "", err
	}
	target, ok := settings["target"].Value().(string)
	if !ok {
		return "", fmt.Errorf("settings of zone %q have no target", zone)
	}
	return Target(target), nil
}

// addInterface puts interfaces into a zone, at runtime.
func (b *bus) addInterface(ctx context.Context, zone ZoneName, i Interfaces) error {
	return b.ask(ctx, path, zoneCalls+".addInterface", new(string), zone, i)
}

// removeInterface takes interfaces out of a zone, at runtime.
func (b *bus) removeInterface(ctx context.Context, zone ZoneName, i Interfaces) error {
	return b.ask(ctx, path, zoneCalls+".removeInterface", new(string), zone, i)
}

// permanentZones returns the zone that the permanent configuration has interfaces in,
// "" for none, or a text that begins with several.
func (b *bus) permanentZones(ctx context.Context, i Interfaces) (string, error) {
	var text string
	return text, b.ask(ctx, config, configCalls+".getZoneOfInterface", &text, i)
}

// property returns a property of an interface of one of firewalld's objects.
func (b *bus) property(ctx context.Context, object dbus.ObjectPath, of, name string) (string, error) {
	var value dbus.Variant
	if err := b.ask(ctx, object, getProperty, &value, of, name); err != nil {
		return "", err
	}
	text, ok := value.Value().(string)
	if !ok {
		return "", fmt.Errorf("property %q is no text", name)
	}
	return text, nil
}
