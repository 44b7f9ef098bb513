// Package fleet runs apps: it deploys, scales and destroys them, keeps their VMs
// running, and finds both again after zwrmd or the host was restarted. It decides
// what there should be and in which order it happens; rows, kernel and processes
// are other packages' work.
package fleet
