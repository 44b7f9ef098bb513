package api_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"zwrm/internal/api"
)

// TestLog: requests are logged for who looks for them only; a panic always, with
// the place where it happened.
func TestLog(t *testing.T) {
	tests := []struct {
		name    string
		level   slog.Level
		request string
		want    []string // empty: nothing is logged
	}{
		{"debug", slog.LevelDebug, "GET /v1/vms/web-9", []string{"level=DEBUG", "method=GET", "path=/v1/vms/web-9", "status=404"}},
		{"info", slog.LevelInfo, "GET /v1/vms/web-9", nil},
		{"panic", slog.LevelInfo, "GET /v1/apps", []string{"level=ERROR", "path=/v1/apps", "nil pointer", "apps.go"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			deps := newHost(t).Deps()
			deps.Apps = nil
			deps.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: test.level}))
			do(t, api.New(deps), test.request)
			for _, want := range test.want {
				if !strings.Contains(log.String(), want) {
					t.Errorf("no %q in %s", want, log.String())
				}
			}
			if test.want == nil && log.Len() > 0 {
				t.Errorf("logged %s", log.String())
			}
		})
	}
}
