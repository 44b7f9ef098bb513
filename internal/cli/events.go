package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"zwrm/internal/wire"
)

func (s *session) eventsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened lately: to apps and VMs, and what was mended",
		Long: `Show what happened lately, the oldest first: what became of apps and VMs, what of
the network was not as it should be and was mended, who changed it and how long it
lasted, and who changes it again and again. zwrmd remembers the last 1,000 or so since
it started; its log has them all.

As JSON each event is one line.`,
		Example: "  zwrm events -f",
		GroupID: groupNetwork,
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if follow {
				err := s.client().FollowEvents(cmd.Context(), s.event)
				if errors.Is(err, context.Canceled) {
					return nil // interrupting is how one ends it
				}
				return err
			}
			events, err := s.client().Events(cmd.Context())
			if err != nil {
				return err
			}
			for _, e := range events {
				if err := s.event(e); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	return cmd
}

// event writes one event as a line of its own: nobody knows how wide the next is.
func (s *session) event(e wire.Event) error {
	line := describeEvent(e)
	if s.output == formatJSON {
		data, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		line = string(data)
	}
	if _, err := fmt.Fprintln(s.stdout, line); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

func describeEvent(e wire.Event) string {
	line := fmt.Sprintf("%s  %-6s  %s: %s", moment(e.At), cell(e.Kind), cell(e.Object), oneLine(e.Message))
	if e.Kind == "repair" || e.Kind == "fight" {
		line += "; by " + culprits(e.By)
	}
	if e.TookMS > 0 {
		took := time.Duration(e.TookMS * float64(time.Millisecond))
		line += ", mended after " + took.Round(time.Millisecond).String()
	}
	return line
}

// culprits returns processes in words.
func culprits(by []wire.Culprit) string {
	var words []string
	for _, c := range by {
		switch {
		case c.PID == 0:
			words = append(words, cell(c.Program))
		case c.Program == "":
			words = append(words, fmt.Sprintf("process %d", c.PID))
		default:
			words = append(words, fmt.Sprintf("%s (%d)", cell(c.Program), c.PID))
		}
	}
	if len(words) == 0 {
		return "unknown"
	}
	return strings.Join(words, ", ")
}
