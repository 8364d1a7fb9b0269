package main_test

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// Whoever takes over on a bow-out takes the resource for let go. Nobody has let it go where
// the daemon is gone and the guardian acts.
func TestNobodyIsCalledInForADeadDaemonThatHeldAResource(t *testing.T) {
	t.Parallel()
	p, c := shareThing(t, nil)
	p.a.crash()
	c.awaitDiary("b promoted")
	if d := c.diary(); d[len(d)-2] != "b TWO PRIMARIES state-a" || d[len(d)-3] != "b promote master-timed-out" {
		t.Errorf("b took over so: %q", d)
	}
}

// A promotion that failed and cannot be undone: the other one is not called in, and finds
// out by itself that nobody speaks.
func TestNoBowOutCallsSomebodyInWhileAFailedPromotionIsNotUndone(t *testing.T) {
	t.Parallel()
	p, c := shareThing(t, nil)
	c.set("fail-promote-b", "")
	c.set("fail-demote-b", "")
	seq := p.b.seq()
	p.a.post("/v1/handover", map[string]string{}, nil)
	p.b.awaitEvent(seq, "transition", "release-failed")
	c.awaitDiary("a promoted")
	if got := strings.Join(c.diary(), ", "); !strings.Contains(got, "a promote master-timed-out") {
		t.Errorf("it went %s", got)
	}
	if p.b.alarm("not-let-go") == "" {
		t.Error("b has no alarm")
	}
}

func TestAnOperatorDoesNotTakeTheRoleFromAHolderByAnAdvert(t *testing.T) {
	t.Parallel()
	p, c := shareThing(t, nil)
	if e := p.b.refused("/v1/state", api.StateRequest{State: "master"}, http.StatusConflict); !strings.Contains(e.Error, "192.0.2.1") || !strings.Contains(e.Hint, "handover") {
		t.Errorf("it was said: %+v", e)
	}
	p.a.stop()
	p.b.await("MASTER")
	c.awaitDiary("b promoted")
	c.onePrimary()
}

// A reload that is refused leaves nothing behind: the same one works when what stood
// against it is gone.
func TestARefusedReloadDoesNotKeepTheJournalOfAnInstance(t *testing.T) {
	t.Parallel()
	p, c := newPair(t), newCommons(t)
	n := p.a
	n.start(settings{})
	other := strings.ReplaceAll(`node: other
state_dir: DIR/other
control: DIR/other.sock
instances:
  - {vhid: 10, interface: eth0, passphrase_file: pass, addresses: [192.0.2.60/24]}
`, "DIR", n.dir)
	claims := n.Start(n.command("run", "--config", n.file("other.yaml", other, 0o644)))
	lab.Eventually(t, takeover, "the other one to run", func() bool { return strings.Contains(claims.Output(), "carpd runs") })

	entry := strings.Join(c.entry("a"), "\n")
	n.configure(settings{others: []string{"vhid: 10\ninterface: eth0\npassphrase_file: pass\naddresses: [192.0.2.60/24]\n" + entry}})
	n.refused("/v1/reload", api.ReloadRequest{}, http.StatusConflict)
	claims.Signal(syscall.SIGTERM)
	if err := claims.Wait(takeover); err != nil {
		t.Fatal(err)
	}
	n.post("/v1/reload", api.ReloadRequest{}, nil)
	n.awaitNamed("10@eth0", "MASTER")
	c.awaitDiary("a promoted")
}

func TestExplainSaysWhatTheAddressesOfAMasterWaitFor(t *testing.T) {
	t.Parallel()
	p, c := newPair(t), newCommons(t)
	c.set("hold-promote-a", "")
	p.a.start(settings{more: c.entry("a")})
	p.a.await("BACKUP")
	p.a.post("/v1/state", api.StateRequest{State: "master"}, nil)
	c.awaitDiary("a promote operator")
	if out, code := p.a.ctl("explain"); code != 0 || !strings.Contains(out, "Hook thing (exec, resource) is being promoted; the addresses come after it") {
		t.Errorf("explain says %d: %s", code, out)
	}
	c.remove("hold-promote-a")
	p.a.await("MASTER")
}
