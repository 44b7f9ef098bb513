package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"zwrm/internal/model"
	"zwrm/internal/wire"
)

// maxWait bounds how long a request waits for guests to answer.
const maxWait = 10 * time.Minute

type (
	deployInput struct {
		Wait string `query:"wait" doc:"wait until every guest answers, at most this long; a Go duration, 10m at most" example:"60s"`
		Body wire.Deploy
	}
	scaleInput struct {
		App  string `path:"app"`
		Wait string `query:"wait" doc:"wait until every guest answers, at most this long; a Go duration, 10m at most" example:"60s"`
		Body wire.Scale
	}
	appInput struct {
		App string `path:"app"`
	}
)

func (s service) registerApps(api huma.API) {
	handle(api, huma.Operation{
		OperationID: "list-apps", Method: http.MethodGet, Path: "/v1/apps", Summary: "List the apps",
	}, s.listApps)
	handle(api, huma.Operation{
		OperationID: "deploy-app", Method: http.MethodPost, Path: "/v1/apps", Summary: "Create or update an app",
	}, s.deploy)
	handle(api, huma.Operation{
		OperationID: "get-app", Method: http.MethodGet, Path: "/v1/apps/{app}", Summary: "Show one app",
	}, s.getApp)
	handle(api, huma.Operation{
		OperationID: "scale-app", Method: http.MethodPatch, Path: "/v1/apps/{app}", Summary: "Change how many VMs an app has",
	}, s.scale)
	handle(api, huma.Operation{
		OperationID: "destroy-app", Method: http.MethodDelete, Path: "/v1/apps/{app}", Summary: "Destroy an app with all its VMs",
	}, s.destroy)
}

func (s service) listApps(ctx context.Context, _ *struct{}) (*list[wire.App], error) {
	apps, err := s.Apps.Apps(ctx)
	if err != nil {
		return nil, err
	}
	running, err := s.Apps.Running(ctx)
	if err != nil {
		return nil, err
	}
	return &list[wire.App]{convert(apps, func(app model.App) wire.App { return wireApp(app, running[app.ID]) })}, nil
}

func (s service) getApp(ctx context.Context, in *appInput) (*answer[wire.App], error) {
	name, err := parseName(in.App)
	if err != nil {
		return nil, err
	}
	app, err := s.Apps.App(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.answerApp(ctx, app)
}

func (s service) deploy(ctx context.Context, in *deployInput) (*answer[wire.App], error) {
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	name, err := parseName(in.Body.Name)
	if err != nil {
		return nil, err
	}
	spec, err := s.spec(ctx, name, in.Body)
	if err != nil {
		return nil, err
	}
	app, err := s.Apps.Deploy(ctx, name, spec)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, name, wait); err != nil {
		return nil, err
	}
	return s.answerApp(ctx, app)
}

// spec returns what an app is to be made of. What the request leaves out stays
// as the app has it, so that a new image alone does not change the scale.
func (s service) spec(ctx context.Context, name model.Name, body wire.Deploy) (model.Spec, error) {
	image, err := parseName(body.Image)
	if err != nil {
		return model.Spec{}, fmt.Errorf("image: %w", err)
	}
	spec := model.Spec{Scale: 1}
	if body.Scale == nil || body.MemoryMiB == 0 || body.CPUs == 0 {
		app, err := s.Apps.App(ctx, name)
		switch {
		case err == nil && app.Spec.Image != "":
			spec = app.Spec
		case err != nil && !isNotFound(err):
			return model.Spec{}, err
		}
	}
	spec.Image = image
	if body.Scale != nil {
		spec.Scale = *body.Scale
	}
	if body.MemoryMiB != 0 {
		spec.MemoryMiB = body.MemoryMiB
	}
	if body.CPUs != 0 {
		spec.CPUs = body.CPUs
	}
	return spec, nil
}

func (s service) scale(ctx context.Context, in *scaleInput) (*answer[wire.App], error) {
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	name, err := parseName(in.App)
	if err != nil {
		return nil, err
	}
	app, err := s.Apps.Scale(ctx, name, in.Body.Scale)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, name, wait); err != nil {
		return nil, err
	}
	return s.answerApp(ctx, app)
}

func (s service) destroy(ctx context.Context, in *appInput) (*struct{}, error) {
	name, err := parseName(in.App)
	if err != nil {
		return nil, err
	}
	return nil, s.Apps.Destroy(ctx, name)
}

// await waits for the guests of an app that was deployed or scaled. When they do
// not answer in time nothing is undone: what was asked for is done, and what is
// wrong is inside the guests.
func (s service) await(ctx context.Context, name model.Name, wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := s.Apps.Await(waiting, name)
	if err == nil || ctx.Err() != nil || !errors.Is(waiting.Err(), context.DeadlineExceeded) {
		return err
	}
	if named := new(model.Problem); errors.As(err, &named) {
		return fmt.Errorf("not every guest of app %q answered within %s: %w", name, wait, err) // it says which one
	}
	return model.Problemf(model.Internal, "not every guest of app %q answered within %s", name, wait).
		WithHint("its VMs still run: zwrm ps %s lists them, zwrm logs %s shows what one says", name, name.VMName(0))
}

// answerApp answers with an app. It costs as much as the app has VMs.
func (s service) answerApp(ctx context.Context, app model.App) (*answer[wire.App], error) {
	vms, err := s.VMs.AppVMs(ctx, app.ID)
	if err != nil {
		return nil, err
	}
	running := 0
	for _, vm := range vms {
		if vm.State == model.Running {
			running++
		}
	}
	return &answer[wire.App]{wireApp(app, running)}, nil
}

func isNotFound(err error) bool {
	var problem *model.Problem
	return errors.As(err, &problem) && problem.Code == model.NotFound
}

// parseName checks a name that came in a request.
func parseName(s string) (model.Name, error) {
	name, err := model.ParseName(s)
	if err != nil {
		return "", &model.Problem{Code: model.Invalid, Err: err}
	}
	return name, nil
}

// parseWait reads the parameter wait. Empty means not to wait.
func parseWait(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(s)
	if err != nil || wait <= 0 || wait > maxWait {
		return 0, model.Problemf(model.Invalid, "wait %q is not a time between 0 and %s", s, maxWait).WithHint("write it as in 60s or 2m")
	}
	return wait, nil
}
