package daemon_test
import ("testing";"os/exec";"zwrm/test/zwrmtest")
func TestX(t *testing.T){ out,_:=exec.Command("sh","-c","ls -l /dev/kvm; grep kvm /proc/self/mountinfo; time qemu-system-x86_64 -M microvm -accel kvm -display none -m 16M -nodefaults 2>&1 | head -3").CombinedOutput(); t.Log(string(out)); _ = zwrmtest.TCP }
