// Package config reads /etc/zwrm/config.toml into a checked, typed Config. It
// does not touch the host: what a value means there is checked by the daemon.
//
// The file is read into a private struct first, then the environment is laid
// over it, then the values are checked. No step stops at its first problem,
// since an operator who mends a file wants to start the daemon once.
package config
