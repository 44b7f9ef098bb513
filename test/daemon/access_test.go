package daemon_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"zwrm/internal/host/nstest"
	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// The numbers of the group zwrm, where the test makes it, and of members and others.
const (
	groupID    = 4700
	memberID   = 4701
	strangerID = 4702
)

// member runs zwrm as a user, in the group zwrm or not.
func member(t *testing.T, d *zwrmtest.Daemon, uid uint32, groups []uint32, args ...string) (string, error) {
	t.Helper()
	must(t, os.Chmod(filepath.Dir(d.Socket), 0o755)) // as /run/zwrm
	bin := zwrmtest.TempDir(t)
	program := filepath.Join(bin, "zwrm") // the folder of the tests may be root's
	text, err := os.ReadFile(zwrmtest.Binary(t, "zwrm"))
	must(t, err)
	must(t, os.WriteFile(program, text, 0o755))
	cmd := exec.CommandContext(t.Context(), program, append([]string{"--socket", d.Socket}, args...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	said, err := cmd.CombinedOutput()
	return string(said), err
}

// withGroup gives the tests' mounts an /etc/group of their own, with or without zwrm.
func withGroup(t *testing.T, there bool) {
	t.Helper()
	text, err := os.ReadFile("/etc/group")
	must(t, err)
	var lines strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "zwrm:") {
			lines.WriteString(line)
		}
	}
	if there {
		fmt.Fprintf(&lines, "zwrm:x:%d:\n", groupID)
	}
	own := filepath.Join(t.TempDir(), "group")
	must(t, os.WriteFile(own, []byte(lines.String()), 0o644))
	must(t, unix.Mount(own, "/etc/group", "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount("/etc/group", unix.MNT_DETACH)) })
}

// TestWhoMayUseTheSocket: root and the group zwrm, or root alone where there is no such
// group. In no moment is the socket open to others: its mode comes before its name.
func TestWhoMayUseTheSocket(t *testing.T) {
	if !nstest.Inside() {
		t.Fatal("the tests are not among mounts of their own")
	}
	for _, test := range []struct {
		name  string
		group bool
		mode  os.FileMode
		gid   uint32
	}{{"with the group", true, 0o660, groupID}, {"without it", false, 0o600, 0}} {
		t.Run(test.name, func(t *testing.T) {
			withGroup(t, test.group)
			umask := unix.Umask(0)
			d := zwrmtest.NewHost(t).Start(t, nil)
			unix.Umask(umask)
			info, err := os.Stat(d.Socket)
			must(t, err)
			stat := info.Sys().(*syscall.Stat_t)
			if info.Mode() != os.ModeSocket|test.mode || stat.Uid != 0 || stat.Gid != test.gid {
				t.Errorf("the socket is %d:%d's with mode %s", stat.Uid, stat.Gid, info.Mode())
			}
			said, err := member(t, d, memberID, []uint32{groupID}, "apps")
			if (err == nil) != test.group {
				t.Errorf("a member of the group zwrm: %v %s", err, said)
			}
			if said, err := member(t, d, strangerID, nil, "apps"); err == nil || !strings.Contains(said, "permission denied") {
				t.Errorf("another user: %v %s", err, said)
			}
		})
	}
}

// TestImageOfWhatOneMayRead: who may use the socket makes no image of a file that he
// may not read, and so does not see it in a VM.
func TestImageOfWhatOneMayRead(t *testing.T) {
	withGroup(t, true)
	d := zwrmtest.NewHost(t).Start(t, nil)
	dir := zwrmtest.TempDir(t)
	file := func(name string, uid int, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte("\x7fELF, and no kernel at all\n"), 0o600))
		must(t, errors.Join(os.Chown(path, uid, uid), os.Chmod(path, mode)))
		return path
	}
	open, own, root := file("open", 0, 0o644), file("own", memberID, 0o600), file("root", 0, 0o600)
	must(t, os.Symlink(root, filepath.Join(dir, "link")))
	groups := []uint32{groupID}
	for _, test := range []struct {
		name string
		args []string
		says string // empty: it is made
	}{
		{"everybody's", []string{"--kernel", open}, ""},
		{"his", []string{"--kernel", own, "--rootfs", open}, ""},
		{"roots", []string{"--kernel", root}, "permission denied"},
		{"shadow", []string{"--kernel", open, "--initrd", "/etc/shadow"}, "permission denied"},
		{"disk", []string{"--kernel", open, "--rootfs", root}, "permission denied"},
		{"link", []string{"--kernel", filepath.Join(dir, "link")}, "permission denied"},
		{"database", []string{"--kernel", open, "--initrd", d.Database}, "permission denied"},
		{"descriptor", []string{"--kernel", open, "--initrd", "/proc/self/environ"}, "permission denied"},
		{"proc", []string{"--kernel", open, "--initrd", "/proc/version"}, "is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := strings.ReplaceAll(test.name, "'", "")
			said, err := member(t, d, memberID, groups, append([]string{"image", "add", name}, test.args...)...)
			if (err == nil) != (test.says == "") || !strings.Contains(said, test.says) {
				t.Errorf("a member of the group: %v %s", err, said)
			}
			if made := strings.Contains(d.Must(t, "image", "ls"), name); made != (test.says == "") {
				t.Errorf("the image is there: %t", made)
			}
		})
	}
	d.Must(t, "image", "add", "by-root", "--kernel", root)
}

// remote is a zwrmd that listens on TCP, at the host's loopback.
func remote(t *testing.T) (*zwrmtest.Daemon, string) {
	t.Helper()
	h := zwrmtest.NewHost(t)
	token := filepath.Join(h.Dir, "token")
	must(t, os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600))
	d := h.Start(t, zwrmtest.Settings{"server.listen": `"127.0.0.1:8080"`, "server.token_file": `"` + token + `"`, "server.hosts": `["vms.example.com"]`})
	return d, "127.0.0.1:8080"
}

// dial connects to the host's TCP port from within the host.
func dial(t *testing.T, d *zwrmtest.Daemon, address string) net.Conn {
	t.Helper()
	var conn net.Conn
	var err error
	d.Host.Do(t, func() { conn, err = net.DialTimeout("tcp", address, 10*time.Second) })
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestRemote: real requests by TCP: who has no token, calls another name, comes from a
// web page or sends too much is refused, and hung up on.
func TestRemote(t *testing.T) {
	t.Parallel()
	d, address := remote(t)
	const auth = "Authorization: Bearer 0123456789abcdef\r\n"
	for _, test := range []struct {
		name, request string
		status        int
	}{
		{"right", "GET /v1/apps HTTP/1.1\r\nHost: localhost:8080\r\n" + auth + "\r\n", 200},
		{"configured name", "GET /v1/apps HTTP/1.1\r\nHost: vms.example.com\r\n" + auth + "\r\n", 200},
		{"no token", "GET /v1/apps HTTP/1.1\r\nHost: localhost\r\n\r\n", 401},
		{"no token for the document either", "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n", 401},
		{"wrong token", "GET /v1/apps HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer 0123456789abcdee\r\n\r\n", 401},
		{"profile", "GET /debug/pprof/goroutine HTTP/1.1\r\nHost: localhost\r\n" + auth + "\r\n", 404},
		{"another name", "GET /v1/apps HTTP/1.1\r\nHost: evil.example\r\n" + auth + "\r\n", 421},
		{"of a web page", "POST /v1/apps HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n" + auth + "\r\n", 403},
		{"of another site", "GET /v1/apps HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n" + auth + "\r\n", 403},
		{"long header", "GET /v1/apps HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", 431},
		{"long body", "POST /v1/apps HTTP/1.1\r\nHost: localhost\r\n" + auth + "Content-Length: 2000000\r\n\r\n", 413},
		{"two hosts", "GET /v1/apps HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n" + auth + "\r\n", 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := dial(t, d, address)
			_, _ = io.WriteString(conn, test.request) // one that is refused may not be read to its end
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != test.status {
				t.Errorf("got %s %s", resp.Status, body)
			}
			if hungUp := resp.Close; hungUp != (test.status != 200 && test.status != 404) {
				t.Errorf("%s, hung up: %t", resp.Status, hungUp)
			}
		})
	}
	t.Run("files", func(t *testing.T) {
		kernel := filepath.Join(d.Host.Dir, "kernel")
		must(t, os.WriteFile(kernel, []byte("\x7fELF, and no kernel at all\n"), 0o600))
		conn := dial(t, d, address)
		body := `{"name":"x","kernel":"` + kernel + `"}`
		_, err := fmt.Fprintf(conn, "POST /v1/images HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", auth, len(body), body)
		must(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		defer resp.Body.Close()
		var problem wire.Problem
		must(t, json.NewDecoder(resp.Body).Decode(&problem))
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(problem.Detail, "permission denied") {
			t.Errorf("a file of root's: %s %+v", resp.Status, problem)
		}
	})
	t.Run("rate", func(t *testing.T) {
		conn := dial(t, d, address)
		reader := bufio.NewReader(conn)
		for range 2000 {
			_, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"+auth+"\r\n")
			must(t, err)
			resp, err := http.ReadResponse(reader, nil)
			must(t, err)
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusTooManyRequests {
				d.Must(t, "apps") // the socket has no such limit
				return
			}
		}
		t.Error("2000 requests one behind the other were all answered")
	})
}

// TestProfiles: the socket has the profiles of zwrmd's goroutines, memory and time, for
// those who may use it; and of the rest of its paths none is lost.
func TestProfiles(t *testing.T) {
	t.Parallel()
	d := zwrmtest.NewHost(t).Start(t, nil)
	for path, want := range map[string]int{
		"/debug/pprof/":                     http.StatusOK,
		"/debug/pprof/heap":                 http.StatusOK,
		"/debug/pprof/goroutine":            http.StatusOK,
		"/debug/pprof/profile?seconds=1":    http.StatusOK,
		"/debug/pprof/trace?seconds=0.1":    http.StatusOK,
		"/debug/pprof/nothing":              http.StatusNotFound,
		"/debug/pprof":                      http.StatusNotFound,
		"/v1/apps":                          http.StatusOK,
		"/debug/pprof/../../v1/apps/nobody": http.StatusTemporaryRedirect, // to the path without dots
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://zwrm"+path, nil)
		must(t, err)
		resp, err := d.HTTP().Transport.RoundTrip(request)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		if resp.StatusCode != want || len(body) == 0 {
			t.Errorf("%s: %s, %d bytes", path, resp.Status, len(body))
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://zwrm/debug/pprof/heap", nil)
	must(t, err)
	request.Header.Set("Origin", "https://evil.example")
	resp, err := d.HTTP().Do(request)
	must(t, err)
	if must(t, resp.Body.Close()); resp.StatusCode != http.StatusForbidden {
		t.Errorf("of a web page: %s", resp.Status)
	}
}

// TestSlowClient: who sends his header byte by byte, or does not begin, is hung up on.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	d, address := remote(t)
	slow := dial(t, d, address)
	_, err := io.WriteString(slow, "GET /v1/apps HTTP/1.1\r\nHost: localhost\r\nX")
	must(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, slow)
		ended <- err
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for limit := time.After(time.Minute); ; {
		select {
		case <-ended:
			return
		case <-tick.C:
			_, _ = io.WriteString(slow, "x")
		case <-limit:
			t.Fatal("it is still connected after a minute")
		}
	}
}

// TestManyConnections: more connections than zwrmd takes do not end it, and when they
// are gone it answers.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	d, address := remote(t)
	var conns []net.Conn
	for range 1100 {
		conns = append(conns, dial(t, d, address))
	}
	d.Must(t, "apps") // the socket has its own
	if files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID())); err != nil || len(files) > 1024+100 {
		t.Errorf("zwrmd has %d descriptors, %v", len(files), err)
	}
	for _, conn := range conns {
		must(t, conn.Close())
	}
	conn := dial(t, d, address)
	_, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n")
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got %s", resp.Status)
	}
}

// TestSecretsOfOthers: zwrmd does not start with a token that others can read, nor with
// a socket that others could replace.
func TestSecretsOfOthers(t *testing.T) {
	t.Parallel()
	h := zwrmtest.NewHost(t)
	for _, test := range []struct {
		name string
		mode os.FileMode
		uid  int
		says string
	}{
		{"everybody may read it", 0o604, 0, "is no secret"},
		{"its group may write it", 0o660, 0, "is no secret"},
		{"another user's", 0o600, strangerID, "is no secret"},
	} {
		t.Run(test.name, func(t *testing.T) {
			token := filepath.Join(t.TempDir(), "token")
			must(t, os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600))
			must(t, errors.Join(os.Chown(token, test.uid, test.uid), os.Chmod(token, test.mode)))
			r := h.NewDaemon(t, zwrmtest.Settings{"server.listen": `"127.0.0.1:8080"`, "server.token_file": `"` + token + `"`}).Run(t)
			if r.Status != failed {
				t.Errorf("exit status %d", r.Status)
			}
			contains(t, "stderr", r.Stderr, test.says)
			if strings.Contains(r.Stderr, "0123456789abcdef") {
				t.Errorf("the token is shown: %s", r.Stderr)
			}
		})
	}
	t.Run("folder of the socket", func(t *testing.T) {
		dir := zwrmtest.TempDir(t)
		must(t, os.Chmod(dir, 0o777))
		r := h.NewDaemon(t, zwrmtest.Settings{"server.socket": `"` + dir + `/sock"`}).Run(t)
		if r.Status != failed {
			t.Errorf("exit status %d", r.Status)
		}
		contains(t, "stderr", r.Stderr, "others than root can replace files in folder", dir)
	})
}
