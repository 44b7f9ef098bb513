package config

// Default returns the commented default file: what zwrmd --generate-config
// prints and make install puts to /etc/zwrm/config.toml.
func Default() string { return defaultFile }

const defaultFile = `# Configuration of zwrmd, read when it starts.
#
# Every key stands here with its default; a key that is left out has the same.
# A key that zwrmd does not know is an error, so that no typing error goes
# unseen. "zwrmd --check-config" says what is wrong with this file and this host.
#
# An environment variable goes before this file. Its name is ZWRM_, the section
# and the key, and a list has commas:
#
#   ZWRM_NETWORK_BRIDGE_ENABLED=true
#   ZWRM_NETWORK_EGRESS_DENY=169.254.0.0/16,10.9.0.0/16

[server]
# Unix socket of the API, which the command zwrm talks to. Its owner is root:zwrm,
# its mode 0660.
socket = "/run/zwrm/zwrmd.sock"

# TCP address of the API, such as "127.0.0.1:8080". Empty: the socket only.
listen = ""

# File that holds the token of those who come by TCP. Must be set when listen is.
# Nobody but root and its group may be able to read it.
token_file = ""

# Names by which those who come by TCP may call this host, such as
# ["vms.example.com"], beside "localhost" and the address that they come to.
hosts = []

[database]
# "sqlite" is the only one.
driver = "sqlite"

# File that remembers apps, VMs and their addresses.
path = "/var/lib/zwrm/state.db"

[network]
# Range that VMs get their /30 blocks from: a /16 holds 16384 VMs, a /30 one. It
# must not overlap a network that this host reaches, and cannot change while
# there are VMs.
subnet = "172.16.0.0/16"

# Interface that leads to the internet, such as "eth0". Empty: that of the
# default route.
external_interface = ""

# What keeps the rules: "iptables", or "nftables", whose rules nobody can flush
# while zwrmd runs, and which takes no longer however many apps there are.
firewall = "iptables"

# What a stop of zwrmd leaves. "clean": no rules; VMs run on, cut off until the
# next start. "keep": everything, so that VMs stay connected during an upgrade.
on_shutdown = "clean"

# Networks that VMs must not reach. The default is link-local, where clouds have
# the metadata service that gives out the credentials of this host.
egress_deny = ["169.254.0.0/16"]

# Ports of this host that VMs may reach at their gateway, such as
# ["udp/53", "tcp/3128"]. Ping is always answered, all else is dropped.
host_access = []

# Resolvers that VMs are told of, at most two, such as ["1.1.1.1", "9.9.9.9"].
dns = []

# Largest packet to and from a VM in bytes, 576 to 65521. 0: that of the
# external interface.
mtu = 0

# How many VMs' networks are made ahead, 0 to 4096, so that a new VM gets one at
# once. Each is a TAP that carries nothing, and takes about 60 KiB.
pool = 64

# Private networking.
[network.bridge]
# true: VMs of one app reach each other, and no VM of another app.
# false: no VM reaches another one.
enabled = false

# Interface that holds the first address of the subnet below. It has no ports:
# no traffic of a VM goes through it.
name = "zwrmd0"

# Range of private networking. Must not overlap the range of the VMs.
subnet = "10.0.0.0/16"

[vmm]
# Program that runs the VMs: "qemu", or "auto" for the first that works here.
driver = "auto"

# First of the users that VMs run as, each VM as one of its own: as uid and gid
# uid_base plus its slot, so of a /16 that is 16385 numbers. No account of this
# host may be among them, none needs to be made.
uid_base = 1879048192

[images]
# Folder of the guest images that "zwrm image add" takes.
dir = "/var/lib/zwrm/images"
`
