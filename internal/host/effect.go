package host

import (
	"slices"

	"zwrm/internal/effect"
	"zwrm/internal/host/netlink"
)

// The side effects of a Kernel.
const (
	opMakeTAP         effect.Op = "host.make-tap"
	opShapeTAP        effect.Op = "host.shape-tap"
	opOwnTAP          effect.Op = "host.own-tap"
	opPersistTAP      effect.Op = "host.persist-tap"
	opAddress         effect.Op = "host.set-address-and-up"
	opRoute           effect.Op = "host.make-route"
	opSetGroup        effect.Op = "host.set-group"
	opSetUp           effect.Op = "host.set-up"
	opRename          effect.Op = "host.rename-link"
	opRecycle         effect.Op = "host.recycle-tap"
	opSetAlias        effect.Op = "host.set-alias"
	opCondemn         effect.Op = "host.condemn-links"
	opDeleteLink      effect.Op = "host.delete-link"
	opMakeBridge      effect.Op = "host.make-bridge"
	opShapeBridge     effect.Op = "host.shape-bridge"
	opSysctl          effect.Op = "host.set-sysctl"
	opForgetFlow      effect.Op = "host.forget-connections"
	opForgetNeighbour effect.Op = "host.forget-neighbours"
	opSend            effect.Op = "host.send-packet"
	opMakeScratch     effect.Op = "host.make-scratch-tap"
	opShapeScratch    effect.Op = "host.shape-scratch-tap"
	opRedirect        effect.Op = "host.redirect-scratch-tap"
	opInject          effect.Op = "host.inject-frame"
)

// change carries out requests that change something. Each datagram is a side effect
// of its own: the process can be killed between two of them.
func (k *Kernel) change(conn *netlink.Conn, op effect.Op, requests ...*netlink.Request) error {
	var first error
	for batch := range slices.Chunk(requests, netlink.MaxBatch) {
		done := false
		err := effect.Do(k.hook, op, func() error {
			done = true
			return conn.Do(batch...)
		})
		if !done {
			for _, r := range batch {
				r.Refuse(err)
			}
		}
		if first == nil {
			first = err
		}
	}
	return first
}
