package foreign

import (
	"testing"

	"zwrm/internal/host/nstest"
)

// TestMain runs every test of the package in a network namespace of its own.
func TestMain(m *testing.M) { nstest.Main(m) }
