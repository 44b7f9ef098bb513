package cli

import (
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"zwrm/internal/wire"
)

func (s *session) attachCommand() *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:   "attach NAME --app APP",
		Short: "Make a network for a VMM that you run yourself",
		Long: `Make a network for a VMM that you run yourself, as if NAME were a VM of APP. Run
the VMM on the TAP "tap" with the guest's address "mac", and append "kernel_args"
to its kernel command line.`,
		Example: "  zwrm attach probe --app web -o json",
		GroupID: groupVMs,
		Args:    arguments("NAME"),
	}
	cmd.Flags().StringVar(&app, "app", "", "`APP` that it belongs to; made when it is not there")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if app == "" {
			return usagef("--app is missing")
		}
		vm, err := s.client().Attach(cmd.Context(), wire.Attach{Name: args[0], App: app})
		if err != nil {
			return err
		}
		return s.answer(vm, func(w io.Writer) { describeVM(w, vm) })
	}
	return cmd
}

// describeVM writes the network of a VM under the names that JSON has for it.
func describeVM(w io.Writer, vm wire.VM) {
	table(w, nil, [][]string{
		{"name:", vm.Name},
		{"app:", vm.App},
		{"slot:", strconv.FormatUint(uint64(vm.Slot), 10)},
		{"prefix:", vm.Prefix},
		{"gateway:", vm.Gateway},
		{"guest_ip:", vm.GuestIP},
		{"netmask:", vm.Netmask},
		{"tap:", vm.TAP},
		{"mac:", vm.MAC},
		{"kernel_args:", vm.KernelArgs},
	})
}

func (s *session) detachCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "detach NAME",
		Short:   "Remove the network of an attachment",
		Example: "  zwrm detach probe",
		GroupID: groupVMs,
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.client().Detach(cmd.Context(), args[0]); err != nil {
				return err
			}
			return s.done("%s: detached", args[0])
		},
	}
}
