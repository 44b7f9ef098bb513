package cli

import (
	"github.com/spf13/cobra"

	"zwrm/internal/version"
)

func (s *session) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of zwrm",
		Example: "  zwrm version",
		Args:    arguments(),
		RunE: func(*cobra.Command, []string) error {
			if s.output == formatJSON {
				return s.answer(map[string]string{"version": version.Version}, nil)
			}
			return s.done("zwrm %s", version.Version)
		},
	}
}
