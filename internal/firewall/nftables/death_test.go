package nftables

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"zwrm/internal/firewall"
	"zwrm/internal/firewall/nftables/nfnetlink"
)

// ownerStage is the name of an environment variable that makes a process of this
// binary one that owns the table.
const ownerStage = "ZWRM_TEST_OWNER"

// ownTable applies rules, says so, and waits until it is killed, or its parent ended.
func ownTable() int {
	d, err := Open(context.Background(), nil)
	if err == nil {
		err = d.Apply(context.Background(), deathRules())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("applied")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func deathRules() firewall.Ruleset { return withApps([]firewall.App{app("web", 1)}) }

// startOwner starts a process, in the namespace of the calling thread, that owns the
// table. The returned function kills it as `kill -9` does.
func startOwner(t *testing.T) (kill func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), ownerStage+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	kill = sync.OnceFunc(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.String() != "signal: killed" {
			t.Errorf("the owner of the table ended with %v, want that it was killed", err)
		}
	})
	t.Cleanup(kill)
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "applied\n" {
		t.Fatalf("the owner of the table says %q, %v", line, err)
	}
	return kill
}

// TestKilled: when the owner is killed its table stays and goes on dropping, and the
// next owner takes it over as it is, by one transaction that deletes nothing.
// Meanwhile nothing passes between apps, and what may pass does.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	kill := startOwner(t)
	friend, victim, other := w.guest(t, 1, 1), w.guest(t, 2, 1), w.guest(t, 3, 2)
	inbox := victim.ListenPacket("udp4", "172.16.0.10:9")
	before, handles := list(t), nft(t, "-sa", "list", "table", "inet", "zwrm")
	told := record(t)

	ended := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		each := time.NewTicker(time.Millisecond)
		defer each.Stop()
		for {
			select {
			case <-ended:
				return
			case <-each.C:
				if err := other.Send(udpFrame(w.layout.GuestMAC(3), "172.16.0.14", "172.16.0.10")); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	droppedMore := func(when string) {
		t.Helper()
		was := dropped(t, firewall.OtherApp)
		reach(t, "another app "+when, other, "172.16.0.10", false)
		if dropped(t, firewall.OtherApp) == was {
			t.Errorf("%s: nothing of another app was dropped", when)
		}
		reach(t, "same app "+when, friend, "172.16.0.10", true)
	}
	droppedMore("before death")
	kill()
	if got := list(t); got != before {
		t.Errorf("the table is\n%s, was\n%s", got, before)
	}
	droppedMore("after death")
	counted := dropped(t, firewall.OtherApp)
	heir := mustOpen(t)
	if got, want := mustDiff(t, heir, deathRules()), "nftables inet zwrm flags: wanted owner,persist, found persist\n"; got != want {
		t.Errorf("differences\n%s, want\n%s", got, want)
	}
	for range 3 {
		mustApply(t, heir, deathRules())
	}
	if got, want := told(), "NEWTABLE NEWGEN"; got != want {
		t.Errorf("since before its death the table saw %s, want %s", got, want)
	}
	droppedMore("with the next owner")
	close(ended)
	sending.Wait()

	if got := strip(nft(t, "-sa", "list", "table", "inet", "zwrm")); got != strip(handles) {
		t.Errorf("the table was made anew:\n%s, was\n%s", got, handles)
	}
	if out, err := tryNFT(t, "", "delete", "table", "inet", "zwrm"); err == nil {
		t.Errorf("the table was not taken over: nft may delete it %s", out)
	}
	if got := mustDrops(t, heir)[firewall.OtherApp].Packets; got < uint64(counted) {
		t.Errorf("%d are counted as dropped, there were %d before the table was taken over", got, counted)
	}
	if err := friend.Send(udpFrame(w.layout.GuestMAC(1), "172.16.0.6", "172.16.0.10")); err != nil {
		t.Fatal(err)
	}
	if got := sender(t, inbox); got != "172.16.0.6:4096" {
		t.Errorf("a packet of %s, of another app, got through", got)
	}
}

// TestFlushedWhileDead: between the death of the owner and the next, root may delete
// the table, by a flush of everything or on purpose. The next owner makes it anew.
func TestFlushedWhileDead(t *testing.T) {
	for _, command := range []string{"flush ruleset", "delete table inet zwrm", "flush table inet zwrm"} {
		t.Run(command, func(t *testing.T) {
			onOwnKernel(t, func(t *testing.T) {
				kill := startOwner(t)
				before := list(t)
				_, _ = tryNFT(t, "", strings.Fields(command)...)
				if got := list(t); got != before {
					t.Errorf("with an owner the table became\n%s, was\n%s", got, before)
				}
				kill()
				nft(t, strings.Fields(command)...)
				heir := mustOpen(t)
				if got := mustDiff(t, heir, deathRules()); got == "" {
					t.Error("no differences, although the table is gone")
				}
				mustApply(t, heir, deathRules())
				if got := list(t); got != before {
					t.Errorf("the table is\n%s, was\n%s", got, before)
				}
				nft(t, "flush", "ruleset")
				if got := list(t); got != before {
					t.Errorf("the table has no owner: it is\n%s, was\n%s", got, before)
				}
			})
		})
	}
}

// TestTwoHeirs: of two that start after a death, one takes the table over and the
// other gets an error.
func TestTwoHeirs(t *testing.T) {
	onOwnKernel(t, func(t *testing.T) {
		startOwner(t)()
		first, second := mustOpen(t), mustOpen(t)
		mustApply(t, first, deathRules())
		if err := second.Apply(t.Context(), deathRules()); err == nil || !strings.Contains(err.Error(), "stop the other zwrmd") {
			t.Errorf("Apply of the second: %v, want that there is another zwrmd", err)
		}
		if got := mustDiff(t, first, deathRules()); got != "" {
			t.Errorf("differences:\n%s", got)
		}
	})
}

// record notes what the kernel tells of all tables, in the namespace of the calling
// thread. The returned function ends that and returns the kinds of notices.
func record(t *testing.T) func() string {
	t.Helper()
	s, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	names := map[netlink.HeaderType]string{
		nfnetlink.Type(unix.NFT_MSG_NEWTABLE): "NEWTABLE",
		nfnetlink.Type(unix.NFT_MSG_DELTABLE): "DELTABLE",
		nfnetlink.Type(unix.NFT_MSG_NEWGEN):   "NEWGEN",
	}
	return func() string {
		t.Helper()
		nft(t, "add", "table", "inet", "marker")
		var kinds []string
		for {
			messages, err := s.Receive()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				if strings.Contains(string(m.Data), "marker\x00") {
					return strings.Join(kinds, " ")
				}
				name, ok := names[m.Header.Type]
				if !ok {
					name = fmt.Sprintf("0x%x", int(m.Header.Type))
				}
				kinds = append(kinds, name)
			}
		}
	}
}
