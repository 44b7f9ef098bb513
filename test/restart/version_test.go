package restart_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"zwrm/internal/config"
	"zwrm/test/zwrmtest"
)

// TestVersionsInTurn: a newer zwrmd brings the database to its schema and keeps a copy
// of the old one. The older zwrmd then refuses, says why, and changes nothing; VMs lose
// no packet all the while. With the copy in place, the older one goes on where it was.
func TestVersionsInTurn(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	keep := settings(config.Iptables)
	keep["network.on_shutdown"] = `"keep"`
	d := h.NewDaemon(t, keep)
	older, newer := zwrmtest.Binary(t, "zwrmd"), buildNewer(t, h.Dir)
	use := func(program string) { d.Prepare = func(cmd *exec.Cmd) { cmd.Path = program } }
	d.Start(t)
	zwrmtest.Serve(t, h.Outside, "tcp/80")
	a, b := d.Guest(t, "web-0", "web"), d.Guest(t, "web-1", "web")
	carriers(t, h)
	before, rules := fmt.Sprint(d.VMs(t)), h.Dump(t)
	stream := zwrmtest.NewStream(t, "udp", a.Namespace, b.Namespace, netip.AddrPortFrom(b.Address(), 7000))
	stream.Flows(t, "before", 100)

	d.Stop(t)
	use(newer)
	d.Start(t)
	stream.Flows(t, "with the newer version", 100)
	if now := fmt.Sprint(d.VMs(t)); now != before {
		t.Errorf("the newer version has VMs\n%s\nand the older had\n%s", now, before)
	}
	backup := d.Database + ".v1.bak"
	if _, err := os.Stat(backup); err != nil {
		t.Errorf("there is no copy of the older database: %v", err)
	}
	h.Same(t, rules)

	d.Stop(t)
	whole := hash(t, d.Database)
	use(older)
	r := d.Run(t)
	if r.Status != 1 {
		t.Errorf("the older version ended with status %d", r.Status)
	}
	want := "database is of version 2, this zwrmd knows up to 1: install the newer zwrmd"
	if !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, d.Database) {
		t.Errorf("the older version does not say %q and which database, but\n%s", want, r.Stderr)
	}
	if hash(t, d.Database) != whole {
		t.Error("the older version wrote to the database")
	}
	h.Same(t, rules)
	stream.Flows(t, "after the older version refused", 100)

	use(newer)
	d.Start(t)
	d.Attach(t, "web-2", "web")
	d.Kill() // a stop leaves less

	for _, suffix := range []string{"-wal", "-shm"} { // as docs/upgrade.md says
		must(t, os.Remove(d.Database+suffix))
	}
	must(t, os.Rename(backup, d.Database))
	use(older)
	d.Start(t)
	if now := fmt.Sprint(d.VMs(t)); now != before {
		t.Errorf("with its copy back the older version has VMs\n%s\nand had\n%s", now, before)
	}
	stream.Flows(t, "with the older version again", 100)
	asks(t, "with the older version again", a.Namespace, outsider())
	stream.Lost(t)
}

// buildNewer builds a zwrmd of this source whose database has one more migration.
func buildNewer(t *testing.T, dir string) (program string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	must(t, err)
	schema := filepath.Join(root, "internal/store/schema.go")
	text, err := os.ReadFile(schema)
	must(t, err)
	list := regexp.MustCompile(`return \[\]string\{([^}]+)\}`)
	if n := len(list.FindAll(text, -1)); n != 1 {
		t.Fatalf("%s has %d lists of migrations, want 1", schema, n)
	}
	text = list.ReplaceAll(text, []byte("return []string{$1, `ALTER TABLE app ADD COLUMN note TEXT NOT NULL DEFAULT ''`}"))
	changed, overlay := filepath.Join(dir, "schema.go"), filepath.Join(dir, "overlay.json")
	must(t, os.WriteFile(changed, text, 0o600))
	files, err := json.Marshal(map[string]map[string]string{"Replace": {schema: changed}})
	must(t, err)
	must(t, os.WriteFile(overlay, files, 0o600))
	program = filepath.Join(dir, "newer")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-trimpath", "-ldflags", "-s -w", "-o", program, "./cmd/zwrmd")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the newer zwrmd: %v\n%s", err, out)
	}
	return program
}
