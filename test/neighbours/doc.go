// Package neighbours tests ZWRM beside other firewalls: the real programs, in the
// network of a zwrmtest.Host. scripts/neighbours.sh unpacks them into
// build/neighbours. Nothing of them is installed, and what they write outside of
// their network is in folders and mounts that end with the test.
package neighbours
