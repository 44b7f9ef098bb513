package firewall

// Difference is one thing in the kernel that is not as it should be.
type Difference struct {
	Object string // what, as in "link zvm3" or "iptables filter ZWRM-PRIVATE rule 2"
	Wanted string
	Found  string
}
