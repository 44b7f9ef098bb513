package effect

// Op names a kind of side effect, as in "host.set-group".
type Op string

// Hook is told of every side effect, by whichever goroutine has it.
type Hook interface {
	// Before is called right before the side effect. An error of it is taken for that
	// of the side effect, which does not happen.
	Before(op Op) error
	// After is called right after it, however it went, and before anybody knows.
	After(op Op)
}

// Do has the side effect. With a hook of nil that is all it does.
func Do(hook Hook, op Op, effect func() error) error {
	if hook == nil {
		return effect()
	}
	if err := hook.Before(op); err != nil {
		return err
	}
	err := effect()
	hook.After(op)
	return err
}
