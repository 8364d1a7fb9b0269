package main_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

var shared60 = netip.MustParseAddr("192.0.2.60")

func TestStaleAddressesThatTheFileNamesNoMoreGoAtStart(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.abandon()
	p.a.start(settings{addresses: []string{"192.0.2.60/24"}})
	if p.a.HasAddr(shared4) || p.a.HasAddr(shared6) {
		t.Error("an address of the earlier file is still there")
	}
	p.a.await("MASTER")
}

func TestAddressesOfAnotherDaemonOnTheInterfaceStayAtStart(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.configure(settings{more: []string{"lease: off"}})
	other := p.a.other("vhid: 9", "vhid: 10", "192.0.2.50", "192.0.2.60", "2001:db8::50", "2001:db8::60", p.a.socket(), p.a.socket()+"2")
	p.a.Start(p.a.command("run", "--config", other))
	lab.Eventually(t, takeover, "the other daemon to be master", func() bool { return p.a.HasAddr(shared60) })
	p.a.start(settings{})
	p.a.promote()
	p.a.awaitLog("addresses are on")
	if out := p.a.proc.Output(); !p.a.HasAddr(shared60) || strings.Contains(out, "earlier run left") {
		t.Errorf("the address of another daemon was taken off:\n%s", out)
	}
}

func TestReloadTakesNoAddressFromUnderAnInstanceThatLeaves(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start(settings{})
	p.a.promote()
	text, err := os.ReadFile(p.a.config())
	if err != nil {
		t.Fatal(err)
	}
	p.a.file("carpd.yaml", strings.Replace(string(text), "vhid: 9", "vhid: 10", 1), 0o644)
	var r api.ReloadResult
	p.a.post("/v1/reload", api.ReloadRequest{}, &r)
	if !r.Applied {
		t.Errorf("got %+v", r)
	}
	p.a.awaitLog("10@eth0: INIT -> BACKUP")
	if out := p.a.proc.Output(); strings.Contains(out, "earlier run left") {
		t.Errorf("the address of a running instance was taken off:\n%s", out)
	}
}

// awaitLog waits for a line, and so for all before it: the log is written beside
// the work.
func (n *node) awaitLog(line string) {
	n.t.Helper()
	lab.Eventually(n.t, soon, "the log to have "+line, func() bool { return strings.Contains(n.proc.Output(), line) })
}
