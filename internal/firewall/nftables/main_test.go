package nftables

import (
	"os"
	"testing"

	"zwrm/internal/host/nstest"
	"zwrm/internal/reconcile"
)

var _ reconcile.Firewall = (*Dataplane)(nil)

// TestMain runs every test of the package in a network namespace of its own. In a
// child of startOwner it is a zwrmd instead, as far as rules go.
func TestMain(m *testing.M) {
	if os.Getenv(ownerStage) != "" {
		os.Exit(ownTable())
	}
	nstest.Main(m)
}
