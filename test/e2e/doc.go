// Package e2e tests ZWRM as its users have it: the real zwrmd and zwrm, and
// microVMs with real kernels, which say from inside whom they reach.
package e2e
