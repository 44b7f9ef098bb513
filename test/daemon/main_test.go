package daemon_test

import (
	"strings"
	"testing"

	"zwrm/test/zwrmtest"
)

func TestMain(m *testing.M) { zwrmtest.Main(m) }

// private is the configuration that has all there is.
func private() zwrmtest.Settings { return zwrmtest.Settings{"network.bridge.enabled": "true"} }

// shell runs commands on the host, one per line, without quotes.
func shell(t testing.TB, h *zwrmtest.Host, commands string) {
	t.Helper()
	for line := range strings.Lines(commands) {
		if words := strings.Fields(line); len(words) > 0 {
			h.Run(t, words[0], words[1:]...)
		}
	}
}

// contains reports an error for each text that is not there.
func contains(t testing.TB, what, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", what, want, text)
		}
	}
}
