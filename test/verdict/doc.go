// Package verdict tests that the two dataplanes and the evaluator of rules mean the
// same: random rules and random packets, of which the evaluator says what becomes of
// them, and each dataplane has the kernel do it.
package verdict
