package vmm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"zwrm/internal/effect"
)

// guest writes on a console as QEMU does: with the file open all the time, and
// always at its end.
type guest struct {
	t    *testing.T
	file *os.File
}

func openGuest(t *testing.T, dir string) guest {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(dir, ConsoleLog), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return guest{t, file}
}

func (g guest) says(text string) {
	g.t.Helper()
	if _, err := g.file.WriteString(text); err != nil {
		g.t.Fatal(err)
	}
}

func contents(t *testing.T, dir string) (rotated, current string) {
	t.Helper()
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(data)
	}
	return read(rotatedLog), read(ConsoleLog)
}

func TestTrim(t *testing.T) {
	tests := []struct {
		name             string
		before           []string // written one after the other, each followed by a Trim to 10 bytes
		after            string   // written behind the last Trim
		rotated, current string
	}{
		{"nothing written", []string{""}, "", "", ""},
		{"below the limit", []string{"12345"}, "6", "", "123456"},
		{"at the limit", []string{"1234567890"}, "", "", "1234567890"},
		{"past the limit", []string{"abc1234567890"}, "d", "1234567890", "d"},
		{"grown past the limit", []string{"12345", "67890abc"}, "d", "4567890abc", "d"},
		{"twice", []string{"1234567890a", "bcdefghijklm"}, "n", "defghijklm", "n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			console, guest := NewConsole(dir), openGuest(t, dir)
			for _, text := range test.before {
				guest.says(text)
				if err := console.Trim(10, nil); err != nil {
					t.Fatal(err)
				}
			}
			guest.says(test.after)
			rotated, current := contents(t, dir)
			if rotated != test.rotated || current != test.current {
				t.Errorf("log is %q + %q, want %q + %q", rotated, current, test.rotated, test.current)
			}
		})
	}
}

// noRoom is a disk that has no room for a copy.
type noRoom struct{}

func (noRoom) Before(op effect.Op) error {
	if op == opCopyLog {
		return unix.ENOSPC
	}
	return nil
}

func (noRoom) After(effect.Op) {}

// TestTrimOnAFullDisk: the log is cut although nothing of it can be kept.
func TestTrimOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	console, guest := NewConsole(dir), openGuest(t, dir)
	guest.says("past the limit")
	if err := console.Trim(10, noRoom{}); err != nil {
		t.Fatal(err)
	}
	if rotated, current := contents(t, dir); rotated != "" || current != "" {
		t.Errorf("log is %q + %q, want nothing", rotated, current)
	}
}

func TestTrimWhileTheGuestWrites(t *testing.T) {
	dir := t.TempDir()
	console, guest := NewConsole(dir), openGuest(t, dir)
	const limit = 4 << 10
	line := strings.Repeat("x", 99) + "\n"
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				guest.says(line)
			}
		}
	})
	for range 100 {
		if err := console.Trim(limit, nil); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	writer.Wait()
	if err := console.Trim(limit, nil); err != nil {
		t.Fatal(err)
	}
	rotated, current := contents(t, dir)
	if size := len(rotated) + len(current); size > 2*limit+limit {
		t.Errorf("log has %d bytes with a limit of %d", size, limit)
	}
	if text := rotated + current; strings.Trim(text, "x\n") != "" {
		t.Errorf("log has bytes that nobody wrote: a hole where the cut was")
	}
}

func TestTrimBehindACrash(t *testing.T) {
	dir := t.TempDir()
	console, guest := NewConsole(dir), openGuest(t, dir)
	left := filepath.Join(dir, rotatedLog+".new")
	if err := os.WriteFile(left, []byte("half of a Trim that is longer than the next"), 0o600); err != nil {
		t.Fatal(err)
	}
	guest.says("1234567890abc")
	if err := console.Trim(10, nil); err != nil {
		t.Fatal(err)
	}
	if rotated, _ := contents(t, dir); rotated != "4567890abc" {
		t.Errorf("rotated log is %q", rotated)
	}
}

func TestConsoleDoesNotLeaveItsFolder(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("not for guests"), 0o600); err != nil {
		t.Fatal(err)
	}
	odd := []struct {
		name string
		make func(path string) error
	}{
		{"link", func(path string) error { return os.Symlink(outside, path) }},
		{"hard link", func(path string) error { return os.Link(outside, path) }},
		{"pipe", func(path string) error { return unix.Mkfifo(path, 0o600) }},
		{"folder", func(path string) error { return os.Mkdir(path, 0o700) }},
	}
	for _, test := range odd {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			console := NewConsole(dir)
			if err := test.make(filepath.Join(dir, ConsoleLog)); err != nil {
				t.Fatal(err)
			}
			var copied bytes.Buffer
			_, tailErr := console.Tail(1)
			for what, err := range map[string]error{
				"create": console.create(testUser(), nil),
				"Trim":   console.Trim(1, nil),
				"Copy":   console.Copy(t.Context(), &copied, false),
				"Tail":   tailErr,
			} {
				if err == nil {
					t.Errorf("%s took it", what)
				}
			}
			if copied.Len() > 0 {
				t.Errorf("Copy wrote %q", copied.String())
			}
			if kept, err := os.ReadFile(outside); err != nil || string(kept) != "not for guests" {
				t.Errorf("the file outside has %q, %v", kept, err)
			}
		})
	}
}

func TestTail(t *testing.T) {
	tests := []struct {
		name, rotated, current string
		want                   string // of the last 3 lines
	}{
		{"no log", "", "", ""},
		{"short", "", "one\n", "one"},
		{"last lines", "", "one\ntwo\nthree\nfour", "two\nthree\nfour"},
		{"with the rotated log", "one\ntwo\n", "three\nfour\n", "two\nthree\nfour"},
		{"line cut in two", "one\ntw", "o\nthree\n", "one\ntwo\nthree"},
		{"blank lines", "", "one\r\n\r\n\r\ntwo\r\n\n", "one\ntwo"},
		{"control characters", "", "\x1b]0;owned\x07 a\x00b \u009bc\n\xff\n", "]0;owned ab c\n?"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{rotatedLog: test.rotated, ConsoleLog: test.current} {
				if text == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := NewConsole(dir).Tail(3)
			if err != nil || got != test.want {
				t.Errorf("Tail = %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestTailOfLargeLog(t *testing.T) {
	dir := t.TempDir()
	openGuest(t, dir).says(strings.Repeat("a line\n", 100_000) + "the last\n")
	got, err := NewConsole(dir).Tail(2)
	if want := "a line\nthe last"; err != nil || got != want {
		t.Errorf("Tail = %q, %v, want %q", got, err, want)
	}
}

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	console, guest := NewConsole(dir), openGuest(t, dir)
	long := strings.Repeat("0123456789", 20_000) // more than one chunk
	guest.says(long)
	if err := console.Trim(int64(len(long))-1, nil); err != nil {
		t.Fatal(err)
	}
	guest.says("and more")
	var got bytes.Buffer
	if err := console.Copy(t.Context(), &got, false); err != nil {
		t.Fatal(err)
	}
	if want := long[1:] + "and more"; got.String() != want {
		t.Errorf("Copy wrote %d bytes, want %d", got.Len(), len(want))
	}
}

func TestCopyEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	openGuest(t, dir).says("text")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewConsole(dir).Copy(ctx, &bytes.Buffer{}, false); !errors.Is(err, context.Canceled) {
		t.Errorf("Copy: %v, want that the context ended", err)
	}
}

// transcript is what a follower has got since it was last asked.
type transcript struct {
	mu   sync.Mutex
	text string
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text += string(p)
	return len(p), nil
}

func (s *transcript) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.text
	s.text = ""
	return text
}

// TestFollow runs in a bubble, where the clock moves once every goroutine waits:
// after a pause the follower has seen all that was written before.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		console := NewConsole(dir)
		ctx, cancel := context.WithCancel(t.Context())
		var got transcript
		var failed error
		done := make(chan struct{})
		go func() {
			failed = console.Copy(ctx, &got, true)
			close(done)
		}()
		expect := func(what, want string) {
			t.Helper()
			time.Sleep(2 * pollEvery) // of the bubble's clock
			synctest.Wait()
			if got := got.take(); got != want {
				t.Errorf("%s: follower has %q, want %q", what, got, want)
			}
		}
		expect("no log yet", "")
		first := openGuest(t, dir)
		first.says("booting\n")
		expect("first lines", "booting\n")
		first.says("1234567890")
		expect("more", "1234567890")
		if err := console.Trim(10, nil); err != nil {
			t.Fatal(err)
		}
		expect("cut", "")
		first.says("after the cut\n")
		expect("written behind the cut", "after the cut\n")
		openGuest(t, dir).says("booting again\n")
		expect("VMM restarted", "booting again\n")
		if err := os.Remove(filepath.Join(dir, ConsoleLog)); err != nil {
			t.Fatal(err)
		}
		expect("log removed", "")
		openGuest(t, dir).says("new log\n")
		expect("log made anew", "new log\n")
		cancel()
		<-done
		if failed != nil {
			t.Errorf("Copy: %v, want no error when the context ends", failed)
		}
	})
}

// refuser takes no bytes, as a client that went away.
type refuser struct{}

func (refuser) Write([]byte) (int, error) { return 0, errors.New("client went away") }

func TestFollowEndsWithItsReader(t *testing.T) {
	dir := t.TempDir()
	openGuest(t, dir).says("text")
	err := NewConsole(dir).Copy(t.Context(), refuser{}, true)
	if err == nil || !strings.Contains(err.Error(), "client went away") {
		t.Errorf("Copy: %v, want that the reader went away", err)
	}
}

// FuzzTail: whatever a guest writes, its last lines can be shown to people.
func FuzzTail(f *testing.F) {
	f.Add([]byte("boot\r\n\x1b[2Jlogin: "), 2)
	f.Add([]byte("\xff\x00\n\n\n\u0085\u009b2J"), 1)
	f.Fuzz(func(t *testing.T, written []byte, n int) {
		if n < 0 || n > 100 {
			return
		}
		text := lastLines(written, n)
		if lines := strings.Count(text, "\n") + 1; text != "" && lines > n {
			t.Errorf("%d lines, want %d at most: %q", lines, n, text)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) {
			t.Errorf("control characters are left: %q", text)
		}
	})
}
