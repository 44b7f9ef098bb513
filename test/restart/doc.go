// Package restart tests what becomes of VMs when zwrmd ends and starts again: after
// a stop, a crash, an upgrade, a downgrade, a reboot.
package restart
