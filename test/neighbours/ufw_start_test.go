package neighbours_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zwrm/test/zwrmtest"
)

// ufw is the real one, with files of its own.
type ufw struct {
	host *zwrmtest.Host
	root string // folder that has the files below / that are ufw's
}

// startUfw installs ufw for a host, allows ssh and enables it. Settings are lines of its
// defaults, as in `DEFAULT_INPUT_POLICY="REJECT"`. What it leaves behind is in the host's
// network alone.
func startUfw(t testing.TB, host *zwrmtest.Host, settings ...string) *ufw {
	t.Helper()
	root, err := os.MkdirTemp(host.Dir, "ufw")
	must(t, err)
	u := &ufw{host, root}
	// The package has its rules below /usr/share/ufw, and copies them when it is installed.
	for from, to := range map[string]string{
		"etc/ufw":                "etc/ufw",
		"lib/ufw":                "lib/ufw",
		"usr/share/ufw/iptables": "etc/ufw",
		"usr/share/ufw":          "usr/share/ufw",
	} {
		must(t, os.CopyFS(filepath.Join(root, to), os.DirFS(unpacked(t, from))))
	}
	copyFile(t, unpacked(t, "usr/share/ufw/ufw.conf"), filepath.Join(root, "etc/ufw/ufw.conf"))
	copyFile(t, unpacked(t, "etc/default/ufw"), filepath.Join(root, "etc/default/ufw"))
	u.configure(t, append([]string{"IPT_SYSCTL=" + filepath.Join(root, "etc/ufw/sysctl.conf")}, settings...)...)
	u.cmd(t, "allow", "22/tcp") // its first rule has it write its files in another way than they came
	u.enable(t)
	return u
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(to), 0o755))
	must(t, os.WriteFile(to, content, 0o644))
}

// configure changes lines of the defaults, for the next reload.
func (u *ufw) configure(t testing.TB, settings ...string) {
	t.Helper()
	file := filepath.Join(u.root, "etc/default/ufw")
	text, err := os.ReadFile(file)
	must(t, err)
	lines := strings.Split(string(text), "\n")
	for _, setting := range settings {
		key, _, _ := strings.Cut(setting, "=")
		for i, line := range lines {
			if strings.HasPrefix(line, key+"=") {
				lines[i] = setting
			}
		}
	}
	must(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644))
}

func (u *ufw) enable(t testing.TB)  { u.cmd(t, "--force", "enable") }
func (u *ufw) disable(t testing.TB) { u.cmd(t, "disable") }
func (u *ufw) reload(t testing.TB)  { u.cmd(t, "reload") }

// cmd runs the command ufw, which must succeed, and returns its answer.
func (u *ufw) cmd(t testing.TB, args ...string) string {
	t.Helper()
	command := append([]string{
		"PYTHONPATH=" + unpacked(t, "usr/lib/python3/dist-packages"), "PYTHONDONTWRITEBYTECODE=1",
		"/usr/bin/python3", unpacked(t, "usr/sbin/ufw"), "--rootdir=" + u.root, "--datadir=" + u.root}, args...)
	return zwrmtest.Run(t, u.host.Namespace, "env", command...)
}
