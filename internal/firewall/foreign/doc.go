// Package foreign has the firewalls of others let through what ours lets through, and
// says where they do not.
//
// With the dataplane nftables an accept of ours is not final: the packet goes on to
// the tables of others, and Docker and ufw have the chains FORWARD and INPUT of
// iptables drop what none of their rules is about. So a few accepts go in there. How
// many does not depend on VMs or apps, and where nothing would drop there are none:
//
//	-o eth0 ... --src-group VMs                  -j ACCEPT   VM to the internet
//	-i eth0 ... --dst-group VMs ... ESTABLISHED  -j ACCEPT   and back
//	... --src-group VMs --dst-group VMs          -j ACCEPT   VM to VM; ours decides which
//	... --src-group VMs ...                      -j ACCEPT   VM to host: ping, host_access
//	... --dst-group VMs                          -j ACCEPT   host to VM
//
// They are first in DOCKER-USER, the chain that Docker leaves to others, if FORWARD
// calls it, and else in the kernel's chain itself. Each has a comment that begins with
// "zwrm:", and by that and the match devgroup a process with no memory knows it. It must
// be narrow, since after a crash it may stand while our own table is gone.
//
// # ufw
//
// It empties and deletes its own chains, one after the other, whenever it reloads, and
// it leaves those of the kernel alone (MANAGE_BUILTINS=no, its default). A rule in
// ufw-user-input would be lost by each reload, and worse: one that is put there while
// ufw is at it keeps the chain from being deleted, and ufw, which finds the chain,
// takes itself for started and leaves the host without any rules (ufw_start in
// /lib/ufw/ufw-init-functions). So nothing goes into chains of ufw. While it reloads, and
// for as long as it is disabled, accepts stay that stand.
//
// # What is only told
//
// Rules of iptables-legacy beside those of iptables-nft, chains of nftables whose
// policy is drop, and other tables of iptables are nobody's to change but their
// owners'. Conflicts names them, and the commands that mend it.
package foreign
