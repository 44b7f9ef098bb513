package daemon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"zwrm/internal/wire"
	"zwrm/test/zwrmtest"
)

// small is a host with room for four VMs, of which one is taken, and an image whose
// kernel is none.
func small(t *testing.T) *zwrmtest.Daemon {
	t.Helper()
	h := zwrmtest.NewHost(t)
	h.Foreign(t)
	d := h.Start(t, zwrmtest.Settings{"network.bridge.enabled": "true", "network.subnet": `"172.16.0.0/28"`})
	d.Attach(t, "mine", "web")
	kernel := filepath.Join(h.Dir, "kernel")
	must(t, os.WriteFile(kernel, []byte("\x7fELF, and no kernel at all\n"), 0o644))
	d.Must(t, "image", "add", "junk", "--kernel", kernel)
	return d
}

// TestBadRequest: zwrm says what is wrong, ends with status 1, or 2 when the command
// line itself is wrong, and neither rows nor the network have changed.
func TestBadRequest(t *testing.T) {
	t.Parallel()
	d := small(t)
	tests := []struct {
		command string
		status  int
		says    []string
	}{
		{"deploy shop --image nosuch", 1, []string{`no image named "nosuch"`, "zwrm image ls"}},
		{"image add x --kernel /nonexistent/vmlinuz", 1, []string{"/nonexistent/vmlinuz", "no such file"}},
		{"image add x --kernel /", 1, []string{`"/"`}},
		{"image rm nosuch", 1, []string{`no image named "nosuch"`}},

		// Names are no paths, options or commands.
		{"deploy ../shop --image junk", 1, []string{`name "../shop" has '.'`}},
		{"deploy shop,driver=x --image junk", 1, []string{`name "shop,driver=x" has ','`}},
		{"deploy $(reboot) --image junk", 1, []string{`name "$(reboot)" has '$'`}},
		{"deploy shop --image ../junk", 1, []string{`name "../junk" has '.'`}},
		{"image rm ../images/junk", 1, []string{`name "../images/junk" has '.'`}},
		{"image add .. --kernel /proc/version", 1, []string{`name ".." has '.'`}},
		{"logs ../../state.db", 1, []string{`name "../../state.db" has '.'`}},
		{"attach ../mine --app web", 1, []string{`name "../mine" has '.'`}},
		{"image add x --kernel kernel,script=/bin/sh", 1, []string{"kernel,script=/bin/sh", "no such file"}},

		{"deploy Shop --image junk", 1, []string{`name "Shop" has 'S'`, "a-z, 0-9"}},
		{"deploy shop_1 --image junk", 1, []string{`name "shop_1" has '_'`}},
		{"deploy shop- --image junk", 1, []string{`name "shop-" begins or ends with "-"`}},
		{"deploy " + strings.Repeat("a", 64) + " --image junk", 1, []string{"has 64 characters", "at most 63"}},
		{"deploy " + strings.Repeat("a", 62) + " --image junk", 1, []string{"the VMs of app", "too long names", "-3"}},
		{"attach one --app Web", 1, []string{`name "Web" has 'W'`}},
		{"attach One --app web", 1, []string{`name "One" has 'O'`}},
		{"attach mine --app web", 1, []string{`VM "mine" exists already`}},
		{"detach nosuch", 1, []string{`"nosuch"`}},
		{"destroy nosuch", 1, []string{`no app named "nosuch"`, "zwrm apps"}},
		{"scale nosuch 1", 1, []string{`no app named "nosuch"`}},
		{"restart mine", 1, []string{`"mine" is an attachment`}},

		{"deploy shop --image junk --scale -1", 2, []string{"scale -1 is below 0"}},
		{"scale web -1", 2, []string{"scale -1 is below 0"}},
		{"deploy shop --image junk --scale 4", 1, []string{"4 more VMs do not fit", "3 of the subnet's blocks are free", "172.16.0.0/28 holds 4 VMs"}},
		{"deploy shop --image junk --scale 5", 1, []string{"scale 5 is past the capacity of subnet 172.16.0.0/28, which is 4 VMs", "3 are free"}},
		{"deploy shop --image junk --scale 1000000000", 1, []string{"past the capacity", "3 are free"}},
		{"deploy shop --image junk --memory 31M", 1, []string{"memory of 31 MiB is out of range", "32 to"}},
		{"deploy shop --image junk --memory 1025G", 1, []string{"is out of range"}},
		{"deploy shop --image junk --memory lots", 2, []string{`memory "lots" is not a size`}},
		{"deploy shop --image junk --cpus 65", 1, []string{"65 CPUs are out of range", "1 to 64"}},
		{"deploy shop --image junk --cpus 0", 2, []string{"0 CPUs are too few"}},

		// A VMM that dies at once: its own words are in the answer.
		{"deploy shop --image junk --scale 3", 1, []string{`start VM "shop-`, "qemu"}},
	}
	before, rows := d.Host.Dump(t), d.Must(t, "ps")
	for _, test := range tests {
		t.Run(test.command, func(t *testing.T) {
			r := d.Zwrm(t, strings.Fields(test.command)...)
			if r.Status != test.status || r.Stdout != "" {
				t.Errorf("exit status %d, want %d; stdout %q", r.Status, test.status, r.Stdout)
			}
			contains(t, "stderr", r.Stderr, test.says...)
			d.Settle(t)
			d.Host.Same(t, before)
			if got := d.Must(t, "ps"); got != rows {
				t.Errorf("zwrm ps answers\n%swhere it was\n%s", got, rows)
			}
			if got := d.Must(t, "apps"); strings.Contains(got, "shop") {
				t.Errorf("an app is left:\n%s", got)
			}
		})
	}
}

// TestNegativeScale: what zwrm does not let through, the API refuses as well.
func TestNegativeScale(t *testing.T) {
	t.Parallel()
	d := small(t)
	for _, request := range []struct{ method, path, body string }{
		{http.MethodPatch, "/v1/apps/web", `{"scale":-1}`},
		{http.MethodPost, "/v1/apps", `{"name":"shop","image":"junk","scale":-1}`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), request.method, "http://zwrm"+request.path, strings.NewReader(request.body))
		must(t, err)
		req.Header.Set("Content-Type", "application/json")
		resp, err := d.HTTP().Do(req)
		must(t, err)
		defer resp.Body.Close()
		var problem wire.Problem
		must(t, json.NewDecoder(resp.Body).Decode(&problem))
		if resp.StatusCode < 400 || resp.StatusCode >= 500 || problem.Code != "invalid" || !strings.Contains(problem.Detail, "scale") {
			t.Errorf("%s %s: %d %+v", request.method, request.path, resp.StatusCode, problem)
		}
	}
}

// TestHugeBody: 100 MB on the socket are refused, with and without a length said
// before, and zwrmd does not hold them in memory.
func TestHugeBody(t *testing.T) {
	t.Parallel()
	d := zwrmtest.NewHost(t).Start(t, nil)
	before := peakMemory(t, d.PID())
	for _, length := range []string{"Content-Length: 104857600", "Transfer-Encoding: chunked"} {
		t.Run(length, func(t *testing.T) {
			var dialer net.Dialer
			conn, err := dialer.DialContext(t.Context(), "unix", d.Socket)
			must(t, err)
			defer conn.Close()
			_, err = fmt.Fprintf(conn, "POST /v1/apps HTTP/1.1\r\nHost: zwrm\r\nContent-Type: application/json\r\n%s\r\n\r\n", length)
			must(t, err)
			go sendHuge(t.Context(), conn, strings.HasPrefix(length, "Transfer"))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			defer resp.Body.Close()
			var problem wire.Problem
			must(t, json.NewDecoder(resp.Body).Decode(&problem))
			if resp.StatusCode != http.StatusRequestEntityTooLarge || problem.Code != "too_large" {
				t.Errorf("answer is %d %+v", resp.StatusCode, problem)
			}
		})
	}
	if grown := peakMemory(t, d.PID()) - before; grown > 32<<10 {
		t.Errorf("zwrmd took %d KiB more memory", grown)
	}
	d.Must(t, "apps")
}

// sendHuge sends 100 MB, or as much as is taken.
func sendHuge(ctx context.Context, conn net.Conn, chunked bool) {
	const size = 64 << 10
	text := strings.Repeat(" ", size)
	if chunked {
		text = fmt.Sprintf("%x\r\n%s\r\n", size, text)
	}
	for range 100 << 20 / size {
		if _, err := conn.Write([]byte(text)); err != nil || ctx.Err() != nil {
			return // refused
		}
	}
}

// peakMemory returns the most memory that a process has had, in KiB.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	field := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if field == nil {
		t.Fatalf("no VmHWM in\n%s", text)
	}
	n, err := strconv.Atoi(string(field[1]))
	must(t, err)
	return n
}

// TestNoDaemon: without zwrmd, zwrm says so with a status of its own.
func TestNoDaemon(t *testing.T) {
	t.Parallel()
	d := zwrmtest.NewHost(t).NewDaemon(t, nil)
	r := d.Zwrm(t, "apps")
	if r.Status != 3 {
		t.Errorf("exit status %d, want 3", r.Status)
	}
	contains(t, "stderr", r.Stderr, "no zwrmd answers", d.Socket)
}
