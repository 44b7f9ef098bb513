package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"zwrm/internal/client"
	"zwrm/internal/wire"
)

// pollEvery is how often one looks how far a request is. It is done less often when
// the answer takes long, since the one who answers has better things to do then.
const pollEvery = 250 * time.Millisecond

// meter is a line of a terminal that is written again and again, and is gone in the
// end: what is left is the answer.
type meter struct {
	w    io.Writer
	line string
}

func (m *meter) show(line string) {
	if line != m.line {
		m.line = line
		fmt.Fprint(m.w, "\r"+line+"\x1b[K") // erases what was longer
	}
}

func (m *meter) clear() {
	if m.line != "" {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}

// watch returns what a request about an app answers. Meanwhile it tells a person how
// many of the app's VMs run, and what is waited for behind that. Scripts do not see it.
func (s *session) watch(ctx context.Context, c *client.Client, app string, wait time.Duration, request func() (wire.App, error)) (wire.App, error) {
	if !terminal(s.stderr) {
		return request()
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		line := &meter{w: s.stderr}
		defer line.clear()
		for rest := pollEvery; sleep(ctx, rest); {
			began := time.Now()
			now, err := c.App(ctx, app)
			if err != nil {
				continue // it is not there yet, or the request says what is wrong
			}
			line.show(howFar(now, wait))
			rest = max(pollEvery, 20*time.Since(began))
		}
	}()
	answer, err := request()
	stop()
	<-done
	return answer, err
}

// howFar says how far an app is on its way to its scale.
func howFar(app wire.App, wait time.Duration) string {
	if app.Running > app.Scale { // scaled down, or attachments are among them
		return fmt.Sprintf("%s: %s run, %d wanted", app.Name, count(app.Running, "VM"), app.Scale)
	}
	text := fmt.Sprintf("%s: %d of %s run", app.Name, app.Running, count(app.Scale, "VM"))
	if wait > 0 && app.Running == app.Scale {
		text += fmt.Sprintf("; waiting up to %s for the guests to answer", wait)
	}
	return text
}

// sleep waits, and reports whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
