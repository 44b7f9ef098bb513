package store

import "zwrm/internal/effect"

// The side effects of a Store. Those of rows are its writes. Several may share one
// transaction: what holds before and after it holds before and after each of them.
const (
	opCreate   effect.Op = "store.create"
	opUpdateVM effect.Op = "store.update-vm"
	opRetire   effect.Op = "store.retire"
	opRemove   effect.Op = "store.remove"
	opPrune    effect.Op = "store.prune-released"
	opSetMeta  effect.Op = "store.set-fact"

	opMakeFolder   effect.Op = "store.make-folder"
	opLock         effect.Op = "store.make-lock-file"
	opWritePID     effect.Op = "store.write-pid"
	opMakeFile     effect.Op = "store.make-file"
	opJournal      effect.Op = "store.set-journal-mode"
	opBackUp       effect.Op = "store.write-backup"
	opRenameBackUp effect.Op = "store.rename-backup"
	opMigrate      effect.Op = "store.migrate"
	opCheckpoint   effect.Op = "store.checkpoint"
)
