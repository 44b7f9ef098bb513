package vmm

import "zwrm/internal/effect"

// The side effects of this package.
const (
	opMakeFolder  effect.Op = "vmm.make-folder"
	opClearFolder effect.Op = "vmm.clear-folder"
	opGiveFolder  effect.Op = "vmm.give-folder"
	opConsole     effect.Op = "vmm.make-console-log"
	opGiveConsole effect.Op = "vmm.give-console-log"
	opMessages    effect.Op = "vmm.empty-messages"
	opLaunch      effect.Op = "vmm.launch"
	opExpend      effect.Op = "vmm.set-oom-score"
	opSignal      effect.Op = "vmm.signal"
	opCopyLog     effect.Op = "vmm.copy-console-log"
	opKeepLog     effect.Op = "vmm.rename-console-log"
	opCutLog      effect.Op = "vmm.cut-console-log"
)
