package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"zwrm/internal/wire"
)

func (s *session) psCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ps [APP]",
		Short:   "List the VMs and attachments, of one app or of all",
		Example: "  zwrm ps web",
		GroupID: groupVMs,
		Args:    arguments("[APP]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			app := ""
			if len(args) == 1 {
				app = args[0]
			}
			if s.output == formatJSON {
				return s.copyVMs(cmd.Context(), app)
			}
			vms, err := s.client().VMs(cmd.Context(), app)
			if err != nil {
				return err
			}
			return s.answer(vms, func(w io.Writer) { tableOfVMs(w, vms) })
		},
	}
}

// copyVMs answers with the VMs as zwrmd sends them, indented as every answer is: of
// thousands, reading them takes longer than to have them listed.
func (s *session) copyVMs(ctx context.Context, app string) error {
	var out indenter
	if err := s.client().CopyVMs(ctx, app, &out); err != nil {
		return err
	}
	parts, err := out.parts()
	if err == nil && parts[0][0] != '[' {
		err = errors.New("it is no list")
	}
	if err != nil {
		return fmt.Errorf("read the answer of zwrmd: %w", err)
	}
	for _, part := range parts {
		if _, err := s.stdout.Write(part); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
	}
	return nil
}

func tableOfVMs(w io.Writer, vms []wire.VM) {
	rows := make([][]string, len(vms))
	for i, vm := range vms {
		rows[i] = []string{vm.Name, vm.App, vm.State, vm.GuestIP, vm.TAP, number(vm.PID), vm.Image, moment(vm.CreatedAt), vm.Reason}
	}
	table(w, []string{"NAME", "APP", "STATE", "GUEST-IP", "TAP", "PID", "IMAGE", "CREATED", "REASON"}, rows)
}

func (s *session) logsCommand() *cobra.Command {
	var follow, raw bool
	cmd := &cobra.Command{
		Use:   "logs VM",
		Short: "Show the console of a VM",
		Long: `Show the console of a VM, byte by byte as the guest wrote it. On a terminal,
control characters other than those of colours are shown and not obeyed.`,
		Example: "  zwrm logs web-0 -f",
		GroupID: groupVMs,
		Args:    arguments("VM"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := s.stdout
			if !raw && terminal(s.stdout) {
				tamed := &tame{w: s.stdout}
				defer func() { _ = tamed.Close() }() // the terminal is gone, or shows it
				out = tamed
			}
			err := s.client().Console(cmd.Context(), args[0], out, follow)
			if follow && errors.Is(err, context.Canceled) {
				return nil // interrupting is how one ends it
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what the guest writes from now on")
	cmd.Flags().BoolVar(&raw, "raw", false, "have a terminal obey what the guest wrote")
	return cmd
}

func (s *session) restartCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "restart VM",
		Short:   "Restart a VM; it keeps its address",
		Example: "  zwrm restart web-0",
		GroupID: groupVMs,
		Args:    arguments("VM"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.client().Restart(cmd.Context(), args[0]); err != nil {
				return err
			}
			return s.done("%s: restarted", args[0])
		},
	}
}
