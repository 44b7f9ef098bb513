// Package icmp asks a host whether it is there: ICMP echo (RFC 792).
package icmp
