// Package reconcile keeps the kernel at the plan. It has two paths to the same
// state: the short one opens, closes and removes the links of certain VMs, the
// full one compares everything and mends what differs.
package reconcile
