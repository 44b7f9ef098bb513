package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// scope is what the helpers of tests, which make hosts and run zwrmd on them, want of a
// test. What they made ends with it.
type scope struct {
	testing.TB // for its private method; what is called of the others is below
	name       string
	log        io.Writer
	ctx        context.Context

	mu      sync.Mutex
	ends    []func()
	failure error
}

// in runs f, then all that f gave to Cleanup, and returns what f gave to Fatal.
func in(ctx context.Context, name string, log io.Writer, f func(t testing.TB)) error {
	ctx, end := context.WithCancel(ctx)
	s := &scope{name: name, log: log, ctx: ctx}
	s.apart(func() { f(s) })
	end()
	for len(s.ends) > 0 {
		last := s.ends[len(s.ends)-1]
		s.ends = s.ends[:len(s.ends)-1]
		s.apart(last)
	}
	if s.failure != nil {
		return fmt.Errorf("%s: %w", name, s.failure)
	}
	return nil
}

// apart runs f on a goroutine that FailNow may end.
func (s *scope) apart(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// Name is for testing.TB, as are all that follow.
func (s *scope) Name() string             { return s.name }
func (s *scope) Helper()                  {}
func (s *scope) Context() context.Context { return s.ctx }

func (s *scope) Cleanup(end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, end)
}

func (s *scope) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure != nil
}

func (s *scope) Fail() { s.Error("failed") }

func (s *scope) FailNow() {
	if !s.Failed() {
		s.Fail()
	}
	runtime.Goexit()
}

func (s *scope) Log(args ...any)                   { s.Logf("%s", strings.TrimSpace(fmt.Sprintln(args...))) }
func (s *scope) Logf(format string, args ...any)   { fmt.Fprintf(s.log, "  "+format+"\n", args...) }
func (s *scope) Errorf(format string, args ...any) { s.Error(fmt.Sprintf(format, args...)) }

func (s *scope) Error(args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = errors.Join(s.failure, errors.New(strings.TrimSpace(fmt.Sprintln(args...))))
}

func (s *scope) Fatal(args ...any) {
	s.Error(args...)
	runtime.Goexit()
}

func (s *scope) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	runtime.Goexit()
}
