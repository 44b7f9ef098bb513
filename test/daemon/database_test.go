package daemon_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"zwrm/test/zwrmtest"
)

// TestBadDatabase: zwrmd does not start on a database that is not as it left it,
// says what is wrong, and changes neither the database nor the network.
func TestBadDatabase(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(t *testing.T, path string)
		says  []string
	}{
		{"of a newer version", func(t *testing.T, path string) {
			// The user version is at byte 60 (https://sqlite.org/fileformat.html#the_database_header).
			change(t, path, 60, binary.BigEndian.AppendUint32(nil, 9999))
		}, []string{"version 9999", "install the newer zwrmd"}},
		{"of another program", func(t *testing.T, path string) {
			change(t, path, 68, []byte("abcd")) // the application id
		}, []string{"the database of another program", "[database]"}},
		{"damaged", func(t *testing.T, path string) {
			change(t, path, 4096, bytes.Repeat([]byte{0xff}, 8192))
		}, []string{"damaged", "a copy from before"}},
		{"no database", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, bytes.Repeat([]byte("not SQL\n"), 1000), 0o600))
		}, []string{"no database", "move the file away"}},
		{"a folder", func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, os.Mkdir(path, 0o700))
		}, []string{"no regular file"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := zwrmtest.NewHost(t)
			h.Foreign(t)
			d := h.Start(t, private())
			d.Attach(t, "one", "web")
			d.Attach(t, "two", "web")
			d.Stop(t)
			test.spoil(t, d.Database)
			before, content := h.Dump(t), contentOf(d.Database)
			r := d.Run(t)
			if r.Status != failed {
				t.Errorf("exit status %d, want %d", r.Status, failed)
			}
			contains(t, "stderr", r.Stderr, append(test.says, d.Database)...)
			h.Same(t, before)
			if !bytes.Equal(content, contentOf(d.Database)) {
				t.Error("the database changed")
			}
		})
	}
}

// contentOf returns a file's bytes, nil of a folder.
func contentOf(path string) []byte {
	text, _ := os.ReadFile(path)
	return text
}

// change overwrites a part of a file.
func change(t *testing.T, path string, at int64, with []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer file.Close()
	_, err = file.WriteAt(with, at)
	must(t, err)
}

// TestDatabaseOutOfReach: a database in a place where nobody can write.
func TestDatabaseOutOfReach(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.NewDaemon(t, zwrmtest.Settings{"database.path": `"/proc/zwrm/state.db"`})
	before := h.Dump(t)
	r := d.Run(t)
	if r.Status != failed {
		t.Errorf("exit status %d, want %d", r.Status, failed)
	}
	contains(t, "stderr", r.Stderr, "/proc/zwrm")
	h.Same(t, before)
}

// TestSecondDaemon: one database has one zwrmd. The second says who has it, and
// the first is not disturbed.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	first := h.Start(t, private())
	guest := first.Guest(t, "one", "web")
	second := h.NewDaemon(t, zwrmtest.Settings{"network.bridge.enabled": "true", "database.path": `"` + first.Database + `"`})
	before := h.Dump(t)
	r := second.Run(t)
	if r.Status != failed {
		t.Errorf("exit status %d, want %d", r.Status, failed)
	}
	contains(t, "stderr", r.Stderr, first.Database, fmt.Sprintf("pid %d", first.PID()), "stop that one first")
	h.Same(t, before)
	if err := guest.Ping(guest.Gateway()); err != nil {
		t.Errorf("the first one's guest is cut off: %v", err)
	}
}

// TestSubnetChanged: the subnet cannot change while VMs have addresses of it, and
// nothing is lost by the attempt.
func TestSubnetChanged(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	d := h.Start(t, private())
	vm := d.Attach(t, "one", "web")
	d.Stop(t)
	before := h.Dump(t)
	d.Configure(t, zwrmtest.Settings{"network.bridge.enabled": "true", "network.subnet": `"172.20.0.0/16"`})
	r := d.Run(t)
	if r.Status != failed {
		t.Errorf("exit status %d, want %d", r.Status, failed)
	}
	contains(t, "stderr", r.Stderr, `network.subnet = "172.20.0.0/16"`, "was 172.16.0.0/16", "set it back")
	h.Same(t, before)

	d.Configure(t, private())
	d.Start(t)
	if got := d.VMs(t); len(got) != 1 || got[0].GuestIP != vm.GuestIP {
		t.Errorf("after it was set back there is %v, want %v", got, vm)
	}
	d.Must(t, "detach", "one")
	d.Stop(t)
	d.Configure(t, zwrmtest.Settings{"network.bridge.enabled": "true", "network.subnet": `"172.20.0.0/16"`})
	d.Start(t)
	if got := d.Attach(t, "one", "web").Prefix; got != "172.20.0.0/30" && got != "172.20.0.4/30" {
		t.Errorf("without VMs the subnet changed, but a VM gets %s", got)
	}
}
