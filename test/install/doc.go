// Package install tests make install and make uninstall, on a machine whose /etc and
// /usr/local are layers of the test's own.
package install
