// Package config reads /etc/zwrm/config.toml into a checked, typed Config. It
// does not touch the host: what a value means there is checked by the daemon.
package config
