// Package flow tests who reaches whom, with real packets between guests, the host,
// and the networks around it, while the real zwrmd keeps the rules.
//
// testdata/flows.txt is the firewall table of the design as flows. Each flow that
// must not pass is tried again after the rules were taken away, and must pass then:
// a test of a drop that cannot fail says nothing.
package flow
