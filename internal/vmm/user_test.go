package vmm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestVMMHasNothingOfRoot looks at what the kernel says of a launched process.
func TestVMMHasNothingOfRoot(t *testing.T) {
	dir := t.TempDir()
	give(t, dir)
	user := testUser()
	user.Groups = []uint32{user.ID + 7}
	p, err := Launch(Command{Program: mustFind(t, "sleep"), Args: []string{"1000"}, Dir: dir, User: user, MaxFile: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill(context.Background())
	// prlimit becomes the program within the same process.
	awaitProgram(t, p, "sleep")
	proc := fmt.Sprintf("/proc/%d/", p.Identity().PID)
	status := read(t, proc+"status")
	id := fmt.Sprint(user.ID)
	for field, want := range map[string]string{
		"Uid": strings.Repeat(id+" ", 4), "Gid": strings.Repeat(id+" ", 4), "Groups": fmt.Sprint(user.ID + 7),
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Umask": "0077",
	} {
		_, rest, _ := strings.Cut(status, "\n"+field+":")
		line, _, _ := strings.Cut(rest, "\n")
		if got := strings.Join(strings.Fields(line), " "); got != strings.TrimSpace(want) {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	limits := read(t, proc+"limits")
	for name, want := range map[string]string{"Max core file size": "0 0", "Max open files": "1024 1024", "Max processes": "512 512", "Max file size": "1048576 1048576"} {
		_, rest, _ := strings.Cut(limits, name)
		if fields := strings.Fields(rest); len(fields) < 2 || fields[0]+" "+fields[1] != want {
			t.Errorf("%s: %.30q, want %s", name, rest, want)
		}
	}
	if got := strings.TrimSpace(read(t, proc+"oom_score_adj")); got != "200" {
		t.Errorf("oom_score_adj is %s", got)
	}
}

func awaitProgram(t *testing.T, p *Process, name string) {
	t.Helper()
	for range 1000 {
		if strings.TrimSpace(read(t, fmt.Sprintf("/proc/%d/comm", p.Identity().PID))) == name {
			return
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil)
	}
	t.Fatalf("process %d did not become %q", p.Identity().PID, name)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestZwrmdKeepsItsOwn: what a start renounces is not renounced for zwrmd.
func TestZwrmdKeepsItsOwn(t *testing.T) {
	umask := unix.Umask(0o022)
	defer unix.Umask(umask)
	awaitDone(t, launch(t, t.TempDir(), "true"))
	if got := unix.Umask(0o022); got != 0o022 {
		t.Errorf("umask became %#o", got)
	}
	// no_new_privs of this thread, which started nothing.
	if got, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || got != 0 {
		t.Errorf("no_new_privs became %d, %v", got, err)
	}
}

func TestNoVMMRunsAsRoot(t *testing.T) {
	if _, err := Launch(Command{Program: mustFind(t, "true"), Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "as root") {
		t.Errorf("Launch: %v", err)
	}
}

// TestVMMStaysInItsFolder: a VMM reaches its own folder, though not by its path, and
// nothing beside it.
func TestVMMStaysInItsFolder(t *testing.T) {
	root := filepath.Join(t.TempDir(), "vms")
	if err := os.Mkdir(root, 0o700); err != nil { // as zwrmd does
		t.Fatal(err)
	}
	own, other := filepath.Join(root, "1"), filepath.Join(root, "2")
	for _, dir := range []string{own, other} {
		if err := PrepareFolder(dir, testUser(), nil); err != nil { // even one of the same user
			t.Fatal(err)
		}
	}
	p, err := Launch(Command{
		Program: mustFind(t, "sh"), Dir: own, User: testUser(),
		Args: []string{"-c", "echo mine > file; cat file; cat ../2/console.log; cat " + own + "/file; ls .."},
	})
	if err != nil {
		t.Fatal(err)
	}
	awaitDone(t, p)
	said := read(t, filepath.Join(own, MessagesLog))
	if !strings.HasPrefix(said, "mine\n") || strings.Count(said, "Permission denied") != 3 || strings.Count(said, "mine") != 1 {
		t.Errorf("it said\n%s", said)
	}
	if found, err := Find(root); err != nil || len(found) != 0 {
		t.Errorf("Find = %v, %v", found, err)
	}
}
