package guest

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseCmdline(t *testing.T) {
	tests := []struct {
		name string
		text string
		want Cmdline
	}{
		{"empty", "", Cmdline{}},
		{"only white space", " \t\n", Cmdline{}},
		{
			"what ZWRM passes",
			"console=ttyS0 quiet reboot=t panic=-1 root=/dev/vda rw ip=172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off\n",
			Cmdline{IP: "172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off", Root: Root{Device: "/dev/vda", Writable: true}, Reboot: true},
		},
		{"last one counts", "ip=off root=/dev/vda rw ip=10.0.0.2 root=/dev/vdb ro", Cmdline{IP: "10.0.0.2", Root: Root{Device: "/dev/vdb"}}},
		{"taken back", "root=/dev/vda root=", Cmdline{}},
		{"file system", "root=/dev/vda rootfstype=xfs,ext4 rootflags=noatime,data=ordered", Cmdline{
			Root: Root{Device: "/dev/vda", Types: []string{"xfs", "ext4"}, Flags: "noatime,data=ordered"},
		}},
		{"empty file system type", "rootfstype=,", Cmdline{Root: Root{Types: []string{}}}},
		{"init", "init=/bin/sh", Cmdline{Init: "/bin/sh"}},
		{"for the next init", "root=/dev/vda -- init=/x ip=off single", Cmdline{Root: Root{Device: "/dev/vda"}}},
		{"no values", "ip root init reboot", Cmdline{}},
		{"longer keys are not ours", "xip=off ip6=off rootwait rootdelay=3 roots=x reboot.x=1", Cmdline{}},
		{"quoted value", `init="/sbin/my init" root=/dev/vda`, Cmdline{Init: "/sbin/my init", Root: Root{Device: "/dev/vda"}}},
		{"quoted argument", `"init=/sbin/my init" root=/dev/vda`, Cmdline{Init: "/sbin/my init", Root: Root{Device: "/dev/vda"}}},
		{"quote never closed", `root=/dev/vda init="/a ip=off`, Cmdline{Root: Root{Device: "/dev/vda"}, Init: "/a ip=off"}},
		{"quote in the middle stays", `rootflags=a"b c"d`, Cmdline{Root: Root{Flags: `a"b c"d`}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := ParseCmdline(test.text); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add(`console=ttyS0 ip=172.16.0.2::172.16.0.1:255.255.255.252:web-0:eth0:off`)
	f.Add(`"a b"="c d" root=" -- "`)
	f.Fuzz(func(t *testing.T, text string) {
		args := splitArgs(text)
		for _, arg := range args {
			if !strings.Contains(text, `"`) && strings.ContainsAny(arg, " \t\n\v\f\r") {
				t.Errorf("argument %q of %q has white space and no quotes", arg, text)
			}
			if len(arg) > len(text) {
				t.Errorf("argument %q is longer than its command line %q", arg, text)
			}
		}
		_ = ParseCmdline(text)
	})
}
