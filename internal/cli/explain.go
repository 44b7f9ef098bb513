package cli

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"zwrm/internal/wire"
)

func (s *session) networkExplainCommand() *cobra.Command {
	trace := false
	cmd := &cobra.Command{
		Use:   "explain SRC DST[:PORT][/tcp|udp]",
		Short: "Say whether SRC reaches DST, and which rule decides",
		Long: `Say what becomes of a new connection from SRC to DST, and which rule decides.
Both are the name of a VM, an IP address (IPv6 with a port in brackets), internet
or host. Without a port it is about a ping; a port without a protocol is one of
tcp. The exit status is 0 whether it passes or not.

Nothing is sent: the rules of ZWRM are evaluated on the live state of this host.
What they let pass, another firewall of the host may still drop. With --trace one
packet is sent as well, and the answer says what the kernel did with it.`,
		Example: `  zwrm network explain web-0 db-0:5432
  zwrm network explain web-0 internet:443/tcp --trace
  zwrm network explain internet web-0:80`,
		Args: arguments("SRC", "DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ends, err := parseTarget(args[1])
			if err != nil {
				return err
			}
			ends.Source = args[0]
			ask := s.client().Explain
			if trace {
				ask = s.client().Trace
			}
			explanation, err := ask(cmd.Context(), ends)
			if err != nil {
				return err
			}
			return s.answer(explanation, func(w io.Writer) { describeExplanation(w, explanation) })
		},
	}
	cmd.Flags().BoolVar(&trace, "trace", false, "also send one packet, and say what the kernel did with it")
	return cmd
}

// parseTarget reads DST[:PORT][/tcp|udp].
func parseTarget(text string) (wire.Explain, error) {
	ends := wire.Explain{}
	rest, protocol, hasProtocol := strings.Cut(text, "/")
	if hasProtocol && protocol != "tcp" && protocol != "udp" {
		return ends, usagef("protocol %q of DST is neither tcp nor udp", protocol)
	}
	port, hasPort := "", false
	if inside, behind, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]"); ok && strings.HasPrefix(rest, "[") {
		ends.Destination = inside
		if port, hasPort = strings.CutPrefix(behind, ":"); behind != "" && !hasPort {
			return ends, usagef("DST %q has %q where \":PORT\" could be", text, behind)
		}
	} else if _, err := netip.ParseAddr(rest); err == nil {
		ends.Destination = rest // IPv6 has colons of its own
	} else {
		ends.Destination, port, hasPort = strings.Cut(rest, ":")
	}
	switch {
	case ends.Destination == "":
		return ends, usagef("DST %q names nobody", text)
	case hasProtocol && !hasPort:
		return ends, usagef("protocol %q of DST is without a port: write it as in %s:80/%s", protocol, rest, protocol)
	case !hasPort:
		return ends, nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return ends, usagef("port %q of DST is not between 1 and 65535", port)
	}
	ends.Port, ends.Protocol = int(number), protocol
	return ends, nil
}

func describeExplanation(w io.Writer, e wire.Explanation) {
	fmt.Fprintf(w, "%s: %s (%s)\n", e.Verdict, e.Why, e.Reason)
	packet, rule, stays := "ping", "none of ZWRM's", "" // a drop comes before it is known
	if e.Verdict == "pass" {
		stays = ", this host itself"
	}
	if e.Service != "" {
		packet = e.Service
	}
	if e.Rule != "" {
		rule = e.Rule
	}
	rows := [][]string{
		{"packet:", packet},
		{"from:", hop(e.Source, e.In, ", this host itself")},
		{"to:", hop(e.Destination, e.Out, stays)},
		{"rule:", rule},
	}
	if e.Masqueraded {
		rows = append(rows, []string{"seen as:", "the address of " + e.Out})
	}
	if e.Note != "" {
		rows = append(rows, []string{"note:", e.Note})
	}
	if e.Trace != nil {
		rows = append(rows, []string{"trace:", describeTrace(*e.Trace)})
	}
	table(w, nil, rows)
}

// hop says which address a packet has at one end, and by which device it goes there.
func hop(address, device, none string) string {
	if address == "" {
		address = "no address"
	}
	if device == "" {
		return address + none
	}
	return address + " by " + device
}

func describeTrace(t wire.Trace) string {
	by := "no rule of the kernel decided"
	if t.Rule != "" {
		by = fmt.Sprintf("by rule %q of chain %s in table %s", t.Rule, t.Chain, t.Table)
	}
	agrees := "as above"
	if !t.Agrees {
		agrees = "NOT as above"
	}
	return fmt.Sprintf("%s, %s: %s", t.Verdict, agrees, by)
}
