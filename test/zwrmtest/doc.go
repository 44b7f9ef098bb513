// Package zwrmtest makes hosts for tests of the real programs. A Host is a
// network namespace with an uplink eth0 and an internet behind it; a Daemon is the
// real zwrmd on it; a Guest is a machine behind a TAP that zwrm attach made. Serve,
// Ask and Ping find out who reaches whom, and a Capture sees what really arrives.
//
// Each Host has a namespace of its own, so that tests may run at the same time.
// The test binary must be one that nstest.Main runs. All of it ends with the test.
//
//	h := zwrmtest.NewHost(t)
//	d := h.Start(t, zwrmtest.Settings{"network.bridge.enabled": "true"})
//	web := d.Guest(t, "web-0", "web")
//	seen, err := zwrmtest.Ask(t, web.Namespace, "tcp", outside, time.Second)
package zwrmtest
