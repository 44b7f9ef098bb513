// Package firewall says who may talk to whom, in rules that no dataplane's
// syntax shows through. Build turns a Policy into a Ruleset; a package below
// this one renders the Ruleset for one dataplane and keeps the kernel at it.
package firewall
