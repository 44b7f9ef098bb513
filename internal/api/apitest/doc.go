// Package apitest has a host in memory, for tests of the API and of the command
// line: apps, VMs, images and a network that behave as the real ones answer.
package apitest
