package xtables

import (
	"context"
	"fmt"
	"time"

	"zwrm/internal/effect"
	"zwrm/internal/firewall"
)

// Variant says which of the two implementations a program is of.
type Variant string

// The variants. The host's choice is what its program "iptables" is.
const (
	HostsChoice Variant = ""
	NFT         Variant = "-nft"
	Legacy      Variant = "-legacy"
)

// writeTimeout ends a program that hangs. It is far more than the 5 s that one
// waits for the lock of iptables.
const writeTimeout = 30 * time.Second

// Tool is iptables or ip6tables: the programs that serve one family.
type Tool struct {
	Name    string // "iptables" or "ip6tables", as in messages
	Family  firewall.Family
	runner  Runner
	hook    effect.Hook // of Restore
	save    string      // paths
	restore string
}

// Look finds a program, as exec.LookPath does.
type Look func(name string) (path string, err error)

// Find returns the tool of a family. A program that is not there is an error that
// wraps that of look and says which package has it. The hook, which may be nil, is told
// of what the tool changes.
func Find(look Look, runner Runner, family firewall.Family, variant Variant, hook effect.Hook) (Tool, error) {
	t := Tool{Name: "iptables", Family: family, runner: runner, hook: hook}
	if family == firewall.IPv6 {
		t.Name = "ip6tables"
	}
	var err error
	if t.save, err = FindProgram(look, t.Name+string(variant)+"-save"); err != nil {
		return Tool{}, err
	}
	t.restore, err = FindProgram(look, t.Name+string(variant)+"-restore")
	return t, err
}

// FindProgram returns the path of a program of the package iptables.
func FindProgram(look Look, name string) (string, error) {
	path, err := look(name)
	if err != nil {
		return "", fmt.Errorf("find program %q: %w; install the package \"iptables\" (Debian: apt-get install iptables)", name, err)
	}
	return path, nil
}

// Save returns what iptables-save prints. All tables are asked for at once: asking
// for one by name would make it where it does not exist.
func (t Tool) Save(ctx context.Context, options ...string) (string, error) {
	text, err := t.runner.Run(ctx, "", t.save, options...)
	if err != nil {
		return "", fmt.Errorf("read the rules of %s: %w", t.Name, err)
	}
	return text, nil
}

// Restore gives a script to iptables-restore, which changes what the script names
// and nothing else, each table at once. A write is never cut off when the request
// that asked for it is given up: nobody would know what came of it.
func (t Tool) Restore(ctx context.Context, script string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	return effect.Do(t.hook, effect.Op(t.Name+".restore"), func() error {
		_, err := t.runner.Run(ctx, script, t.restore, "--noflush", "-w", "5")
		return err
	})
}
