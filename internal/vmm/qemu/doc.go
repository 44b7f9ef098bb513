// Package qemu runs guests with QEMU: "-M microvm" on amd64 and "-M virt" on
// arm64, with KVM where it works and with QEMU's own translator (TCG) elsewhere.
//
// In a VM's folder, which is QEMU's working directory, it keeps
//
//	console.log    the guest's serial port
//	vmm.log        what QEMU itself says
//	qmp.sock       the control socket, QEMU Machine Protocol
package qemu
