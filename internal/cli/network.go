package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"zwrm/internal/wire"
)

func (s *session) networkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "network",
		Short:   "Look at and mend the host's side of the network",
		GroupID: groupNetwork,
	}
	branch(cmd)
	cmd.AddCommand(s.networkStatusCommand(), s.networkCheckCommand(), s.networkRepairCommand(), s.networkExplainCommand())
	return cmd
}

func (s *session) networkStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show subnet, capacity, firewall and what was mended",
		Example: "  zwrm network status",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := s.client().NetworkStatus(cmd.Context())
			if err != nil {
				return err
			}
			return s.answer(status, func(w io.Writer) { describeNetwork(w, status) })
		},
	}
}

func describeNetwork(w io.Writer, status wire.NetworkStatus) {
	private, repair := "off", "none since zwrmd started"
	if status.Private && status.Bridge != nil {
		private = fmt.Sprintf("on, %s has %s", status.Bridge.Name, status.Bridge.Address)
	}
	if last := status.LastRepair; last != nil {
		repair = fmt.Sprintf("%s, %s", moment(last.At), count(len(last.Differences), "difference"))
	}
	rows := [][]string{{"firewall:", fmt.Sprintf("%s, by %s", status.Firewall, status.Dataplane)}}
	for _, loss := range status.Losses {
		rows = append(rows, []string{"not protected:", loss})
	}
	if status.PendingLinks > 0 {
		rows = append(rows, []string{"at work on:", count(status.PendingLinks, "TAP")})
	}
	rows = append(rows, [][]string{
		{"subnet:", status.Subnet},
		{"capacity:", count(status.Capacity, "VM")},
		{"used:", count(status.Used, "VM")},
		{"in quarantine:", strconv.Itoa(status.Quarantined)},
		{"made ahead:", count(status.Spare, "network")},
		{"external interface:", status.ExternalInterface},
		{"MTU:", strconv.Itoa(status.MTU)},
		{"private networking:", private},
		{"VMM:", status.Driver},
		{"drift:", count(status.Drift, "difference") + " mended since zwrmd started"},
		{"last repair:", repair},
	}...)
	for _, f := range status.Fights {
		rows = append(rows, []string{"fight:", fmt.Sprintf("%s, mended %d times since %s; changed by %s", f.Object, f.Mended, moment(f.Since), culprits(f.By))})
	}
	rows = append(rows, []string{"dropped:", dropped(status.Drops)})
	table(w, nil, rows)
}

// dropped lists the reasons for which packets were dropped, with how many.
func dropped(drops []wire.Drop) string {
	var words []string
	for _, d := range drops {
		if d.Packets > 0 {
			words = append(words, fmt.Sprintf("%s %d", d.Reason, d.Packets))
		}
	}
	if len(words) == 0 {
		return "no packet"
	}
	return strings.Join(words, ", ")
}

func (s *session) networkCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check",
		Short:   "Compare the kernel with what it should be",
		Long:    "Compare the kernel with what it should be. The exit status is 4 when it differs.",
		Example: "  zwrm network check",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			check, err := s.client().CheckNetwork(cmd.Context())
			if err != nil {
				return err
			}
			err = s.answer(check, func(w io.Writer) {
				if check.InSync {
					fmt.Fprintln(w, "in sync")
					return
				}
				tableOfDifferences(w, check.Differences)
			})
			if err == nil && !check.InSync {
				return errDrift
			}
			return err
		},
	}
}

func (s *session) networkRepairCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "repair",
		Short:   "Mend what differs, and show what it was",
		Example: "  zwrm network repair",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			repair, err := s.client().RepairNetwork(cmd.Context())
			if err != nil {
				return err
			}
			return s.answer(repair, func(w io.Writer) {
				if len(repair.Differences) == 0 {
					fmt.Fprintln(w, "nothing to mend")
					return
				}
				tableOfDifferences(w, repair.Differences)
			})
		},
	}
}

func tableOfDifferences(w io.Writer, differences []wire.Difference) {
	rows := make([][]string, len(differences))
	for i, d := range differences {
		rows[i] = []string{d.Object, d.Wanted, d.Found}
	}
	table(w, []string{"OBJECT", "WANTED", "FOUND"}, rows)
}
