package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/internal/wire"
)

// openTerminal returns the two ends of a terminal: what is written to the first is
// read from the other.
func openTerminal(t *testing.T) (tty, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return tty, screen
}

// growing is a zwrmd whose app gets a VM with each look at it. A request for the app is
// answered when somebody has seen all of them.
func growing(t *testing.T, scale int) (socket string) {
	t.Helper()
	seen := make(chan struct{})
	running := 0
	mux := http.NewServeMux()
	change := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-seen:
		case <-r.Context().Done():
		}
		fmt.Fprintf(w, `{"name":"web","scale":%d,"running":%d}`, scale, scale)
	}
	mux.HandleFunc("POST /v1/apps", change)
	mux.HandleFunc("PATCH /v1/apps/web", change)
	mux.HandleFunc("GET /v1/apps/web", func(w http.ResponseWriter, _ *http.Request) {
		if running == 0 { // the first look is before the app is there
			running++
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprintf(w, `{"name":"web","scale":%d,"running":%d}`, scale, min(running, scale))
		if running++; running == scale+2 { // and once with all of them
			close(seen)
		}
	})
	socket = filepath.Join(socketDir(t), "zwrmd.sock")
	serve(t, socket, mux)
	return socket
}

// TestProgress: a terminal is told how many VMs run, on one line, which is gone when
// the answer comes.
func TestProgress(t *testing.T) {
	for _, command := range []string{"deploy web --image debian --scale 2 --wait", "scale web 2 --wait"} {
		tty, screen := openTerminal(t)
		var stdout bytes.Buffer
		args := append([]string{"--socket", growing(t, 2)}, strings.Fields(command)...)
		if status := Run(t.Context(), args, &stdout, tty, noEnv); status != exitDone || stdout.String() != "web: 2 VMs\n" {
			t.Errorf("%s: got %d %q", command, status, stdout.String())
		}
		fmt.Fprintln(tty, "end")
		got, err := bufio.NewReader(screen).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		const want = "\r" + `web: 1 of 2 VMs run` + "\x1b[K" +
			"\r" + `web: 2 of 2 VMs run; waiting up to 1m0s for the guests to answer` + "\x1b[K" +
			"\r\x1b[K" + "end\r\n"
		if got != want {
			t.Errorf("%s: the terminal shows %q, want %q", command, got, want)
		}
	}
}

// TestProgressOfFailure: the line is gone before the reason is told.
func TestProgressOfFailure(t *testing.T) {
	socket := filepath.Join(socketDir(t), "zwrmd.sock")
	looked := make(chan struct{}, 100)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/apps/web", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"name":"web","scale":9,"running":3}`)
		looked <- struct{}{}
	})
	mux.HandleFunc("PATCH /v1/apps/web", func(w http.ResponseWriter, _ *http.Request) {
		<-looked
		<-looked // by now the first line is shown
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"code":"failed","detail":"no more memory"}`)
	})
	serve(t, socket, mux)
	tty, screen := openTerminal(t)
	if status := Run(t.Context(), []string{"--socket", socket, "scale", "web", "9"}, io.Discard, tty, noEnv); status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	got, err := bufio.NewReader(screen).ReadString('\n')
	if want := "\rweb: 3 of 9 VMs run\x1b[K\r\x1b[Kzwrm: no more memory\r\n"; err != nil || got != want {
		t.Errorf("the terminal shows %q, %v, want %q", got, err, want)
	}
}

// TestNoProgress: what is no terminal is told nothing, and nobody looks.
func TestNoProgress(t *testing.T) {
	socket := filepath.Join(socketDir(t), "zwrmd.sock")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(http.ResponseWriter, *http.Request) { t.Error("somebody looks how far it is") })
	mux.HandleFunc("PATCH /v1/apps/web", func(w http.ResponseWriter, _ *http.Request) {
		sleep(t.Context(), 2*pollEvery)
		fmt.Fprint(w, `{"name":"web","scale":2,"running":2}`)
	})
	serve(t, socket, mux)
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if status := Run(t.Context(), []string{"--socket", socket, "scale", "web", "2"}, io.Discard, file, noEnv); status != exitDone {
		t.Errorf("exit status %d", status)
	}
	if info, err := file.Stat(); err != nil || info.Size() > 0 {
		t.Errorf("it was told %d bytes, %v", info.Size(), err)
	}
}

// TestHowFar: the guests are waited for when the VMs run, if at all.
func TestHowFar(t *testing.T) {
	for want, app := range map[string]wire.App{
		"web: 0 of 1 VM run":        {Name: "web", Scale: 1},
		"web: 999 of 1000 VMs run":  {Name: "web", Scale: 1000, Running: 999},
		"web: 1000 of 1000 VMs run": {Name: "web", Scale: 1000, Running: 1000},
		"web: 7 VMs run, 2 wanted":  {Name: "web", Scale: 2, Running: 7},
	} {
		if got := howFar(app, 0); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
