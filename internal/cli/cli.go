package cli

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"zwrm/internal/client"
	"zwrm/internal/version"
)

// The exit statuses. Scripts rely on them.
const (
	exitDone        = 0
	exitFailed      = 1 // refused or failed, the reason is on stderr; or the doctor found a problem
	exitUsage       = 2 // the command line is wrong
	exitUnreachable = 3 // no zwrmd answers
	exitDrift       = 4 // network check found differences
)

// The groups of commands in the overview.
const (
	groupApps    = "apps"
	groupVMs     = "vms"
	groupImages  = "images"
	groupNetwork = "network"
)

// Run runs one command line, given without the program's name, and returns the
// exit status. It ends early when ctx does.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer, env func(string) string) int {
	s := &session{stdout: stdout, stderr: stderr, env: env}
	root := s.root()
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	asJSON := s.output == formatJSON || wantsJSON(args)
	return s.report(cmd, err, asJSON)
}

// session is one run of the command.
type session struct {
	stdout, stderr io.Writer
	env            func(string) string

	socket string // of the flag; empty: not given
	output string
}

// client returns a client of the zwrmd that the user means.
func (s *session) client() *client.Client {
	socket := s.socket
	if socket == "" {
		socket = s.env("ZWRM_SOCKET")
	}
	if socket == "" {
		socket = client.DefaultSocket
	}
	return client.New(socket)
}

func (s *session) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "zwrm",
		Short: "Run microVMs, each with a network of its own",
		Long: `zwrm runs microVMs on this host. The VMs of one app share an image; each has a
network of its own. zwrm asks zwrmd, the daemon, to do it.`,
		Example: `  zwrm image add debian --kernel vmlinuz --initrd initrd.img
  zwrm deploy web --image debian --scale 3 --wait
  zwrm ps web
  zwrm destroy web`,
		Version:           version.Version,
		SilenceErrors:     true, // Run reports them
		SilenceUsage:      true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return s.checkOutput() },
	}
	branch(root)
	root.SetVersionTemplate("zwrm {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	flags := root.PersistentFlags()
	flags.StringVar(&s.socket, "socket", "", "`PATH` of zwrmd's socket (default: $ZWRM_SOCKET, else "+client.DefaultSocket+")")
	flags.StringVarP(&s.output, "output", "o", formatTable, "`FORMAT` of the answer: table or json")
	root.AddGroup(
		&cobra.Group{ID: groupApps, Title: "Apps:"},
		&cobra.Group{ID: groupVMs, Title: "VMs:"},
		&cobra.Group{ID: groupImages, Title: "Images:"},
		&cobra.Group{ID: groupNetwork, Title: "Network:"},
	)
	root.AddCommand(
		s.deployCommand(), s.scaleCommand(), s.destroyCommand(), s.appsCommand(),
		s.psCommand(), s.logsCommand(), s.restartCommand(), s.attachCommand(), s.detachCommand(),
		s.imageCommand(), s.networkCommand(), s.eventsCommand(), s.doctorCommand(), s.versionCommand(),
	)
	root.SetHelpCommand(helpCommand(root))
	return root
}

// branch makes a command that only has other commands: alone it shows what they
// are, and what is none of them is a mistake. Without this cobra would answer
// "zwrm image lst" with the help and exit status 0.
func branch(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("there is no command %q: do you mean %q?", cmd.CommandPath()+" "+args[0], cmd.CommandPath()+" "+near[0])
		}
		return usagef("there is no command %q", cmd.CommandPath()+" "+args[0])
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show how to use a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q", "zwrm "+strings.Join(args, " "))
			}
			cmd.InitDefaultHelpFlag()
			cmd.InitDefaultVersionFlag()
			return cmd.Help()
		},
	}
}

// arguments checks how many arguments a command got. Names in brackets are
// optional.
func arguments(names ...string) cobra.PositionalArgs {
	required := slices.IndexFunc(names, func(name string) bool { return name[0] == '[' })
	if required < 0 {
		required = len(names)
	}
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < required:
			return usagef("%s is missing", names[len(args)])
		case len(args) > len(names):
			return usagef("%q is one argument too many", args[len(names)])
		}
		if i := slices.Index(args, ""); i >= 0 {
			return usagef("%s is empty", strings.Trim(names[i], "[]")) // a script's variable that is not set
		}
		return nil
	}
}
