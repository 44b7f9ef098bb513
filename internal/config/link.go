package config

import (
	"fmt"
	"strings"

	"zwrm/internal/ipam"
)

// maxLinkName is the longest name of a network device in bytes: IFNAMSIZ of
// linux/if.h less the final zero.
const maxLinkName = 15

// link reports a name that no network device can have, or none that is not a
// VM's TAP. mend says what to do.
func (l *loader) link(key, name, mend string) {
	if what := linkFault(name); what != "" {
		l.report(Problem{Key: key, Value: quote(name), What: what, Mend: mend})
	}
}

// linkFault returns what is wrong with the name of a network device, or "".
func linkFault(name string) string {
	switch {
	case name == "":
		return "no interface has an empty name"
	case len(name) > maxLinkName:
		return fmt.Sprintf("has %d bytes, where an interface's name has at most %d", len(name), maxLinkName)
	case name == "." || name == ".." || name == "all" || name == "default":
		// The latter two are the folders of net.ipv4.conf that stand for every device.
		return "a name that the kernel gives no interface"
	case strings.HasPrefix(name, ipam.TAPPrefix):
		return fmt.Sprintf("begins with %q, as the TAPs of VMs do", ipam.TAPPrefix)
	case strings.HasSuffix(name, "+"):
		return `ends with "+", which iptables takes for a wildcard`
	}
	for i := range len(name) {
		if !linkByte(name[i]) {
			return fmt.Sprintf("has %q, which an interface's name cannot have here", name[i:i+1])
		}
	}
	return ""
}

// linkByte reports whether a device's name may have the byte. The kernel refuses
// "/", ":" and white space, for which it takes 0xa0 too (dev_valid_name in
// net/core/dev.c), and reads "%" as a number to fill in. Control characters,
// quotes and "\" would change what a line of iptables-restore means.
func linkByte(b byte) bool {
	return b > ' ' && b != 0x7f && b != 0xa0 && !strings.ContainsRune(`/:%"'\`, rune(b))
}
