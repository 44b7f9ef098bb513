package install_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"zwrm/test/zwrmtest"
)

// TestNoTrace is a whole life: install, zwrmd, guests that run, attachments, drift, a
// kill, a stop, uninstall, purge. After that the host's network is what it was, and so
// is every file of its root file system, which is one of its own. In between, uninstall
// keeps what took work and nothing else.
func TestNoTrace(t *testing.T) {
	for _, dataplane := range []string{"iptables", "nftables"} {
		for _, onShutdown := range []string{"clean", "keep"} {
			t.Run(dataplane+" "+onShutdown, func(t *testing.T) {
				unix.Umask(0o022)
				r := newRoot(t)
				r.Foreign(t)
				network, tree := r.network(t), r.tree(t)
				r.script(t, "install")
				r.live(t, dataplane, onShutdown)
				if out := r.script(t, "uninstall"); !strings.Contains(out, "kept /var/lib/zwrm") {
					t.Errorf("uninstall does not say what it keeps:\n%s", out)
				}
				r.sameNetwork(t, network)
				for _, line := range r.added(t, tree) {
					if !strings.Contains(line, " /var/lib/zwrm") {
						t.Errorf("uninstall leaves %s", line)
					}
				}
				r.script(t, "purge")
				r.sameNetwork(t, network)
				if after := r.tree(t); after != tree {
					t.Errorf("the root file system changed:\n%s", zwrmtest.Changes(tree, after))
				}
			})
		}
	}
}

// root is a host with a root file system of its own, which is a layer over that of the
// machine.
type root struct {
	*zwrmtest.Host
	dir   string // where it is seen
	upper string // where its changes are
}

// repository is where the root file system has this repository.
const repository = "/mnt"

func newRoot(t *testing.T) root {
	t.Helper()
	h := zwrmtest.NewHost(t)
	scratch := t.TempDir()
	mount(t, "tmpfs", scratch, "tmpfs", "")
	r := root{h, filepath.Join(h.Dir, "root"), filepath.Join(scratch, "upper")}
	work := filepath.Join(scratch, "work")
	for _, dir := range []string{r.dir, r.upper, work} {
		must(t, os.Mkdir(dir, 0o755))
	}
	mount(t, "overlay", r.dir, "overlay", fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", r.upper, work))
	here, err := filepath.Abs("../..")
	must(t, err)
	for from, to := range map[string]string{here: repository, "/dev": "/dev", "/proc": "/proc"} {
		bind(t, from, r.dir+to)
	}
	// That of the machine shows another network.
	h.Do(t, func() { mount(t, "sysfs", r.dir+"/sys", "sysfs", "") })
	return r
}

// network is everything in the host's network that ZWRM may change, and the tables of
// nftables, of which Dump shows those that iptables can read.
func (r root) network(t *testing.T) string {
	t.Helper()
	return r.Dump(t) + r.Run(t, "nft", "list", "tables")
}

func (r root) sameNetwork(t *testing.T, before string) {
	t.Helper()
	if after := r.network(t); after != before {
		t.Errorf("the host's network changed:\n%s", zwrmtest.Changes(before, after))
	}
}

func bind(t *testing.T, from, to string) {
	t.Helper()
	must(t, unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""))
	t.Cleanup(func() { must(t, unix.Unmount(to, unix.MNT_DETACH)) })
}

// script runs install.sh, which is what make install runs once all is built.
func (r root) script(t *testing.T, action string) string {
	t.Helper()
	return r.Run(t, "chroot", r.dir, repository+"/scripts/install.sh", action)
}

// live has the installed zwrmd do all that leaves traces.
func (r root) live(t *testing.T, dataplane, onShutdown string) {
	t.Helper()
	d := r.NewDaemon(t, nil)
	d.Config, d.Socket = config, r.dir+"/run/zwrm/zwrmd.sock"
	d.Prepare = func(cmd *exec.Cmd) {
		cmd.Path, cmd.Dir = "/usr/local/sbin/zwrmd", "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir}
		cmd.Env = append(cmd.Env, "ZWRM_NETWORK_BRIDGE_ENABLED=true",
			"ZWRM_NETWORK_FIREWALL="+dataplane, "ZWRM_NETWORK_ON_SHUTDOWN="+onShutdown)
	}
	d.Start(t)
	d.Must(t, "image", "add", "small", "--kernel", r.image(t, "kernel"), "--initrd", r.image(t, "initrd"))
	d.Must(t, "deploy", "web", "--image", "small", "--scale", "2", "--wait", "--timeout", "3m")
	d.Must(t, "attach", "mine", "--app", "web")
	d.Must(t, "scale", "web", "1")
	mine := d.VMs(t)[0]
	r.Run(t, "ip", "link", "del", mine.TAP)
	d.Must(t, "network", "repair")
	if out := r.Try(t, "uninstall"); out.Status == 0 || !strings.Contains(out.Stderr, "there are VMs") {
		t.Errorf("uninstall does not mind that there are VMs: %+v", out)
	}
	d.Kill()
	if out := r.Try(t, "uninstall"); out.Status == 0 || !strings.Contains(out.Stderr, "there are TAPs of VMs") {
		t.Errorf("uninstall does not mind that there are TAPs: %+v", out)
	}
	d.Start(t)
	d.Must(t, "destroy", "web")
	d.Must(t, "image", "rm", "small")
	d.Stop(t)
}

// image returns the path of a file of the guest image inside the root file system.
func (r root) image(t *testing.T, name string) string {
	t.Helper()
	here, err := filepath.Abs("../..")
	must(t, err)
	path, err := filepath.Rel(here, zwrmtest.Image(t, name))
	must(t, err)
	return filepath.Join(repository, path)
}

// Try runs install.sh, which may fail.
func (r root) Try(t *testing.T, action string) zwrmtest.Result {
	t.Helper()
	return zwrmtest.Try(t, r.Namespace, "chroot", r.dir, repository+"/scripts/install.sh", action)
}

// tree returns all that differs from the machine's root file system, a line for each
// file: mode, owner, path, and for what has content a sum of it. Left out is what is
// touched and left as it was, and what the tools for /etc/group keep for themselves.
func (r root) tree(t *testing.T) string {
	t.Helper()
	tools := map[string]bool{"/etc/.pwd.lock": true, "/etc/group-": true, "/etc/gshadow-": true}
	var out strings.Builder
	must(t, filepath.WalkDir(r.upper, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(path, r.upper), "/")
		is, err := describe(path)
		if err != nil || tools[name] {
			return err
		}
		if was, err := describe(name); err != nil || was != is {
			fmt.Fprintf(&out, "%s %s\n", is, name)
		}
		return nil
	}))
	return out.String()
}

// added returns the lines that a tree has and an earlier one had not.
func (r root) added(t *testing.T, earlier string) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(r.tree(t)) {
		if !strings.Contains(earlier, line) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
