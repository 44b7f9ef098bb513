package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"zwrm/internal/wire"
)

// Deploy creates or updates an app. A wait above 0 waits that long for every
// guest to answer.
func (c *Client) Deploy(ctx context.Context, app wire.Deploy, wait time.Duration) (wire.App, error) {
	return ask[wire.App](ctx, c, http.MethodPost, "/v1/apps"+waiting(wait), app)
}

// Scale changes how many VMs an app has. A wait above 0 waits that long for
// every guest to answer.
func (c *Client) Scale(ctx context.Context, app string, n int, wait time.Duration) (wire.App, error) {
	path, err := path("/v1/apps/{}", app)
	if err != nil {
		return wire.App{}, err
	}
	return ask[wire.App](ctx, c, http.MethodPatch, path+waiting(wait), wire.Scale{Scale: n})
}

// Destroy destroys an app with all its VMs.
func (c *Client) Destroy(ctx context.Context, app string) error {
	return c.at(ctx, http.MethodDelete, "/v1/apps/{}", app)
}

// Apps returns the apps.
func (c *Client) Apps(ctx context.Context) ([]wire.App, error) {
	return ask[[]wire.App](ctx, c, http.MethodGet, "/v1/apps", nil)
}

// App returns an app.
func (c *Client) App(ctx context.Context, name string) (wire.App, error) {
	path, err := path("/v1/apps/{}", name)
	if err != nil {
		return wire.App{}, err
	}
	return ask[wire.App](ctx, c, http.MethodGet, path, nil)
}

// VMs returns the VMs and attachments of an app; of all apps when app is empty.
func (c *Client) VMs(ctx context.Context, app string) ([]wire.VM, error) {
	return ask[[]wire.VM](ctx, c, http.MethodGet, vmsPath(app), nil)
}

func vmsPath(app string) string {
	if app == "" {
		return "/v1/vms"
	}
	return "/v1/vms?" + url.Values{"app": {app}}.Encode()
}

// CopyVMs writes to w what VMs returns, as zwrmd sends it: one JSON array.
func (c *Client) CopyVMs(ctx context.Context, app string, w io.Writer) error {
	resp, err := c.send(ctx, http.MethodGet, vmsPath(app), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("read the answer of zwrmd: %w", err)
	}
	return nil
}

// Restart restarts a VM.
func (c *Client) Restart(ctx context.Context, vm string) error {
	return c.at(ctx, http.MethodPost, "/v1/vms/{}/restart", vm)
}

// Console copies what a guest wrote to w; with follow it goes on until ctx ends
// or the VM is gone.
func (c *Client) Console(ctx context.Context, vm string, w io.Writer, follow bool) error {
	path, err := path("/v1/vms/{}/console", vm)
	if err != nil {
		return err
	}
	if follow {
		path += "?follow=true"
	}
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("console of %q broke off: %w", vm, err)
	}
	return nil
}

// Attach makes a network for a VMM that somebody else runs.
func (c *Client) Attach(ctx context.Context, attach wire.Attach) (wire.VM, error) {
	return ask[wire.VM](ctx, c, http.MethodPost, "/v1/attachments", attach)
}

// Detach removes an attachment.
func (c *Client) Detach(ctx context.Context, name string) error {
	return c.at(ctx, http.MethodDelete, "/v1/attachments/{}", name)
}

// Images returns the guest images.
func (c *Client) Images(ctx context.Context) ([]wire.Image, error) {
	return ask[[]wire.Image](ctx, c, http.MethodGet, "/v1/images", nil)
}

// AddImage copies files of the host into a guest image.
func (c *Client) AddImage(ctx context.Context, image wire.AddImage) (wire.Image, error) {
	return ask[wire.Image](ctx, c, http.MethodPost, "/v1/images", image)
}

// RemoveImage removes a guest image that no app uses.
func (c *Client) RemoveImage(ctx context.Context, name string) error {
	return c.at(ctx, http.MethodDelete, "/v1/images/{}", name)
}

// NetworkStatus returns the state of the host's side of the network.
func (c *Client) NetworkStatus(ctx context.Context) (wire.NetworkStatus, error) {
	return ask[wire.NetworkStatus](ctx, c, http.MethodGet, "/v1/network", nil)
}

// CheckNetwork compares the kernel with what it should be.
func (c *Client) CheckNetwork(ctx context.Context) (wire.Check, error) {
	return ask[wire.Check](ctx, c, http.MethodGet, "/v1/network/check", nil)
}

// RepairNetwork mends what differs and returns it.
func (c *Client) RepairNetwork(ctx context.Context) (wire.Repair, error) {
	return ask[wire.Repair](ctx, c, http.MethodPost, "/v1/network/repair", nil)
}

// Explain says what becomes of a new connection, and why. Nothing is sent.
func (c *Client) Explain(ctx context.Context, ends wire.Explain) (wire.Explanation, error) {
	query := url.Values{"source": {ends.Source}, "destination": {ends.Destination}}
	if ends.Port != 0 {
		query.Set("port", strconv.Itoa(ends.Port))
	}
	if ends.Protocol != "" {
		query.Set("protocol", ends.Protocol)
	}
	return ask[wire.Explanation](ctx, c, http.MethodGet, "/v1/network/explain?"+query.Encode(), nil)
}

// Trace is Explain that also has one packet sent, to see what the kernel does.
func (c *Client) Trace(ctx context.Context, ends wire.Explain) (wire.Explanation, error) {
	return ask[wire.Explanation](ctx, c, http.MethodPost, "/v1/network/explain", ends)
}

// Doctor returns what on the host stands in the way, problems first.
func (c *Client) Doctor(ctx context.Context) ([]wire.Finding, error) {
	return ask[[]wire.Finding](ctx, c, http.MethodGet, "/v1/doctor", nil)
}

// ask sends a request and returns what it answers.
func ask[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var out T
	err := c.call(ctx, method, path, body, &out)
	return out, err
}

// at sends a request about one name that has neither body nor answer.
func (c *Client) at(ctx context.Context, method, format, name string) error {
	path, err := path(format, name)
	if err != nil {
		return err
	}
	return c.call(ctx, method, path, nil, nil)
}

func waiting(wait time.Duration) string {
	if wait == 0 {
		return ""
	}
	return "?wait=" + wait.String()
}
