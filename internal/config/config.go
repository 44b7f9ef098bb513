package config

import (
	"net/netip"

	"zwrm/internal/ipam"
	"zwrm/internal/model"
)

// Dataplane is the program that zwrmd keeps the rules with.
type Dataplane string

// Shutdown says what a clean stop leaves of the network.
type Shutdown string

// The values of [network] firewall and on_shutdown.
const (
	Iptables Dataplane = "iptables"
	Nftables Dataplane = "nftables"

	ShutdownClean Shutdown = "clean" // rules and chains removed, VMs cut off
	ShutdownKeep  Shutdown = "keep"  // everything left as it is
)

// Config is the configuration, checked and with every default filled in.
type Config struct {
	Server   Server
	Database Database
	Network  Network
	VMM      VMM
	Images   Images
}

// Server is where the API listens.
type Server struct {
	Socket    string   // absolute path
	Listen    string   // TCP host:port; empty: the socket only
	TokenFile string   // absolute path of the bearer token that Listen asks for; set when Listen is
	Hosts     []string // names, in lower case, that clients by TCP may call this host by, beside its addresses
}

// Database is where the state is kept.
type Database struct{ Path string } // absolute

// Network is the [network] section.
type Network struct {
	Layout            ipam.Layout
	ExternalInterface string // empty: the interface of the default route
	Firewall          Dataplane
	OnShutdown        Shutdown
	EgressDeny        []netip.Prefix
	HostAccess        []model.Service
	DNS               []netip.Addr // resolvers named to guests, at most two
	MTU               int          // bytes; 0: that of the external interface
	Pool              int          // how many TAPs are made ahead of their VMs
	Bridge            Bridge
}

// Bridge is the [network.bridge] section: private networking. Name and Subnet
// are valid when it is not enabled, too; only then may Subnet overlap the VMs'.
type Bridge struct {
	Enabled bool
	Name    string
	Subnet  netip.Prefix
}

// VMM is how the VMs are run. The one of slot n runs as uid and gid UIDBase + n, and
// what zwrmd tries out before there is a VM as the one behind those.
type VMM struct {
	Driver  string // which program: "auto" or a driver's name
	UIDBase uint32
}

// Images is where guest images are kept.
type Images struct{ Dir string } // absolute path
