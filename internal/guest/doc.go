// Package guest is what runs inside a microVM: the first process of the guest.
// It makes the kernel's file systems and devices usable, gives the guest the
// network that the kernel command line describes, and then hands over to the
// root file system or to the workload of the initramfs. It goes on after every
// failure that leaves something to go on with: a guest that says on its console
// what is wrong is worth more than one whose kernel panics.
package guest
