package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"zwrm/internal/model"
	"zwrm/internal/wire"
)

// DefaultSocket is where zwrmd listens when nobody configured it.
const DefaultSocket = "/run/zwrm/zwrmd.sock"

// dialTimeout bounds the connect to the socket, which a zwrmd that is stopped
// (SIGSTOP) with a full backlog would hold up for ever. Answers have no bound:
// a deploy takes as long as its VMs.
const dialTimeout = 5 * time.Second

// maxProblem bounds what is read of an answer that is no success, in bytes.
const maxProblem = 64 << 10

// Client is a client of one zwrmd. Its methods return a *Problem when zwrmd
// refuses or fails, and an *UnreachableError when there is no zwrmd to ask.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a Client of the zwrmd that listens on the socket. It does not
// connect yet.
func New(socket string) *Client {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &Client{
		socket: socket,
		http: &http.Client{
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return dialer.DialContext(ctx, "unix", socket)
				},
				DisableCompression: true, // it would hold a console back
			},
			// The API redirects nowhere; following would repeat a request elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close ends the connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call sends body, unless it is nil, and decodes the answer into out, unless that
// is nil.
func (c *Client) call(ctx context.Context, method, path string, body, out any) error {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read the answer of zwrmd: %w", err)
	}
	return nil
}

// send returns the answer of a request that succeeded.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		content = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://zwrm"+path, content)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readProblem(resp)
}

// explain says what an error of the transport means to the user.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return unreachable(c.socket, op.Err)
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the made-up http://zwrm
	}
	return fmt.Errorf("zwrmd ended the connection before it answered: %w", err)
}

// readProblem returns the problem document of an answer. What is none came from
// something else than zwrmd, or from one that is too old to know the path.
func readProblem(resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return fmt.Errorf("read the answer of zwrmd: %w", err)
	}
	problem := &Problem{}
	if json.Unmarshal(data, &problem.Problem) != nil || problem.Code == "" {
		return &Problem{wire.Problem{
			Title: resp.Status, Status: resp.StatusCode, Code: string(model.Internal),
			Detail: fmt.Sprintf("the socket answers %q, which is not how zwrmd refuses", resp.Status),
			Hint:   "does another program listen on it?",
		}}
	}
	return problem
}

// path puts names into a path of the API. A name that is no DNS label is refused
// here, since "a/b" or ".." would make another path.
func path(format string, names ...string) (string, error) {
	for _, name := range names {
		if _, err := model.ParseName(name); err != nil {
			return "", &Problem{wire.Problem{Code: string(model.Invalid), Detail: err.Error()}}
		}
		format = strings.Replace(format, "{}", name, 1)
	}
	return format, nil
}
