package qemu

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
)

// TestTrialUnderTCG is the control: where the trial fails with KVM, it is not the
// trial's fault.
func TestTrialUnderTCG(t *testing.T) {
	d := openDriver(t)
	if err := d.try(t.Context(), TCG); err != nil {
		t.Error(err)
	}
}

func TestOpenSaysOnceWhatItDecided(t *testing.T) {
	var logged bytes.Buffer
	d, err := Open(t.Context(), testUID, slog.New(slog.NewTextHandler(&logged, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[Accel]int{KVM: 0, TCG: 1}[d.Accel()]
	if got := strings.Count(logged.String(), "level=WARN"); got != want || strings.Count(logged.String(), "\n") != want {
		t.Errorf("%s: log has %d warnings, want %d:\n%s", d.Accel(), got, want, &logged)
	}
	if d.Accel() == TCG && (!strings.Contains(logged.String(), "reason=") || !strings.Contains(logged.String(), "cost=")) {
		t.Errorf("the warning does not say why and what it costs:\n%s", &logged)
	}
	if (d.NoKVM() == nil) != (d.Accel() == KVM) {
		t.Errorf("%s: without KVM because of %v", d.Accel(), d.NoKVM())
	}
	if d.Name() != "qemu" {
		t.Errorf("name is %q", d.Name())
	}
	t.Logf("accelerator %s, sandbox %t, TSC %d kHz", d.Accel(), d.sandbox, d.tscKHz)
}

func TestOpenWithoutQEMU(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	machine, err := machineFor(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), testUID, nil, nil)
	if err == nil || !strings.Contains(err.Error(), machine.program) || !strings.Contains(err.Error(), machine.debian) {
		t.Errorf("Open: %v, want an error that names program and package", err)
	}
}

// TestUsable: QEMU may go while zwrmd runs.
func TestUsable(t *testing.T) {
	d := scriptDriver(t, "exit 0")
	if err := d.Usable(); err != nil {
		t.Errorf("usable: %v", err)
	}
	if err := os.Remove(d.program); err != nil {
		t.Fatal(err)
	}
	if err := d.Usable(); err == nil || !strings.Contains(err.Error(), d.program) {
		t.Errorf("without a program: %v", err)
	}
}

func TestAccelerate(t *testing.T) {
	good := map[string]string{"amd64": "exit 33", "arm64": "exit 0"}[runtime.GOARCH]
	noKVM := "echo 'qemu: failed to initialize kvm: Permission denied' >&2; echo more >&2; exit 1"
	tests := []struct {
		name, kvm, tcg string
		accel          Accel
		reason, err    string
	}{
		{"KVM works", good, "exit 1", KVM, "", ""},
		{"KVM refuses", noKVM, good, TCG, "exit status 1: qemu: failed to initialize kvm: Permission denied", ""},
		{"KVM ends the guest otherwise", "exit 35", good, TCG, "exit status 35", ""},
		{"KVM is killed", "kill -SEGV $$", good, TCG, "signal: segmentation fault", ""},
		{"KVM does each instruction in software", "while :; do :; done", good, TCG, "CPU time", ""},
		{"QEMU is broken", noKVM, "echo no firmware >&2; exit 1", "", "", "no firmware"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := scriptDriver(t, "case \"$*\" in *'-accel kvm'*) "+test.kvm+";; *) "+test.tcg+";; esac")
			accel, reason, err := d.accelerate(t.Context())
			if accel != test.accel || !says(reason, test.reason) || !says(err, test.err) {
				t.Errorf("accelerate = %q, %v, %v, want %q, %q, %q", accel, reason, err, test.accel, test.reason, test.err)
			}
			if test.err != "" && !says(err, "Permission denied") {
				t.Errorf("error %v does not say why KVM does not work", err)
			}
		})
	}
}

// says reports whether an error has a text; none has the empty one.
func says(err error, text string) bool {
	if err == nil || text == "" {
		return err == nil && text == ""
	}
	return strings.Contains(err.Error(), text)
}

func TestTrialEndsWithItsContext(t *testing.T) {
	d := scriptDriver(t, "exec sleep 60")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("zwrmd is told to stop")
	cancel(stop)
	if _, _, err := d.accelerate(ctx); !errors.Is(err, stop) {
		t.Errorf("accelerate: %v, want %v", err, stop)
	}
}
