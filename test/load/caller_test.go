package load_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"zwrm/internal/wire"
)

func vm(i int) string  { return fmt.Sprintf("vm-%d", i) }
func app(i int) string { return fmt.Sprintf("app-%d", i/perApp) }

// caller is one client of the API, with a connection of its own.
type caller struct {
	http   *http.Client
	random *rand.Rand
	name   string
	made   []string // attachments of its own
	count  int
}

func newCaller(socket string, i int) *caller {
	var dialer net.Dialer
	return &caller{
		name:   fmt.Sprintf("c%d", i),
		random: rand.New(rand.NewPCG(uint64(i), 1)),
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", socket)
			},
		}},
	}
}

func (c *caller) close() { c.http.CloseIdleConnections() }

// ask sends a request, wants a status, and reads the answer into out.
func (c *caller) ask(ctx context.Context, request string, body any, status int, out any) error {
	method, path, _ := strings.Cut(request, " ")
	content := new(bytes.Buffer)
	if body != nil {
		if err := json.NewEncoder(content).Encode(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://zwrm"+path, content)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != status {
		return fmt.Errorf("%s: status %d, want %d: %.300s", request, resp.StatusCode, status, answer)
	}
	if out == nil {
		return nil
	}
	if text, ok := out.(*string); ok {
		*text = string(answer)
		return nil
	}
	return json.Unmarshal(answer, out)
}

// refused asks for what must be refused, with a code.
func (c *caller) refused(ctx context.Context, request string, body any, status int, code string) error {
	var problem wire.Problem
	err := c.ask(ctx, request, body, status, &problem)
	if err == nil && problem.Code != code {
		err = fmt.Errorf("%s: code %q, want %q", request, problem.Code, code)
	}
	return err
}

func (c *caller) attach(ctx context.Context, name, app string) error {
	return c.ask(ctx, "POST /v1/attachments", wire.Attach{Name: name, App: app}, http.StatusCreated, nil)
}

func (c *caller) detach(ctx context.Context, name string) error {
	return c.ask(ctx, "DELETE /v1/attachments/"+name, nil, http.StatusNoContent, nil)
}

// kind is one kind of request. The weight is how often it is asked among all.
type kind struct {
	name   string
	weight int
	ask    func(ctx context.Context, c *caller) error
}

func kinds() []kind {
	return []kind{
		{"get a VM", 30, func(ctx context.Context, c *caller) error {
			i, got := c.random.IntN(vms), wire.VM{}
			err := c.ask(ctx, "GET /v1/vms/"+vm(i), nil, http.StatusOK, &got)
			return wanted(err, got.Name == vm(i) && got.App == app(i), got)
		}},
		{"get an app", 10, func(ctx context.Context, c *caller) error {
			i, got := c.random.IntN(vms), wire.App{}
			err := c.ask(ctx, "GET /v1/apps/"+app(i), nil, http.StatusOK, &got)
			return wanted(err, got.Name == app(i) && got.Running >= perApp, got)
		}},
		{"list an app's VMs", 10, func(ctx context.Context, c *caller) error {
			var got []wire.VM
			err := c.ask(ctx, "GET /v1/vms?app="+app(c.random.IntN(vms)), nil, http.StatusOK, &got)
			return wanted(err, len(got) >= perApp, len(got))
		}},
		{"list all VMs", 1, func(ctx context.Context, c *caller) error {
			var got []wire.VM
			err := c.ask(ctx, "GET /v1/vms", nil, http.StatusOK, &got)
			return wanted(err, len(got) >= vms, len(got))
		}},
		{"list apps", 2, func(ctx context.Context, c *caller) error {
			var got []wire.App
			err := c.ask(ctx, "GET /v1/apps", nil, http.StatusOK, &got)
			return wanted(err, len(got) >= vms/perApp, len(got))
		}},
		{"attach", 5, func(ctx context.Context, c *caller) error { return c.attachOne(ctx) }},
		{"detach", 5, func(ctx context.Context, c *caller) error { return c.detachOne(ctx) }},
		{"network status", 3, func(ctx context.Context, c *caller) error {
			var got wire.NetworkStatus
			err := c.ask(ctx, "GET /v1/network", nil, http.StatusOK, &got)
			return wanted(err, got.Used >= vms, got)
		}},
		{"explain", 2, func(ctx context.Context, c *caller) error {
			i, got := c.random.IntN(vms-perApp), wire.Explanation{}
			request := fmt.Sprintf("GET /v1/network/explain?source=%s&destination=%s&port=80", vm(i), vm(i+perApp))
			err := c.ask(ctx, request, nil, http.StatusOK, &got)
			return wanted(err, got.Verdict == "drop" && got.Reason == "other-app", got)
		}},
		{"metrics", 2, func(ctx context.Context, c *caller) error {
			var got string
			err := c.ask(ctx, "GET /metrics", nil, http.StatusOK, &got)
			return wanted(err, strings.Contains(got, `zwrm_vms{state="running"}`), len(got))
		}},
		{"follow events", 1, func(ctx context.Context, c *caller) error { return c.follow(ctx) }},
		{"no such VM", 10, func(ctx context.Context, c *caller) error {
			return c.refused(ctx, "GET /v1/vms/nobody", nil, http.StatusNotFound, "not_found")
		}},
		{"taken name", 4, func(ctx context.Context, c *caller) error {
			i := c.random.IntN(vms)
			return c.refused(ctx, "POST /v1/attachments", wire.Attach{Name: vm(i), App: app(i)}, http.StatusConflict, "conflict")
		}},
		{"bad name", 4, func(ctx context.Context, c *caller) error {
			return c.refused(ctx, "POST /v1/attachments", wire.Attach{Name: "Not_A_Name", App: "app-0"}, http.StatusBadRequest, "invalid")
		}},
	}
}

// wanted makes an error of an answer that is not as it should be.
func wanted(err error, good bool, got any) error {
	if err == nil && !good {
		err = fmt.Errorf("the answer is %.300v", got)
	}
	return err
}

// atMost bounds the attachments of one caller. Freed slots rest for half a minute, so
// that not all of the subnet's can be in use in turn.
const atMost = 4

func (c *caller) attachOne(ctx context.Context) error {
	if len(c.made) == atMost {
		return c.detachOne(ctx)
	}
	name := fmt.Sprintf("%s-%d", c.name, c.count)
	c.count++
	err := c.attach(context.WithoutCancel(ctx), name, app(c.random.IntN(vms)))
	if err == nil {
		c.made = append(c.made, name)
	}
	return err
}

func (c *caller) detachOne(ctx context.Context) error {
	if len(c.made) == 0 {
		return c.attachOne(ctx)
	}
	name := c.made[0]
	c.made = c.made[1:]
	return c.detach(context.WithoutCancel(ctx), name)
}

// tidy takes back what is left of its own.
func (c *caller) tidy(ctx context.Context) error {
	for len(c.made) > 0 {
		if err := c.detachOne(ctx); err != nil {
			return err
		}
	}
	return nil
}

// follow listens for events until it is told that it is heard.
func (c *caller) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://zwrm/v1/events", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	return wanted(err, line == ": listening\n", line)
}

// run asks until ctx ends, and returns what came of it. What ctx broke off counts for
// nothing.
func (c *caller) run(ctx context.Context) *tally {
	var deck []kind
	for _, k := range kinds() {
		for range k.weight {
			deck = append(deck, k)
		}
	}
	out := &tally{}
	for ctx.Err() == nil {
		k := deck[c.random.IntN(len(deck))]
		began := time.Now()
		err := k.ask(ctx, c)
		if ctx.Err() == nil {
			out.note(k.name, time.Since(began), err)
		}
	}
	return out
}
