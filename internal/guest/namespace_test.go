package guest

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// childOf tells a test binary which test it was started for by ownNamespaces.
const childOf = "ZWRM_GUEST_TEST"

// ownNamespaces runs the calling test once more in namespaces of its own and
// reports true there. In the parent it passes on how the child did and reports
// false. The machine's own network, mounts and host name are never touched.
// Making namespaces takes root: without, the test fails and is not skipped.
func ownNamespaces(t *testing.T) bool {
	t.Helper()
	if os.Getenv(childOf) == t.Name() {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), childOf+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS,
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in namespaces of its own (needs root): %v\n%s", err, out)
	}
	return false
}
