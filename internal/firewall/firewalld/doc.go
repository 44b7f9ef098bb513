// Package firewalld asks firewalld over D-Bus to let VMs pass.
//
// firewalld rejects what interfaces of no zone send, to the host and through it. No
// rule of ours can undo that, since what one table accepts another may still
// reject. So while zwrmd runs, firewalld has all TAPs in its zone "trusted", of which
// it accepts everything, and our own rules decide about VMs. It is what this command
// does, and one binding for all VMs:
//
//	firewall-cmd --zone=trusted --add-interface=zvm+
//
// It goes by the name of the interface and never by addresses, which could be forged
// on any other interface. It is in the runtime configuration alone, and nothing is
// reloaded for it. firewalld forgets it when it restarts and, unless FlushAllOnReload
// is off, when it reloads; Changed tells of both. Until it is made again VMs have no
// network.
//
// There is no mark by which to know the binding for ours: it is taken for ours when it
// stands at runtime and not in the permanent configuration. So one that a killed
// zwrmd left is taken away by the next one's Remove. So is one that somebody else made
// at runtime, who wanted the same; whoever makes it permanent keeps it. After
// firewall-cmd --runtime-to-permanent it is permanent, and stays behind: State tells.
//
// Who put TAPs into another zone, one by one or by a wildcard, wants something else
// than we do: that is a conflict, which we tell of and leave alone.
//
// firewalld before 2.0 (Debian 12 has 1.3.3) empties all tables of iptables whenever it
// starts, reloads or stops, whoever made the rules. The dataplane iptables is gone then
// until it is repaired; that of nftables is left alone.
package firewalld
