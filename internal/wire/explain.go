package wire

// Explain asks what becomes of a packet.
type Explain struct {
	Source      string `json:"source" doc:"name of a VM, IP address, \"internet\" or \"host\"" example:"web-0"`
	Destination string `json:"destination" doc:"name of a VM, IP address, \"internet\" or \"host\"" example:"db-0"`
	Port        int    `json:"port,omitempty" minimum:"1" maximum:"65535" doc:"left out: the packet is an ICMP echo request"`
	Protocol    string `json:"protocol,omitempty" enum:"tcp,udp" doc:"of the port; left out: tcp"`
}

// Explanation is what becomes of the first packet of a connection, and why.
type Explanation struct {
	Verdict     string `json:"verdict" enum:"pass,drop"`
	Reason      string `json:"reason" doc:"for scripts: that of the rule, or no-rule, no-route, no-tap" example:"other-app"`
	Rule        string `json:"rule" doc:"the rule that decides; empty: none of ZWRM's" example:"private ipv4: drop (other-app)"`
	Why         string `json:"why" doc:"the reason as a sentence" example:"web-0 and db-0 are of different apps"`
	Note        string `json:"note,omitempty" doc:"what else one should know"`
	Source      string `json:"source" doc:"address; empty: none" example:"172.16.0.2"`
	Destination string `json:"destination" doc:"address; empty: none" example:"172.16.0.10"`
	Service     string `json:"service" example:"tcp/80" doc:"empty: an ICMP echo request"`
	In          string `json:"in" doc:"device that the host receives it by; empty: the host sends it" example:"zvm0"`
	Out         string `json:"out" doc:"device that it leaves by; empty: it does not leave" example:"zvm2"`
	Masqueraded bool   `json:"masqueraded" doc:"the receiver sees the address of the device it leaves by"`
	Trace       *Trace `json:"trace,omitempty" doc:"what the kernel did with a real packet; only if asked for"`
}

// Trace is what the kernel did with a packet that was sent for it.
type Trace struct {
	Verdict string `json:"verdict" enum:"pass,drop"`
	Rule    string `json:"rule" doc:"the rule that decided, as the kernel has it; empty: none"`
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Agrees  bool   `json:"agrees" doc:"the kernel did what the explanation says"`
}

// Finding is one thing on the host that stands in the way.
type Finding struct {
	Subject  string `json:"subject" example:"net.ipv4.ip_forward = 0"`
	Severity string `json:"severity" enum:"problem,warning" doc:"problem: something does not work"`
	What     string `json:"what" doc:"what is wrong with it"`
	Mend     string `json:"mend" doc:"what to do"`
}
