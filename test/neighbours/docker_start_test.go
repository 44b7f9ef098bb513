package neighbours_test

import (
	"archive/tar"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"zwrm/test/zwrmtest"
)

// docker is the real dockerd with its containerd, and with files, mounts, processes
// and control groups of its own.
type docker struct {
	host   *zwrmtest.Host
	dir    string
	shell  *program // whose children are all of Docker's processes
	daemon *program
}

const (
	// containerImage is busybox and nothing else.
	containerImage = "box"
	// controlGroups mounts the hierarchies of control groups as the machine has them:
	// those of version 1, or the one of version 2 (cgroups(7), /proc/pid/cgroup).
	controlGroups = `
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /sys/fs/cgroup
while IFS=: read -r number controllers path; do
	case $controllers in
	'') continue ;;
	name=*) folder=${controllers#name=} options=none,$controllers ;;
	*) folder=$controllers options=$controllers ;;
	esac
	mkdir "/sys/fs/cgroup/$folder"
	mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/$folder"
done </proc/self/cgroup
[ -n "$(ls /sys/fs/cgroup)" ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
`
	// sandbox makes everything private that Docker would leave something in, and keeps
	// settings of the whole machine from being written. When it is ready it makes the
	// file $1.
	sandbox = `set -e
mount -t proc proc /proc
mount --bind /proc/sys/kernel /proc/sys/kernel
mount -o remount,bind,ro /proc/sys/kernel` + controlGroups + `
touch "$1"
exec "$0" -s -- sleep infinity
`
	// forget removes the control groups of a name, which is $0.
	forget = `set -e` + controlGroups + `
find /sys/fs/cgroup -depth -type d -path "*/$0*" -exec rmdir {} +
`
)

// startDocker starts dockerd in the network of a host, and returns when it answers.
// With the test end its containers, and all that it made.
func startDocker(t testing.TB, host *zwrmtest.Host, args ...string) *docker {
	t.Helper()
	dir, err := os.MkdirTemp(host.Dir, "docker")
	must(t, err)
	d := &docker{host: host, dir: dir}
	must(t, os.WriteFile(filepath.Join(dir, "daemon.json"), []byte("{}"), 0o644)) // not the machine's
	t.Cleanup(func() { d.forget(t) })
	ready := filepath.Join(dir, "ready")
	d.shell = launch(t, host, nil, "unshare", "--pid", "--fork", "--kill-child",
		"/bin/sh", "-c", sandbox, unpacked(t, "usr/bin/tini-static"), ready)
	eventually(t, "Docker has a place to run in", func() bool {
		_, err := os.Stat(ready)
		return err == nil
	})
	d.start(t, args...)
	d.cli(t, "import", boxImage(t, dir), containerImage)
	return d
}

// forget removes the control groups, when the processes in them have ended.
func (d *docker) forget(t testing.TB) {
	t.Helper()
	eventually(t, "the control groups of Docker are gone", func() bool {
		p := launch(t, d.host, nil, "/bin/sh", "-c", forget, d.group())
		<-p.ended
		return p.cmd.ProcessState.Success()
	})
}

// group is the name of the control groups of all containers.
func (d *docker) group() string { return "zwrm-" + filepath.Base(filepath.Dir(d.dir)) }

// inside returns the command that runs another among Docker's processes.
func (d *docker) inside(command ...string) []string {
	spaces := fmt.Sprintf("/proc/%d/ns/", d.shell.cmd.Process.Pid)
	return append([]string{"nsenter", "--mount=" + spaces + "mnt", "--pid=" + spaces + "pid_for_children", "--"}, command...)
}

// start starts dockerd, and returns when it answers.
func (d *docker) start(t testing.TB, args ...string) {
	t.Helper()
	bin := filepath.Dir(unpacked(t, "usr/bin/containerd"))
	env := []string{"PATH=" + filepath.Dir(unpacked(t, "usr/sbin/dockerd")) + ":" + bin + ":" + os.Getenv("PATH")}
	command := append([]string{"dockerd", "--config-file", filepath.Join(d.dir, "daemon.json"), "--host", "unix://" + d.socket(),
		"--data-root", filepath.Join(d.dir, "data"), "--exec-root", filepath.Join(d.dir, "exec"),
		"--pidfile", filepath.Join(d.dir, "pid"), "--cgroup-parent", "/" + d.group()}, args...)
	d.daemon = launch(t, d.host, env, d.inside(command...)...)
	eventually(t, "Docker answers", func() bool {
		select {
		case <-d.daemon.ended:
			t.Fatal("dockerd ended")
		default:
		}
		return d.answers(t)
	})
}

func (d *docker) socket() string { return filepath.Join(d.dir, "sock") }

func (d *docker) answers(t testing.TB) bool {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.socket())
		},
		DisableKeepAlives: true,
	}}
	resp, err := client.Get("http://docker/_ping")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// stop stops dockerd, and with it its containers, as systemd does.
func (d *docker) stop(t testing.TB) { d.end(t, "-TERM") }

// kill ends dockerd as a crash does. Its containers run on.
func (d *docker) kill(t testing.TB) { d.end(t, "-KILL") }

// end sends a signal. The process id is one of the namespace that is entered.
func (d *docker) end(t testing.TB, signal string) {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(d.dir, "pid"))
	must(t, err)
	<-launch(t, d.host, nil, d.inside("kill", signal, strings.TrimSpace(string(pid)))...).ended
	<-d.daemon.ended
}

// restart restarts dockerd.
func (d *docker) restart(t testing.TB) {
	t.Helper()
	d.stop(t)
	d.start(t)
}

// cli runs the command docker, which must succeed, and returns its answer.
func (d *docker) cli(t testing.TB, args ...string) string {
	t.Helper()
	r := d.try(t, args...)
	if r.Status != 0 {
		t.Fatalf("docker %s: exit status %d: %s", strings.Join(args, " "), r.Status, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// try runs the command docker.
func (d *docker) try(t testing.TB, args ...string) zwrmtest.Result {
	t.Helper()
	command := append([]string{"--config", d.dir, "--host", "unix://" + d.socket()}, args...)
	return zwrmtest.Try(t, d.host.Namespace, unpacked(t, "usr/bin/docker"), command...)
}

// serve runs a container that says its name to everybody who connects to a port of
// the host. It comes back whenever dockerd does.
func (d *docker) serve(t testing.TB, name, port string) {
	t.Helper()
	d.cli(t, "run", "--detach", "--restart=always", "--stop-signal=KILL", "--name", name, "--publish", port+":80", containerImage,
		"/busybox", "nc", "-ll", "-p", "80", "-e", "/busybox", "echo", name)
}

// boxImage makes the file system of the image.
func boxImage(t testing.TB, dir string) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	must(t, err)
	program, err := os.ReadFile(busybox)
	must(t, err)
	path := filepath.Join(dir, "box.tar")
	file, err := os.Create(path)
	must(t, err)
	defer file.Close()
	archive := tar.NewWriter(file)
	must(t, archive.WriteHeader(&tar.Header{Name: "busybox", Mode: 0o755, Size: int64(len(program))}))
	_, err = archive.Write(program)
	must(t, err)
	must(t, archive.Close())
	return path
}
