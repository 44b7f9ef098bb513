package nftables

import "fmt"

// ForeignError says that there is a table of our name that is not ours.
type ForeignError struct{}

// Error says which table it is and what to do about it.
func (e *ForeignError) Error() string {
	name := "inet " + string(ourTable)
	return fmt.Sprintf("table %q of nftables is not ZWRM's: it does not have the comment %q; "+
		"look what it is for (nft list table %s), and delete it (nft delete table %[3]s) or use firewall = \"iptables\"", name, tableComment, name)
}

// foreign returns a *ForeignError if the table is not ours.
func (s snapshot) foreign() error {
	if s.Handle != 0 && !s.ours {
		return &ForeignError{}
	}
	return nil
}
