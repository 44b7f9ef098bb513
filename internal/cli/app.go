package cli

import (
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"zwrm/internal/wire"
)

// waitFlags are --wait and --timeout.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (w *waitFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "wait until every guest answers on its address")
	cmd.Flags().DurationVar(&w.timeout, "timeout", time.Minute, "`TIME` that --wait waits, 10m at most")
}

// duration returns how long to wait, 0 for not at all.
func (w *waitFlags) duration(cmd *cobra.Command) (time.Duration, error) {
	switch {
	case !w.wait && cmd.Flags().Changed("timeout"):
		return 0, usagef("--timeout does nothing without --wait")
	case !w.wait:
		return 0, nil
	case w.timeout <= 0:
		return 0, usagef("timeout %s is not above 0", w.timeout)
	}
	return w.timeout, nil
}

func (s *session) deployCommand() *cobra.Command {
	var image, memory string
	var scale, cpus int
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "deploy APP --image IMAGE",
		Short: "Create or update an app",
		Long: `Create an app, or bring an existing one to another image, scale or size. What is
left out stays as the app has it. When a VM cannot be started, nothing changes.`,
		Example: "  zwrm deploy web --image debian --scale 3 --wait",
		GroupID: groupApps,
		Args:    arguments("APP"),
	}
	flags := cmd.Flags()
	flags.StringVar(&image, "image", "", "`IMAGE` that the VMs run")
	flags.IntVar(&scale, "scale", 0, "`NUMBER` of VMs (default of a new app: 1)")
	flags.StringVar(&memory, "memory", "", "memory of each VM, a `SIZE` as in 128M or 1G (default of a new app: 128M)")
	flags.IntVar(&cpus, "cpus", 0, "`NUMBER` of virtual CPUs of each VM (default of a new app: 1)")
	wait.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request := wire.Deploy{Name: args[0], Image: image}
		given := func(name string) bool { return flags.Changed(name) }
		switch {
		case image == "":
			return usagef("--image is missing")
		case scale < 0:
			return usagef("scale %d is below 0", scale)
		case given("cpus") && cpus < 1:
			return usagef("%d CPUs are too few", cpus)
		}
		if given("scale") {
			request.Scale = &scale
		}
		if given("memory") {
			mib, err := parseMemory(memory)
			if err != nil {
				return &usageError{err}
			}
			request.MemoryMiB = mib
		}
		request.CPUs = cpus
		duration, err := wait.duration(cmd)
		if err != nil {
			return err
		}
		return s.deploy(cmd, request, duration)
	}
	return cmd
}

func (s *session) deploy(cmd *cobra.Command, request wire.Deploy, wait time.Duration) error {
	c := s.client()
	app, err := s.watch(cmd.Context(), c, request.Name, wait, func() (wire.App, error) {
		return c.Deploy(cmd.Context(), request, wait)
	})
	if err != nil {
		return err
	}
	return s.answerApp(app)
}

func (s *session) scaleCommand() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:     "scale APP N",
		Short:   "Change how many VMs an app has",
		Example: "  zwrm scale web 5",
		GroupID: groupApps,
		Args:    arguments("APP", "N"),
	}
	wait.add(cmd)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return negativeScale(err) })
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := strconv.Atoi(args[1])
		switch {
		case err != nil:
			return usagef("scale %q is not a number of VMs", args[1])
		case n < 0:
			return usagef("scale %d is below 0", n)
		}
		duration, err := wait.duration(cmd)
		if err != nil {
			return err
		}
		c := s.client()
		app, err := s.watch(cmd.Context(), c, args[0], duration, func() (wire.App, error) {
			return c.Scale(cmd.Context(), args[0], n, duration)
		})
		if err != nil {
			return err
		}
		return s.answerApp(app)
	}
	return cmd
}

// negativeScale explains the error of "scale web -1", where the flag parser took
// the number for a flag.
func negativeScale(err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if n, err := strconv.Atoi(unknown.GetSpecifiedShortnames()); err == nil {
			return usagef("scale -%d is below 0", n)
		}
	}
	return flagError(err)
}

func (s *session) destroyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "destroy APP",
		Short:   "Destroy an app with all its VMs and attachments",
		Example: "  zwrm destroy web",
		GroupID: groupApps,
		Args:    arguments("APP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.client().Destroy(cmd.Context(), args[0]); err != nil {
				return err
			}
			return s.done("%s: destroyed", args[0])
		},
	}
}

func (s *session) appsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "apps",
		Short:   "List the apps",
		Example: "  zwrm apps -o json",
		GroupID: groupApps,
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			apps, err := s.client().Apps(cmd.Context())
			if err != nil {
				return err
			}
			return s.answer(apps, func(w io.Writer) {
				rows := make([][]string, len(apps))
				for i, app := range apps {
					rows[i] = []string{app.Name, app.Image, strconv.Itoa(app.Scale), strconv.Itoa(app.Running), app.Group}
				}
				table(w, []string{"NAME", "IMAGE", "SCALE", "RUNNING", "GROUP"}, rows)
			})
		},
	}
}

func (s *session) answerApp(app wire.App) error {
	if s.output == formatJSON {
		return s.answer(app, nil)
	}
	return s.done("%s: %s", app.Name, count(app.Scale, "VM"))
}
