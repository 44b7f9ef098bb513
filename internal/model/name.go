package model

import (
	"fmt"
	"strings"
)

// Name is the name of an app, a VM or an image: a DNS label (RFC 1123 section
// 2.1: 1 to 63 of a-z, 0-9 and "-", neither first nor last "-").
type Name string

const maxLabel = 63

// ParseName checks that s is a DNS label.
func ParseName(s string) (Name, error) {
	switch {
	case s == "":
		return "", fmt.Errorf("name is empty: use a DNS label such as \"web\"")
	case len(s) > maxLabel:
		return "", fmt.Errorf("name %q has %d characters: a DNS label has at most %d", s, len(s), maxLabel)
	case strings.HasPrefix(s, "-") || strings.HasSuffix(s, "-"):
		return "", fmt.Errorf("name %q begins or ends with \"-\"", s)
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return "", fmt.Errorf("name %q has %q: only a-z, 0-9 and \"-\" are allowed", s, r)
		}
	}
	return Name(s), nil
}

// VMName returns the name of the app's VM with the given index, as in "web-0".
func (n Name) VMName(index int) Name { return Name(fmt.Sprintf("%s-%d", n, index)) }
