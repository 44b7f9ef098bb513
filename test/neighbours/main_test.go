package neighbours_test

import (
	"testing"

	"zwrm/test/zwrmtest"
)

func TestMain(m *testing.M) { zwrmtest.Main(m) }
