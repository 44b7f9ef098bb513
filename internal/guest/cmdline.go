package guest

import (
	"fmt"
	"os"
	"strings"
)

// Cmdline is what the init reads from the kernel command line
// (Linux Documentation/admin-guide/kernel-parameters.rst). Where a parameter is
// given twice the last one counts, as in the kernel.
type Cmdline struct {
	IP     string // value of ip=; empty: none
	Root   Root
	Init   string // init=: what to run in the root file system; empty: the usual places
	Reboot bool   // reboot= is given: a restart is what ends this machine
}

// Root is the root file system that the command line asks for.
type Root struct {
	Device   string   // root=; empty: stay in the initramfs
	Types    []string // rootfstype=; empty: try what the kernel knows
	Flags    string   // rootflags=: options for the file system itself
	Writable bool     // rw; the kernel's default is ro
}

// ReadCmdline reads the command line that the kernel was started with.
func ReadCmdline() (Cmdline, error) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return Cmdline{}, fmt.Errorf("read kernel command line: %w", err)
	}
	return ParseCmdline(string(text)), nil
}

// ParseCmdline picks the init's parameters out of a kernel command line. What
// follows "--" is for the next init, and what is not known is not ours.
func ParseCmdline(text string) Cmdline {
	var c Cmdline
	for _, arg := range splitArgs(text) {
		if arg == "--" {
			break
		}
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "ip":
			c.IP = value
		case "root":
			c.Root.Device = value
		case "rootfstype":
			c.Root.Types = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
		case "rootflags":
			c.Root.Flags = value
		case "rw":
			c.Root.Writable = true
		case "ro":
			c.Root.Writable = false
		case "init":
			c.Init = value
		case "reboot":
			c.Reboot = value != ""
		}
	}
	return c
}

// splitArgs divides a command line as next_arg in the kernel's lib/cmdline.c
// does: at white space outside of double quotes, taking the quotes off around a
// whole argument or a whole value.
func splitArgs(text string) []string {
	var args []string
	for {
		text = strings.TrimLeft(text, " \t\n\v\f\r")
		if text == "" {
			return args
		}
		quoted, end := false, 0
		for ; end < len(text) && (quoted || !strings.ContainsRune(" \t\n\v\f\r", rune(text[end]))); end++ {
			if text[end] == '"' {
				quoted = !quoted
			}
		}
		args = append(args, unquote(text[:end]))
		text = text[end:]
	}
}

func unquote(arg string) string {
	if bare, ok := strings.CutPrefix(arg, `"`); ok {
		return strings.TrimSuffix(bare, `"`)
	}
	key, value, _ := strings.Cut(arg, "=")
	if bare, ok := strings.CutPrefix(value, `"`); ok {
		return key + "=" + strings.TrimSuffix(bare, `"`)
	}
	return arg
}
