package config

import (
	"strconv"
	"strings"
)

// raw is the configuration as it is written, before any value is checked.
type raw struct {
	Server struct {
		Socket    string
		Listen    string
		TokenFile string
		Hosts     []string
	}
	Database struct {
		Driver string
		Path   string
	}
	Network struct {
		Subnet            string
		ExternalInterface string
		Firewall          string
		OnShutdown        string
		EgressDeny        []string
		HostAccess        []string
		DNS               []string
		MTU               int64
		Pool              int64
		Bridge            struct {
			Enabled bool
			Name    string
			Subnet  string
		}
	}
	VMM struct {
		Driver  string
		UIDBase int64
	}
	Images struct {
		Dir string
	}
}

// setting is one key of the file.
type setting struct {
	key   string // path, as in "network.bridge.name"
	field any    // where the value goes: *string, *bool, *int64 or *[]string
	def   string // default, written as an environment variable would be
}

// settings returns every key, in the order of the default file. Defaults,
// environment variables and the search for unknown keys all go by this table.
func (r *raw) settings() []setting {
	return []setting{
		{"server.socket", &r.Server.Socket, "/run/zwrm/zwrmd.sock"},
		{"server.listen", &r.Server.Listen, ""},
		{"server.token_file", &r.Server.TokenFile, ""},
		{"server.hosts", &r.Server.Hosts, ""},
		{"database.driver", &r.Database.Driver, "sqlite"},
		{"database.path", &r.Database.Path, "/var/lib/zwrm/state.db"},
		{"network.subnet", &r.Network.Subnet, "172.16.0.0/16"},
		{"network.external_interface", &r.Network.ExternalInterface, ""},
		{"network.firewall", &r.Network.Firewall, "iptables"},
		{"network.on_shutdown", &r.Network.OnShutdown, "clean"},
		{"network.egress_deny", &r.Network.EgressDeny, "169.254.0.0/16"},
		{"network.host_access", &r.Network.HostAccess, ""},
		{"network.dns", &r.Network.DNS, ""},
		{"network.mtu", &r.Network.MTU, "0"},
		{"network.pool", &r.Network.Pool, "64"},
		{"network.bridge.enabled", &r.Network.Bridge.Enabled, "false"},
		{"network.bridge.name", &r.Network.Bridge.Name, "zwrmd0"},
		{"network.bridge.subnet", &r.Network.Bridge.Subnet, "10.0.0.0/16"},
		{"vmm.driver", &r.VMM.Driver, "auto"},
		{"vmm.uid_base", &r.VMM.UIDBase, "1879048192"},
		{"images.dir", &r.Images.Dir, "/var/lib/zwrm/images"},
	}
}

// section returns the path of the table that the key stands in.
func (s setting) section() string { return parent(s.key) }

// setText stores a value written as in an environment variable, where a list
// has commas. It reports whether the text is of the key's type.
func (s setting) setText(text string) bool {
	var err error
	switch field := s.field.(type) {
	case *string:
		*field = text
	case *bool:
		var b bool
		if b, err = strconv.ParseBool(text); err == nil {
			*field = b
		}
	case *int64:
		var n int64
		if n, err = strconv.ParseInt(text, 10, 64); err == nil {
			*field = n
		}
	case *[]string:
		*field = splitList(text)
	}
	return err == nil
}

// typeName returns the key's type, and how a value of it is written in the file.
func (s setting) typeName() (name, form string) {
	switch s.field.(type) {
	case *bool:
		return "a boolean", "use true or false"
	case *int64:
		return "an integer", "use digits without quotes"
	case *[]string:
		return "a list of strings", `use the form ["a", "b"]`
	default:
		return "a string", "put it in quotes"
	}
}

func splitList(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// parent returns the path without its last name; of a single name, "".
func parent(path string) string {
	return path[:max(strings.LastIndexByte(path, '.'), 0)]
}

// lastName returns the last name of the path.
func lastName(path string) string {
	return path[strings.LastIndexByte(path, '.')+1:]
}
