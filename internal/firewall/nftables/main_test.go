package nftables

import (
	"testing"

	"zwrm/internal/host/nstest"
	"zwrm/internal/reconcile"
)

var _ reconcile.Firewall = (*Dataplane)(nil)

// TestMain runs every test of the package in a network namespace of its own.
func TestMain(m *testing.M) { nstest.Main(m) }
