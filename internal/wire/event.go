package wire

import (
	"time"

	"zwrm/internal/event"
)

// OfEvent returns an event as it is told.
func OfEvent(e event.Event) Event {
	out := Event{At: e.At.UTC(), Kind: string(e.Kind), Object: e.Object, Message: e.Message, TookMS: float64(e.Took.Round(10*time.Microsecond)) / float64(time.Millisecond)}
	if len(e.By) > 0 {
		out.By = Culprits(e.By)
	}
	return out
}

// Culprits returns processes as they are told, never null.
func Culprits(by []event.Culprit) []Culprit {
	out := make([]Culprit, len(by))
	for i, c := range by {
		out[i] = Culprit{PID: c.PID, Program: c.Program}
	}
	return out
}
