package restart_test

import (
	"testing"

	"zwrm/test/zwrmtest"
)

func TestMain(m *testing.M) { zwrmtest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
