package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"zwrm/internal/wire"
)

func (s *session) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what on this host stands in the way, and what to do about it",
		Long: `Say what on this host stands in the way of the VMs' network, and what to do about
it: forwarding, tools, features of the kernel, the bounds of its tables, MTU,
overlapping addresses, and other firewalls. The exit status is 1 when something
does not work, and 0 when there is nothing or only warnings.

Where zwrmd does not even start, zwrmd --check-config says why.`,
		Example: "  zwrm doctor",
		GroupID: groupNetwork,
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, err := s.client().Doctor(cmd.Context())
			if err != nil {
				return err
			}
			problems := 0
			for _, f := range findings {
				if f.Severity == "problem" {
					problems++
				}
			}
			err = s.answer(findings, func(w io.Writer) { describeFindings(w, findings) })
			if err == nil && problems > 0 {
				return errProblems
			}
			return err
		},
	}
}

func describeFindings(w io.Writer, findings []wire.Finding) {
	if len(findings) == 0 {
		fmt.Fprintln(w, "nothing stands in the way")
	}
	for _, f := range findings {
		fmt.Fprintf(w, "%s: %s\n  %s\n", f.Severity, cell(f.Subject), oneLine(f.What))
		if f.Mend != "" {
			fmt.Fprintf(w, "  mend: %s\n", oneLine(f.Mend))
		}
	}
}

// oneLine returns a text whole, as cell does not.
func oneLine(s string) string { return cell(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")) }
