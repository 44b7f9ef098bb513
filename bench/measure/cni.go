package measure

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"zwrm/bench/report"
	"zwrm/test/zwrmtest"
)

// tapPlugin puts a TAP behind what another plugin made, for a VMM.
const tapPlugin = "tc-redirect-tap"

// pluginFolders are where Debian has the plugins of CNI, and where others put theirs.
// CNI_PATH names others.
func pluginFolders() []string {
	folders := []string{"/usr/lib/cni", "/opt/cni/bin"}
	if path := os.Getenv("CNI_PATH"); path != "" {
		folders = append(filepath.SplitList(path), folders...)
	}
	return folders
}

func findPlugin(name string) (string, bool) {
	for _, folder := range pluginFolders() {
		if path, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return path, true
		}
	}
	return "", false
}

// cni is a chain of plugins of CNI, called through its library as container runtimes do.
type cni struct {
	label   string
	host    *zwrmtest.Host
	library *libcni.CNIConfig
	network *libcni.NetworkConfigList
	spaces  string // folder of network namespaces
}

// plugin returns the first plugin of a chain as JSON: each VM gets a network of a /16,
// and NAT.
func plugin(label, dir string) string {
	ipam := fmt.Sprintf(`"ipMasq": true, "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}`, dir)
	if label == report.CNIBridge {
		return `{"type": "bridge", "bridge": "cni0", "isGateway": true, ` + ipam + `}`
	}
	return `{"type": "ptp", ` + ipam + `}`
}

func newCNI(t testing.TB, label string) *cni {
	t.Helper()
	h := zwrmtest.NewHost(t)
	chain := plugin(label, filepath.Join(h.Dir, "ipam")) + `, {"type": "firewall"}`
	if label == report.CNITap {
		chain += fmt.Sprintf(`, {"type": %q}`, tapPlugin)
	}
	network, err := libcni.ConfListFromBytes(fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "bench", "plugins": [%s]}`, chain))
	must(t, err)
	c := &cni{label: label, host: h, network: network, spaces: filepath.Join(h.Dir, "netns"),
		library: libcni.NewCNIConfigWithCacheDir(pluginFolders(), filepath.Join(h.Dir, "cache"), nil)}
	must(t, os.Mkdir(c.spaces, 0o700))
	t.Cleanup(func() {
		entries, err := os.ReadDir(c.spaces)
		must(t, err)
		for _, entry := range entries {
			removeSpace(t, filepath.Join(c.spaces, entry.Name()))
		}
	})
	return c
}

func (c *cni) name() string { return c.label }
func (c *cni) pooled() bool { return false }

// attach does not count the making of the namespace, which is the runtime's. It stays
// behind a detach, since the kernel has much to do when one goes.
func (c *cni) attach(t testing.TB, n int) (took time.Duration) {
	t.Helper()
	vm := c.vm(n)
	if _, err := os.Stat(vm.NetNS); errors.Is(err, fs.ErrNotExist) {
		makeSpace(t, vm.NetNS)
	}
	c.host.Do(t, func() {
		start := time.Now()
		_, err := c.library.AddNetworkList(t.Context(), c.network, vm)
		took = time.Since(start)
		must(t, err)
	})
	return took
}

func (c *cni) detach(t testing.TB, n int) (took time.Duration) {
	t.Helper()
	vm := c.vm(n)
	c.host.Do(t, func() {
		start := time.Now()
		err := c.library.DelNetworkList(t.Context(), c.network, vm)
		took = time.Since(start)
		must(t, err)
	})
	return took
}

func (c *cni) vm(n int) *libcni.RuntimeConf {
	id := fmt.Sprintf("vm-%d", n)
	return &libcni.RuntimeConf{ContainerID: id, NetNS: filepath.Join(c.spaces, id), IfName: "eth0"}
}

// makeSpace makes a network namespace that has a path.
func makeSpace(t testing.TB, path string) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread, which is in the namespace, ends with this
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	must(t, <-made)
}

func removeSpace(t testing.TB, path string) {
	t.Helper()
	must(t, unix.Unmount(path, unix.MNT_DETACH))
	must(t, os.Remove(path))
}
