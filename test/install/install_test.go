package install_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/test/zwrmtest"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func TestMain(m *testing.M) { zwrmtest.Main(m) }

const (
	forward = "/proc/sys/net/ipv4/ip_forward"
	config  = "/etc/zwrm/config.toml"
)

// TestInstallAndUninstall: install puts its files and switches forwarding on at once;
// uninstall leaves every file and every setting as before.
func TestInstallAndUninstall(t *testing.T) {
	machine(t, "0")
	before := files(t, "/etc", "/usr/local")
	run(t, "make", "install")
	if got := read(t, forward); got != "1\n" {
		t.Errorf("ip_forward is %q after install", got)
	}
	golden(t, "testdata/files.txt", added(before, files(t, "/etc", "/usr/local")))
	if got, want := read(t, config), run(t, "/usr/local/sbin/zwrmd", "--generate-config"); got != want {
		t.Errorf("%s is not what --generate-config prints:\n%s", config, got)
	}
	if got := read(t, "/etc/sysctl.d/99-zwrmd.conf"); !strings.Contains(got, "\nnet.ipv4.ip_forward=1\n") {
		t.Errorf("the sysctl file does not switch forwarding on at the next boot:\n%s", got)
	}
	unit := read(t, "/usr/local/lib/systemd/system/zwrmd.service")
	if !strings.Contains(unit, "ExecStart=/usr/local/sbin/zwrmd --config "+config+"\n") || strings.Contains(unit, "@PREFIX") {
		t.Errorf("the unit does not start what was installed:\n%s", unit)
	}
	run(t, "/usr/local/bin/zwrm", "--version")
	run(t, "make", "uninstall")
	same(t, before, files(t, "/etc", "/usr/local"))
	if got := read(t, forward); got != "0\n" {
		t.Errorf("ip_forward is %q after uninstall, and was 0", got)
	}
}

// TestConfigurationStays: a configuration that is there already is kept by install,
// and one that is not as it was put is kept by uninstall.
func TestConfigurationStays(t *testing.T) {
	machine(t, "0")
	must(t, os.MkdirAll(filepath.Dir(config), 0o755))
	must(t, os.WriteFile(config, []byte("# mine\n"), 0o600))
	before := files(t, "/etc", "/usr/local")
	if out := run(t, "make", "install"); !strings.Contains(out, "kept "+config) {
		t.Errorf("install does not say that it keeps the configuration:\n%s", out)
	}
	if out := run(t, "make", "uninstall"); !strings.Contains(out, "kept "+config) {
		t.Errorf("uninstall does not say that it keeps the configuration:\n%s", out)
	}
	same(t, before, files(t, "/etc", "/usr/local"))
}

// TestPurge: purge also removes a configuration that was changed, and only names what
// that has elsewhere, since more may be there than ours.
func TestPurge(t *testing.T) {
	machine(t, "0")
	before := files(t, "/etc", "/usr/local")
	run(t, "make", "install")
	changed := strings.Replace(read(t, config), "/var/lib/zwrm/images", "/srv/images", 1)
	must(t, os.WriteFile(config, []byte(changed), 0o644))
	out := run(t, "make", "purge")
	if !strings.Contains(out, "left to you: /srv/images\n") || strings.Contains(out, "kept") || strings.Contains(out, "state.db") {
		t.Errorf("purge says:\n%s", out)
	}
	same(t, before, files(t, "/etc", "/usr/local"))
}

// TestForwardingStays: a host that forwarded before install does so after uninstall.
func TestForwardingStays(t *testing.T) {
	machine(t, "1")
	run(t, "make", "install")
	run(t, "make", "uninstall")
	if got := read(t, forward); got != "1\n" {
		t.Errorf("ip_forward is %q after uninstall, and was 1", got)
	}
}

// TestInstallTwice: an upgrade is an install over an install. Uninstall goes back to
// what was before the first.
func TestInstallTwice(t *testing.T) {
	machine(t, "0")
	before := files(t, "/etc", "/usr/local")
	run(t, "make", "install")
	installed := files(t, "/etc", "/usr/local")
	run(t, "make", "install")
	same(t, installed, files(t, "/etc", "/usr/local"))
	run(t, "make", "uninstall")
	same(t, before, files(t, "/etc", "/usr/local"))
	if got := read(t, forward); got != "0\n" {
		t.Errorf("ip_forward is %q after uninstall, and was 0", got)
	}
}

// TestDestdir: with DESTDIR, as in a package's build, all goes below it and the
// machine is left alone; PREFIX moves what is not in /etc.
func TestDestdir(t *testing.T) {
	machine(t, "0")
	before := files(t, "/etc", "/usr/local")
	dest := t.TempDir()
	run(t, "make", "install", "DESTDIR="+dest, "PREFIX=/usr")
	golden(t, "testdata/destdir.txt", strings.ReplaceAll(added(nil, files(t, dest)), dest, ""))
	if unit := read(t, dest+"/usr/lib/systemd/system/zwrmd.service"); !strings.Contains(unit, "ExecStart=/usr/sbin/zwrmd ") {
		t.Errorf("the unit does not start what was installed:\n%s", unit)
	}
	same(t, before, files(t, "/etc", "/usr/local"))
	if got := read(t, forward); got != "0\n" {
		t.Errorf("ip_forward is %q", got)
	}
	run(t, "make", "uninstall", "DESTDIR="+dest, "PREFIX=/usr")
	for path, what := range files(t, dest) {
		if !strings.HasPrefix(what, "d") {
			t.Errorf("uninstall leaves %s", path)
		}
	}
}

// machine puts a layer over /etc and /usr/local that the test may change, and sets
// forwarding. The running systemd is hidden: it is not for us to tell it anything.
func machine(t *testing.T, forwarding string) {
	t.Helper()
	unix.Umask(0o022)
	scratch := t.TempDir()
	mount(t, "tmpfs", scratch, "tmpfs", "")
	for i, dir := range []string{"/etc", "/usr/local"} {
		upper, work := fmt.Sprintf("%s/upper%d", scratch, i), fmt.Sprintf("%s/work%d", scratch, i)
		must(t, os.Mkdir(upper, 0o755))
		must(t, os.Mkdir(work, 0o755))
		mount(t, "overlay", dir, "overlay", fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work))
	}
	if _, err := os.Stat("/run/systemd"); err == nil {
		mount(t, "tmpfs", "/run/systemd", "tmpfs", "")
	}
	must(t, os.WriteFile(forward, []byte(forwarding), 0))
}

func mount(t *testing.T, source, target, kind, options string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, 0, options); err != nil {
		t.Fatalf("mount %s on %s: %v", kind, target, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", target, err)
		}
	})
}

// run runs a program in the folder of the repository and returns its stdout.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "MAKEFLAGS=") // those of the make that runs this test
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// files returns everything below the folders: path -> mode, owner and content. Left out are
// Go, which is large, and what the tools for /etc/group keep for themselves.
func files(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	skip := map[string]bool{"/usr/local/go": true, "/etc/.pwd.lock": true, "/etc/group-": true, "/etc/gshadow-": true}
	found := map[string]string{}
	for _, dir := range dirs {
		must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case skip[path] && entry.IsDir():
				return fs.SkipDir
			case skip[path]:
				return nil
			}
			found[path], err = describe(path)
			return err
		}))
	}
	return found
}

// describe returns mode, owner and content of a file.
func describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%s %d:%d", info.Mode(), stat.Uid, stat.Gid)
	switch {
	case info.Mode().IsRegular():
		content, err := os.ReadFile(path)
		return fmt.Sprintf("%s %x", text, sha256.Sum256(content)), err
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return text + " " + target, err
	case info.Mode()&fs.ModeDevice != 0: // in a layer, of 0:0, it says that a file was removed
		return fmt.Sprintf("%s %d", text, stat.Rdev), nil
	}
	return text, nil
}

// added lists the mode and path of what is new.
func added(before, after map[string]string) string {
	var out strings.Builder
	for _, path := range slices.Sorted(maps.Keys(after)) {
		if _, old := before[path]; !old && !strings.HasPrefix(after[path], "d") {
			mode, _, _ := strings.Cut(after[path], " ")
			fmt.Fprintf(&out, "%s %s\n", mode, path)
		}
	}
	return out.String()
}

func same(t *testing.T, before, after map[string]string) {
	t.Helper()
	for path := range after {
		if _, ok := before[path]; !ok {
			t.Errorf("%s is new", path)
		}
	}
	for path, was := range before {
		if is, ok := after[path]; !ok {
			t.Errorf("%s is gone", path)
		} else if is != was {
			t.Errorf("%s is not as before", path)
		}
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		must(t, os.WriteFile(path, []byte(got), 0o644))
	}
	if want := read(t, path); got != want {
		t.Errorf("%s (make golden writes it anew):\ngot:\n%swant:\n%s", path, got, want)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
