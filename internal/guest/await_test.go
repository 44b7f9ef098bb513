package guest

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAwait(t *testing.T) {
	tests := []struct {
		name  string
		after time.Duration // the device is there after that long
		err   error         // what looking for it says
		want  string        // part of the error; empty: none
		took  time.Duration // no longer than
	}{
		{"there already", 0, nil, "", 0},
		{"comes late", deviceWait - time.Second, nil, "", deviceWait - time.Second},
		{"never comes", time.Hour, nil, "disk did not appear within 20s", deviceWait},
		{"cannot look", 0, errors.New("broken"), "broken", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				err := await("disk", func() (bool, error) { return time.Since(start) >= test.after, test.err })
				if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %q", err, test.want)
				}
				if took := time.Since(start); took > test.took {
					t.Errorf("took %s of the guest's time, want at most %s", took, test.took)
				}
			})
		})
	}
}
