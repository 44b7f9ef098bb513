// Package bench measures the two dataplanes beside plain routing, in one run and in
// turn, and how fast drift is mended with 8 VMs and with 16,384.
package bench
