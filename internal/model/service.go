package model

import (
	"fmt"
	"strconv"
	"strings"
)

// Protocol is a transport protocol as iptables and /etc/protocols name it.
type Protocol string

// The protocols that have ports.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Service is a port of the host, written "udp/53".
type Service struct {
	Protocol Protocol
	Port     uint16
}

// ParseService reads the form "tcp/80" or "udp/53".
func ParseService(s string) (Service, error) {
	proto, port, ok := strings.Cut(s, "/")
	if !ok || (Protocol(proto) != TCP && Protocol(proto) != UDP) {
		return Service{}, fmt.Errorf("service %q is not of the form \"tcp/PORT\" or \"udp/PORT\"", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Service{}, fmt.Errorf("service %q has no port between 1 and 65535", s)
	}
	return Service{Protocol(proto), uint16(n)}, nil
}

// String returns the form that ParseService reads.
func (s Service) String() string { return string(s.Protocol) + "/" + strconv.Itoa(int(s.Port)) }
