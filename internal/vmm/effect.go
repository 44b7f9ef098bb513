package vmm

import "zwrm/internal/effect"

// The side effects of this package.
const (
	opConsole  effect.Op = "vmm.make-console-log"
	opMessages effect.Op = "vmm.empty-messages"
	opLaunch   effect.Op = "vmm.launch"
	opSignal   effect.Op = "vmm.signal"
	opCopyLog  effect.Op = "vmm.copy-console-log"
	opKeepLog  effect.Op = "vmm.rename-console-log"
	opCutLog   effect.Op = "vmm.cut-console-log"
)
