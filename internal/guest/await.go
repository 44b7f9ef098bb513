package guest

import (
	"context"
	"fmt"
	"time"
)

const (
	// deviceWait bounds how long a device may take to appear. An emulated guest
	// on a busy host needs seconds for what takes hardware none.
	deviceWait = 20 * time.Second
	// devicePoll is how often to look. There is no udev to tell.
	devicePoll = 10 * time.Millisecond
)

// await calls ready until it is done, it fails, or deviceWait is over.
func await(what string, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), deviceWait)
	defer cancel()
	tick := time.NewTicker(devicePoll)
	defer tick.Stop()
	for {
		done, err := ready()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not appear within %s", what, deviceWait)
		case <-tick.C:
		}
	}
}
