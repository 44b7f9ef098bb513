package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"zwrm/internal/wire"
)

// maxEvent is how long a line of the stream of events may be, in bytes.
const maxEvent = 1 << 20

// Events returns what happened lately, the oldest first.
func (c *Client) Events(ctx context.Context) ([]wire.Event, error) {
	return ask[[]wire.Event](ctx, c, http.MethodGet, "/v1/events/recent", nil)
}

// FollowEvents calls each for what happened lately and for what happens, until ctx ends
// or each returns an error.
func (c *Client) FollowEvents(ctx context.Context, each func(wire.Event) error) error {
	resp, err := c.send(ctx, http.MethodGet, "/v1/events?recent=true", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")) // each is one line
		if !ok {
			continue
		}
		var e wire.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("read an event of zwrmd: %w", err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("events broke off: %w", err)
	}
	return fmt.Errorf("events broke off: zwrmd ended")
}
