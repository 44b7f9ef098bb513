// Package bench measures attach and detach beside the bare kernel calls for the
// same objects, with no VM and with 16,384 VMs present; and the two dataplanes
// beside plain routing. What is compared is measured in one run, in turn.
package bench
