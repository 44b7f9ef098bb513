package guest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// SetHostName sets the name that the running guest goes by.
func (n Network) SetHostName() error {
	if err := unix.Sethostname([]byte(n.HostName)); err != nil {
		return fmt.Errorf("set host name %q: %w", n.HostName, err)
	}
	return nil
}

// WriteNames writes etc/hostname and, when name servers are given,
// etc/resolv.conf below root. etc/hostname is for the init of a root file
// system: systemd and others would set the name of the machine that the file
// system was made on.
func (n Network) WriteNames(root string) error {
	err := replaceFile(filepath.Join(root, "etc/hostname"), n.HostName+"\n")
	if len(n.DNS) == 0 {
		return err
	}
	return errors.Join(err, replaceFile(filepath.Join(root, "etc/resolv.conf"), resolvConf(n.DNS)))
}

// resolvConf returns the text of a resolv.conf(5).
func resolvConf(servers []netip.Addr) string {
	var b strings.Builder
	for _, server := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	return b.String()
}

// replaceFile puts a new file in the place of the old one. The old one is not
// written to: in many root file systems it is a symbolic link to what a resolver
// daemon makes later, or makes never.
func replaceFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make folder of %q: %w", path, err)
	}
	next := path + ".zwrm"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write %q: %w", path, errors.Join(err, os.Remove(next)))
	}
	return nil
}
