package foreign

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"zwrm/internal/firewall/xtables"
)

var update = flag.Bool("update", false, "write golden files anew")

// Rules of ours as a kernel holds them.
const (
	ruleInternet = `-o eth0 -m devgroup --src-group 0x5a000000/0xff000000 -m comment --comment "zwrm: internet" -j ACCEPT`
	ruleKnown    = `-i eth0 -m devgroup --dst-group 0x5a000000/0xff000000 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "zwrm: established" -j ACCEPT`
	rulePeers    = `-m devgroup --src-group 0x5a000000/0xff000000 --dst-group 0x5a000000/0xff000000 -m comment --comment "zwrm: vm-to-vm" -j ACCEPT`
)

// TestPlan: what goes where on hosts with other firewalls. What stands in testdata was
// printed beside the real programs.
func TestPlan(t *testing.T) {
	const (
		forward = "internet, established, vm-to-vm"
		input   = "INPUT: established, ping-gateway, host-access tcp/9000"
		output  = "OUTPUT: from-host"
	)
	policy := func(forward, input, output string) string {
		return fmt.Sprintf("*filter\n:FORWARD %s\n:INPUT %s\n:OUTPUT %s\n", forward, input, output)
	}
	tests := []struct {
		name string
		host string
		add  []string // rules
		want []string
	}{
		{name: "no table", host: "*nat\n:PREROUTING DROP\n"},
		{name: "nothing drops", host: policy("ACCEPT", "ACCEPT", "ACCEPT")},
		{name: "everything drops", host: policy("DROP", "DROP", "DROP"), want: []string{"FORWARD: " + forward, input, output}},
		{name: "forwarding drops", host: policy("DROP", "ACCEPT", "ACCEPT"), want: []string{"FORWARD: " + forward}},
		{name: "last rule drops", host: policy("ACCEPT", "ACCEPT", "ACCEPT"), add: []string{"FORWARD -j DROP", "INPUT -i eth0 -j DROP"},
			want: []string{"FORWARD: " + forward}},
		{name: "last rule rejects", host: policy("ACCEPT", "ACCEPT", "ACCEPT"),
			add:  []string{"INPUT -i lo -j ACCEPT", `INPUT -m comment --comment "the rest: -j \"no\"" -j REJECT --reject-with icmp-host-prohibited`},
			want: []string{input}},
		{name: "last rule accepts", host: policy("DROP", "DROP", "ACCEPT"), add: []string{"FORWARD -j ACCEPT", "INPUT -m comment --comment all -j ACCEPT", "INPUT -j DROP"}},
		{name: "last rule returns", host: policy("DROP", "ACCEPT", "ACCEPT"), add: []string{"FORWARD -j RETURN"}, want: []string{"FORWARD: " + forward}},
		{name: "Docker", host: host(t, "docker"), want: []string{"DOCKER-USER: " + forward}},
		{name: "ufw", host: host(t, "ufw"), want: []string{"FORWARD: " + forward, input, output}},
		{name: "Docker and ufw", host: host(t, "docker_ufw"), want: []string{"DOCKER-USER: " + forward, input, output}},
		{name: "ufw disabled", host: host(t, "ufw_off")},
		{name: "ufw reloading", host: host(t, "ufw_off"), add: []string{"DOCKER-USER " + ruleKnown}, want: []string{"DOCKER-USER: " + forward}},
		{name: "firewalld", host: host(t, "firewalld")},
		{name: "chain of Docker that is not called", host: policy("DROP", "ACCEPT", "ACCEPT") + ":DOCKER-USER -\n", want: []string{"FORWARD: " + forward}},
		{name: "chain of Docker called for some", host: policy("DROP", "ACCEPT", "ACCEPT") + ":DOCKER-USER -\n", add: []string{"FORWARD -i eth0 -j DOCKER-USER"},
			want: []string{"FORWARD: " + forward}},
		{name: "chain of Docker behind a drop", host: policy("DROP", "ACCEPT", "ACCEPT") + ":DOCKER-USER -\n", add: []string{"FORWARD -j DROP", "FORWARD -j DOCKER-USER"},
			want: []string{"FORWARD: " + forward}},
		{name: "chain of Docker called for the host, too", host: policy("DROP", "DROP", "ACCEPT") + ":DOCKER-USER -\n",
			add: []string{"FORWARD -j DOCKER-USER", "INPUT -j DOCKER-USER"}, want: []string{"DOCKER-USER: " + forward, input}},
		{name: "other chains not made yet", host: "*filter\n:FORWARD DROP [0:0]\n", want: []string{"FORWARD: " + forward}},
		{name: "our own dataplane", host: policy("DROP", "ACCEPT", "ACCEPT") + ":ZWRM-FORWARD -\n", add: []string{
			`FORWARD -m comment --comment "zwrm: hook" -j ZWRM-FORWARD`, "ZWRM-FORWARD " + ruleInternet}, want: []string{"FORWARD: " + forward}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			filter := xtables.Parse(test.host)[xtables.Filter]
			for _, rule := range test.add {
				chain, spec, _ := strings.Cut(rule, " ")
				name := xtables.ChainName(chain)
				filter.Chains[name] = append(filter.Chains[name], spec)
			}
			var got []string
			for _, r := range want().plan(filter) {
				var lets []string
				for _, spec := range r.specs {
					lets = append(lets, string(comment(spec)))
				}
				got = append(got, string(r.chain)+": "+strings.Join(lets, ", "))
			}
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("plan %q, want %q", got, test.want)
			}
			w := want()
			w.Accepts = false
			if plan := w.plan(filter); plan != nil {
				t.Errorf("plan with the dataplane iptables is %v", plan)
			}
		})
	}
}

// compareGolden compares a text with a file of testdata.
func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	file := "testdata/" + name
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(text) {
		t.Errorf("%s: got\n%swant\n%s", name, got, text)
	}
}
