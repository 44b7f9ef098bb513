package store

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// roleVariable makes the test binary another process, such as a second zwrmd.
const roleVariable = "ZWRM_STORE_TEST_ROLE"

func TestMain(m *testing.M) {
	role, path, _ := strings.Cut(os.Getenv(roleVariable), ":")
	var err error
	switch role {
	case "":
		os.Exit(m.Run())
	case "hold":
		err = hold(path)
	case "storm":
		err = storm(path)
	case "nobody":
		err = openAsNobody(path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// hold keeps the database open until it is killed or its input ends.
func hold(path string) error {
	if _, err := Open(context.Background(), path, nil); err != nil {
		return err
	}
	fmt.Println("open")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// storm creates VMs from four goroutines and says which, until it is killed.
func storm(path string) error {
	s, err := Open(context.Background(), path, nil)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for g := range 4 {
		go func() {
			for i := 0; ; i++ {
				app := testApp(fmt.Sprintf("storm-%d-%d", g, i))
				slot := ipam.Slot(g<<16 + i)
				app, vms, err := s.Create(context.Background(), app, []model.VM{testVM(app.Name, 0, slot)})
				if err != nil {
					failed <- err
					return
				}
				// One write(2) of a whole line: a kill leaves no half of one.
				fmt.Printf("%d %s %d\n", app.ID, vms[0].Name, slot)
			}
		}()
	}
	return <-failed
}

// openAsNobody opens the database without the rights of root and prints the
// error. It says so as well when there was none.
func openAsNobody(path string) error {
	if os.Geteuid() == 0 {
		const nobody = 65534
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
			return err
		}
	}
	_, err := Open(context.Background(), path, nil)
	fmt.Println(err)
	return nil
}

// start runs the test binary in a role, and ends it with the test.
func start(t *testing.T, role, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role+":"+path)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return cmd, bufio.NewScanner(out)
}

// kill ends the process as a crash would, and returns what it had still said.
func kill(t *testing.T, cmd *exec.Cmd, out *bufio.Scanner) []string {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var rest []string
	for out.Scan() {
		rest = append(rest, out.Text())
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("process ended by itself before it was killed")
	}
	return rest
}

func testPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "zwrm", "state.db")
}

// mustOpen opens a database and closes it at the end of the test, unless the
// test did.
func mustOpen(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustClose(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustCreate(t *testing.T, s *Store, app model.App, vms ...model.VM) (model.App, []model.VM) {
	t.Helper()
	app, vms, err := s.Create(t.Context(), app, vms)
	if err != nil {
		t.Fatal(err)
	}
	return app, vms
}

func mustState(t *testing.T, s *Store) State {
	t.Helper()
	state, err := s.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testTime has nanoseconds and a zone, which the database must keep and drop.
func testTime() time.Time {
	return time.Date(2026, 11, 23, 14, 0, 0, 123456789, time.FixedZone("CET", 3600))
}

func testApp(name string) model.App {
	return model.App{
		Name:      model.Name(name),
		Spec:      model.Spec{Image: "debian", Scale: 3, MemoryMiB: 128, CPUs: 2},
		CreatedAt: testTime(),
	}
}

func testVM(app model.Name, index int, slot ipam.Slot) model.VM {
	return model.VM{
		Name:      app.VMName(index),
		Slot:      slot,
		State:     model.Pending,
		Spec:      model.Spec{Image: "debian", MemoryMiB: 128, CPUs: 2},
		CreatedAt: testTime(),
	}
}

func ids(vms []model.VM) []model.VMID {
	var all []model.VMID
	for _, vm := range vms {
		all = append(all, vm.ID)
	}
	return all
}
