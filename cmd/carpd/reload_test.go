package main_test

import (
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// reload configures the node anew and reloads.
func (n *node) reload(s settings) api.ReloadResult {
	n.t.Helper()
	n.configure(s)
	var r api.ReloadResult
	n.post("/v1/reload", api.ReloadRequest{}, &r)
	return r
}

// untouched checks that vhid 9 of a master went on as if nothing had been: no
// transition, no address off, no advert but at its time.
func (n *node) untouched(wire *lab.Capture, since time.Time, seq uint64) {
	n.t.Helper()
	now := time.Now()
	lab.Eventually(n.t, takeover, "three more adverts", func() bool { return len(adverts(wire, n.Name, 9, now)) >= 3 })
	sent := adverts(wire, n.Name, 9, since)
	for i := 1; i < len(sent); i++ {
		if gap := sent[i].at.Sub(sent[i-1].at); gap < 800*time.Millisecond || gap > lateAdvert {
			n.t.Errorf("%v between two adverts", gap)
		}
	}
	if moved := n.transitions(seq); len(moved) > 0 {
		n.t.Errorf("the role moved: %+v", moved)
	}
	for _, e := range append(n.addrs.all(since, shared4), n.addrs.all(since, shared6)...) {
		if !e.On {
			n.t.Errorf("%v went off at %v", e.Addr, e.At)
		}
	}
}

func TestReloadWithoutAChangeTouchesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start(settings{})
	p.a.promote()
	at, seq := time.Now(), p.a.seq()
	if r := p.a.reload(settings{}); r.Applied || len(r.Changes) != 0 {
		t.Errorf("a reload of the same file: %+v", r)
	}
	p.a.untouched(p.wire, at, seq)
}

func TestDryRunShowsAndChangesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start(settings{})
	p.a.promote()
	at, seq := time.Now(), p.a.seq()
	p.a.configure(settings{advskew: 30, addresses: []string{"192.0.2.60/24"}})
	var r api.ReloadResult
	p.a.post("/v1/reload", api.ReloadRequest{DryRun: true}, &r)
	said := strings.Join(r.Changes, "\n")
	if r.Applied || !strings.Contains(said, "advskew") || !strings.Contains(said, "192.0.2.60") {
		t.Errorf("dry run: %+v", r)
	}
	if i := p.a.instance(); i.AdvSkew != 0 || len(i.Addresses) != 2 {
		t.Errorf("something was changed: %+v", i)
	}
	p.a.untouched(p.wire, at, seq)
}

func TestReloadThatIsRefusedChangesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start(settings{})
	p.a.promote()
	at, seq := time.Now(), p.a.seq()
	for name, s := range map[string]settings{
		"advskew: want": {advskew: 300},
		"not a key":     {advskew: 10, more: []string{"advskwe: 1"}},
		"state_dir":     {advskew: 10, top: []string{"node_id: 300"}},
		"peers":         {advskew: 10, more: []string{"peers: [192.0.2.2]"}},
	} {
		p.a.configure(s)
		e := p.a.refused("/v1/reload", api.ReloadRequest{}, http.StatusConflict)
		if !strings.Contains(e.Hint, "nothing was changed") {
			t.Errorf("%s: hint %q of %q", name, e.Hint, e.Error)
		}
	}
	if i := p.a.instance(); i.AdvSkew != 0 {
		t.Errorf("something was changed: %+v", i)
	}
	p.a.untouched(p.wire, at, seq)
}

func TestSIGHUPReloads(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start(settings{})
	p.a.promote()
	seq := p.a.seq()
	standing := func() bool {
		return slices.ContainsFunc(p.a.status().Alarms, func(a api.Alarm) bool { return a.Name == "reload" })
	}
	p.a.configure(settings{advskew: 300})
	p.a.proc.Signal(syscall.SIGHUP)
	lab.Eventually(t, soon, "the alarm about a bad file", standing)

	mark := p.wire.Len()
	p.a.configure(settings{advskew: 20})
	p.a.proc.Signal(syscall.SIGHUP)
	lab.Eventually(t, soon, "the new advskew", func() bool { return p.a.instance().AdvSkew == 20 })
	lab.Eventually(t, soon, "the alarm to end", func() bool { return !standing() })
	if _, ok := p.wire.WaitAfter(mark, soon, func(f lab.Frame) bool {
		a, ok := decodeAdvert(f, "a")
		return ok && a.AdvSkew == 20
	}); !ok {
		t.Error("no advert has the new advskew")
	}
	if moved := p.a.transitions(seq); len(moved) > 0 {
		t.Errorf("the role moved: %+v", moved)
	}
}

func TestInstancesComeAndGoByReloadAndLeaveTheOthersAlone(t *testing.T) {
	t.Parallel()
	const second = "vhid: 10\ninterface: eth0\npassphrase: other\naddresses: [192.0.2.60/24]"
	p := newPair(t)
	p.a.start(settings{})
	p.a.promote()
	at, seq := time.Now(), p.a.seq()
	if r := p.a.reload(settings{others: []string{second}}); !r.Applied || len(r.Changes) == 0 {
		t.Errorf("an instance added: %+v", r)
	}
	find := func() (found api.Instance) {
		for _, i := range p.a.status().Instances {
			if i.VHID == 10 {
				found = i
			}
		}
		return found
	}
	lab.Eventually(t, takeover, "vhid 10 to be MASTER", func() bool { return find().State == "MASTER" && find().Addresses[0].Present })
	mark := p.wire.Len()
	if r := p.a.reload(settings{}); !r.Applied || len(r.Changes) == 0 {
		t.Errorf("an instance removed: %+v", r)
	}
	if i := find(); i.Name != "" {
		t.Errorf("vhid 10 is still there: %+v", i)
	}
	for _, have := range p.a.Addrs("eth0") {
		if have.Addr().String() == "192.0.2.60" {
			t.Error("the address of vhid 10 is still there")
		}
	}
	if bow, ok := p.wire.WaitAfter(mark, soon, bowsOut("a")); !ok {
		t.Error("vhid 10 did not bow out")
	} else if a, _ := decodeAdvert(bow, "a"); a.VHID != 10 {
		t.Errorf("vhid %d bowed out", a.VHID)
	}
	for _, e := range p.a.transitions(seq) {
		if e.Instance == "9@eth0" {
			t.Errorf("vhid 9 moved: %+v", e)
		}
	}
	p.a.untouched(p.wire, at, p.a.seq())
}

// rolling is a change of what the HMAC covers, made on one node after the other.
func rolling(t *testing.T, apart time.Duration, masterFirst bool, change func(*settings)) {
	p := newPair(t)
	a, b := settings{}, settings{advskew: 100}
	p.elect(a, b)
	at, seqA, seqB := time.Now(), p.a.seq(), p.b.seq()
	change(&a)
	change(&b)
	first, second := func() { p.a.reload(a) }, func() { p.b.reload(b) }
	if !masterFirst {
		first, second = second, first
	}
	first()
	<-time.After(apart) // the promise is about this very time
	second()

	now := time.Now()
	// A node that does not know the new digest yet refuses one advert of each round.
	refused := map[*node]uint64{p.a: p.a.instance().Drops["hash"], p.b: p.b.instance().Drops["hash"]}
	lab.Eventually(t, takeover, "three adverts of a", func() bool { return len(adverts(p.wire, "a", 9, now)) >= 3 })
	for n, seq := range map[*node]uint64{p.a: seqA, p.b: seqB} {
		if moved := n.transitions(seq); len(moved) > 0 {
			t.Errorf("%s moved: %+v", n.Name, moved)
		}
		i := n.instance()
		if more := i.Drops["hash"] - refused[n]; more > 0 {
			t.Errorf("%s refused %d adverts for their hash after both nodes were changed", n.Name, more)
		}
		if n.alarm("rolling") == "" || i.Rolling == nil {
			t.Errorf("%s does not say that two digests are in use", n.Name)
		}
	}
	if n := len(adverts(p.wire, "b", 9, at)); n > 0 {
		t.Errorf("b sent %d adverts", n)
	}
	for _, i := range p.a.await("MASTER").Addresses {
		if !p.a.HasAddr(mustPrefix(t, i.Prefix).Addr()) {
			t.Errorf("%s is not on the master", i.Prefix)
		}
	}
	if kept := len(a.addresses) == 0; p.a.HasAddr(shared6) != kept {
		t.Errorf("the address that was taken out: on the master %v, want %v", !kept, kept)
	}
	p.holdersNeverMet()
}

func newAddresses(s *settings) {
	s.addresses = []string{"192.0.2.50/24", "192.0.2.61/24", "2001:db8::61/64"}
}
func newPassphrase(s *settings) { s.passphrase = "another secret" }

func TestChangeOfAddressesOrPassphraseMovesNoRole(t *testing.T) {
	for name, change := range map[string]func(*settings){"addresses": newAddresses, "passphrase": newPassphrase} {
		for order, masterFirst := range map[string]bool{"master first": true, "backup first": false} {
			t.Run(name+", "+order, func(t *testing.T) {
				t.Parallel()
				rolling(t, 10*time.Second, masterFirst, change)
			})
		}
	}
}

func TestChangesAMinuteApartMoveNoRole(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a minute")
	}
	t.Parallel()
	rolling(t, time.Minute, true, func(s *settings) {
		newAddresses(s)
		newPassphrase(s)
	})
}

func TestWrongPassphraseIsTwoMastersAndAnAlarmUntilItIsMended(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start(settings{})
	p.b.start(settings{advskew: 100, passphrase: "a secert"})
	p.a.await("MASTER")
	p.b.await("MASTER")
	for _, n := range []*node{p.a, p.b} {
		lab.Eventually(t, takeover, "the alarm on "+n.Name, func() bool { return n.alarm("bad-hash") != "" })
		if n.instance().Drops["hash"] == 0 {
			t.Errorf("%s raises the alarm and counts nothing", n.Name)
		}
		if text := n.alarm("bad-hash"); !strings.Contains(text, "passphrase") {
			t.Errorf("the alarm does not say what to do: %s", text)
		}
	}
	seq := p.a.seq()
	p.b.reload(settings{advskew: 100})
	p.b.await("BACKUP")
	lab.Eventually(t, soon, "b to let go", func() bool { return !p.b.HasAddr(shared4) && !p.b.HasAddr(shared6) })
	for _, n := range []*node{p.a, p.b} {
		lab.Eventually(t, 20*time.Second, "the alarm on "+n.Name+" to end", func() bool { return n.alarm("bad-hash") == "" })
	}
	for _, e := range p.a.transitions(seq) {
		if e.To != "MASTER" {
			t.Errorf("a moved: %+v", e)
		}
	}
	p.a.await("MASTER")
	p.b.await("BACKUP")
}
