// Package vmm runs virtual machine monitors. It starts their processes, finds
// them again after zwrmd was restarted, and stops them; each program has a
// package of its own below this one. It knows nothing of firewalls.
package vmm
