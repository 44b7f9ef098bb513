package unit_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"zwrm/test/zwrmtest"
)

// writable is the environment variable by which the test binary stands in for
// systemd: it takes on what the unit says, and becomes the program of its arguments.
// It names the folder that stands for StateDirectory and RuntimeDirectory.
const writable = "ZWRM_UNIT_WRITABLE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writable); dir != "" {
		fmt.Fprintln(os.Stderr, "unit:", becomeConfined(dir, os.Args[1:]))
		os.Exit(1)
	}
	zwrmtest.Main(m)
}

// confined has zwrmd started as the unit does.
func confined(t *testing.T, dir string) func(cmd *exec.Cmd) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	return func(cmd *exec.Cmd) {
		cmd.Args = append([]string{self, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = self
		cmd.Env = append(cmd.Env, writable+"="+dir)
	}
}

func becomeConfined(dir string, command []string) error {
	runtime.LockOSThread()
	u, err := readUnit(unitFile)
	if err != nil {
		return err
	}
	filter, err := u.filter() // before this cannot run programs any more
	if err == nil {
		err = u.mounts(dir)
	}
	if err == nil {
		err = u.limits()
	}
	if err == nil {
		err = u.capabilities()
	}
	if err == nil {
		err = seccomp.LoadFilter(filter)
	}
	if err != nil {
		return err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, writable+"=") })
	return unix.Exec(command[0], command, env)
}

// mounts is ProtectSystem=strict with its exceptions, ProtectProc=invisible and
// ProtectKernelTunables=yes.
func (u unit) mounts(dir string) error {
	for key, value := range map[string]string{"ProtectSystem": "strict", "ProtectProc": "invisible", "ProtectKernelTunables": "yes", "ProtectHome": "read-only"} {
		if got := strings.Join(u[key], " "); got != value {
			return fmt.Errorf("the unit has %s=%s: this test imitates %q", key, got, value)
		}
	}
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = unix.Mount("proc", "/proc", "proc", 0, "hidepid=invisible")
	}
	open := append([]string{dir}, u["ReadWritePaths"]...)
	for _, path := range append([]string{"/dev", "/sys", "/proc/sys"}, open...) {
		if err == nil {
			err = unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, "")
		}
	}
	readOnly := func(path string, set, clear uint64) {
		if err == nil {
			err = unix.MountSetattr(-1, path, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: set, Attr_clr: clear})
			if err != nil {
				err = fmt.Errorf("mount_setattr %q: %w", path, err)
			}
		}
	}
	readOnly("/", unix.MOUNT_ATTR_RDONLY, 0)
	for _, path := range append([]string{"/dev", "/proc"}, open...) {
		readOnly(path, 0, unix.MOUNT_ATTR_RDONLY)
	}
	readOnly("/proc/sys", unix.MOUNT_ATTR_RDONLY, 0)
	readOnly("/proc/sys/net", 0, unix.MOUNT_ATTR_RDONLY)
	if err == nil {
		err = os.Chdir("/")
	}
	return err
}

func (u unit) limits() error {
	unix.Umask(0o077)
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}

// capabilities drops from the bounding set what the unit does not have, so that the
// program gets just the rest.
func (u unit) capabilities() error {
	keep := map[int]bool{}
	for _, name := range u["CapabilityBoundingSet"] {
		number, ok := capabilityNumbers()[name]
		if !ok {
			return fmt.Errorf("no capability is named %q", name)
		}
		keep[number] = true
	}
	for number := 0; number <= unix.CAP_LAST_CAP; number++ {
		if keep[number] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", number, err)
		}
	}
	return nil
}

func capabilityNumbers() map[string]int {
	return map[string]int{
		"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW, "CAP_SETUID": unix.CAP_SETUID, "CAP_SETGID": unix.CAP_SETGID,
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "CAP_KILL": unix.CAP_KILL, "CAP_SYS_PTRACE": unix.CAP_SYS_PTRACE,
	}
}

// newNamespaces are the flags of clone and unshare that RestrictNamespaces=yes refuses.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// filter is SystemCallFilter, SystemCallErrorNumber=EPERM, RestrictAddressFamilies,
// RestrictNamespaces and NoNewPrivileges.
func (u unit) filter() (seccomp.Filter, error) {
	var none seccomp.Filter
	info, err := arch.GetInfo("")
	if err != nil {
		return none, err
	}
	allowed, err := u.systemCalls()
	if err != nil {
		return none, err
	}
	var names []string
	for _, name := range allowed {
		_, known := info.SyscallNames[name]
		// execve belongs to @default; these are judged by their arguments below.
		if known && !slices.Contains([]string{"socket", "clone", "clone3", "unshare", "setns"}, name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	conditions := []seccomp.NameWithConditions{}
	when := func(name string, operation seccomp.Operation, value uint64) {
		conditions = append(conditions, seccomp.NameWithConditions{Name: name, Conditions: []seccomp.Condition{{Argument: 0, Operation: operation, Value: value}}})
	}
	families := map[string]uint64{"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_NETLINK": unix.AF_NETLINK}
	for _, family := range u["RestrictAddressFamilies"] {
		number, ok := families[family]
		if !ok {
			return none, fmt.Errorf("no address family is named %q", family)
		}
		when("socket", seccomp.Equal, number)
	}
	when("clone", seccomp.BitsNotSet, newNamespaces)
	when("unshare", seccomp.BitsNotSet, newNamespaces)
	return seccomp.Filter{NoNewPrivs: true, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}}, // callers then take clone
			{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: conditions},
		},
	}}, nil
}

// seen returns a field of a process's status.
func seen(t *testing.T, pid int, field string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status"))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), "\n"+field+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.Join(strings.Fields(line), " ")
}
