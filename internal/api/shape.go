package api

import (
	"net/netip"
	"time"

	"zwrm/internal/doctor"
	"zwrm/internal/event"
	"zwrm/internal/firewall"
	"zwrm/internal/image"
	"zwrm/internal/model"
	"zwrm/internal/verdict"
	"zwrm/internal/wire"
)

// convert turns each element into its JSON shape. The result is never nil, since
// an empty list is "[]" and not "null".
func convert[M, W any](in []M, shape func(M) W) []W {
	out := make([]W, len(in))
	for i, m := range in {
		out[i] = shape(m)
	}
	return out
}

func wireApp(app model.App, running int) wire.App {
	return wire.App{
		Name:    string(app.Name),
		Image:   string(app.Spec.Image),
		Scale:   app.Spec.Scale,
		Running: running,
		Group:   app.ID.Group().String(),
	}
}

func (s service) wireVM(vm model.VM) wire.VM {
	return wire.VM{
		Name:       string(vm.Name),
		App:        string(vm.AppName),
		State:      string(vm.State),
		Slot:       uint32(vm.Slot),
		Prefix:     s.Layout.Block(vm.Slot).String(),
		Gateway:    s.Layout.Gateway(vm.Slot).String(),
		GuestIP:    s.Layout.Guest(vm.Slot).String(),
		Netmask:    s.Layout.Netmask().String(),
		TAP:        vm.Slot.TAP(),
		MAC:        s.Layout.GuestMAC(vm.Slot).String(),
		KernelArgs: s.Layout.KernelArgs(vm.Slot, string(vm.Name), s.DNS),
		PID:        vm.Process.PID,
		Image:      string(vm.Spec.Image),
		CreatedAt:  vm.CreatedAt.UTC(),
		Attachment: vm.Attachment,
		Reason:     vm.Reason,
	}
}

func wireImage(img image.Image) wire.Image {
	return wire.Image{
		Name:      string(img.Name),
		Kernel:    img.Kernel,
		Initrd:    img.Initrd,
		Rootfs:    img.Rootfs,
		Args:      img.Args,
		CreatedAt: img.CreatedAt.UTC(),
	}
}

func wireExplanation(a verdict.Answer) wire.Explanation {
	out := wire.Explanation{
		Verdict:     string(a.Verdict),
		Reason:      string(a.Reason),
		Why:         a.Why,
		Note:        a.Note,
		Source:      address(a.Flow.Source),
		Destination: address(a.Flow.Dest),
		In:          a.Flow.From.Name,
		Out:         a.Flow.To.Name,
		Masqueraded: a.Masqueraded,
	}
	if a.Rule != (firewall.Rule{}) {
		out.Rule = a.Rule.String()
	}
	if a.Flow.Service != (model.Service{}) {
		out.Service = a.Flow.Service.String()
	}
	return out
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func wireFinding(f doctor.Finding) wire.Finding {
	return wire.Finding{Subject: f.Subject, Severity: string(f.Severity), What: f.What, Mend: f.Mend}
}

func wireEvent(e event.Event) wire.Event {
	out := wire.Event{At: e.At.UTC(), Kind: string(e.Kind), Object: e.Object, Message: e.Message, TookMS: float64(e.Took.Round(10*time.Microsecond)) / float64(time.Millisecond)}
	if len(e.By) > 0 {
		out.By = Culprits(e.By)
	}
	return out
}

// Culprits returns processes as they are told, never null.
func Culprits(by []event.Culprit) []wire.Culprit {
	out := make([]wire.Culprit, len(by))
	for i, c := range by {
		out[i] = wire.Culprit{PID: c.PID, Program: c.Program}
	}
	return out
}
