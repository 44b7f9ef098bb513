// Command zwrm-init is the first process of a guest: /init of its initramfs.
package main

import (
	"fmt"
	"os"

	"zwrm/internal/guest"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "zwrm-init: this is the first process of a guest; it mounts file systems and ends the machine, so it does not run elsewhere")
		os.Exit(1)
	}
	console := guest.NewConsole(os.Stdout)
	console.Report(guest.MountAll(guest.Mounts()))
	cmdline, err := guest.ReadCmdline()
	console.Report(err)
	rooted := cmdline.Root.Device != ""
	console.Report(guest.LoadModules(guest.ModuleDir, guest.Modules(rooted)))
	network := guest.BringUp(console, cmdline.IP)
	if rooted {
		console.Report(guest.EnterRoot(console, cmdline, network))
	} else {
		console.Report(guest.RunWorkload(console))
	}
	console.Report(guest.End(cmdline))
}
