// Package firewalltest has a dataplane in memory, for tests of what uses one.
package firewalltest
