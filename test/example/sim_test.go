package example

import (
	"context"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/test/script"
	"github.com/carpd/carpd/test/sim"
)

var shared = netip.MustParseAddr("192.0.2.100")

// roles is a checker of ours: it runs our hook where carpd would, one for each
// simulated host, and fails the run when too many lead at once.
type roles struct {
	dir  string
	most int
}

func (*roles) Name() string { return "roles" }

func (r *roles) role(host string) Role { return Role{File: filepath.Join(r.dir, host)} }

func (r *roles) Observe(w *sim.World, e *sim.Event) {
	if e.Kind != sim.KindHookStart {
		return
	}
	phase, err := hooks.ParsePhase(e.Text)
	if err != nil || phase == hooks.BeforeUp || phase == hooks.BeforeDown {
		return
	}
	role := r.role(e.Host.Name)
	if err := role.Run(context.Background(), hooks.Event{Phase: phase}); err != nil {
		w.Fail(r, "%s: %v", e.Host.Name, err)
	}
	leaders := 0
	for _, h := range w.Hosts() {
		if r.role(h.Name).Leads() {
			leaders++
		}
	}
	if leaders > r.most {
		w.Fail(r, "%d lead", leaders)
	}
}

func (r *roles) Look(*sim.World) {}

// same checks that those lead who have the address.
func (r *roles) same(t *testing.T, w *sim.World) {
	t.Helper()
	for _, h := range w.Hosts() {
		if leads := r.role(h.Name).Leads(); leads != h.Has() {
			t.Errorf("seed %d: %s has the address: %v, leads: %v", w.Seed(), h.Name, h.Has(), leads)
		}
	}
}

// play runs a world and shows the end of its trace if it failed.
func play(t *testing.T, w *sim.World, run func() error) {
	t.Helper()
	if err := run(); err != nil {
		_ = w.TraceSince(t.Output(), w.Now()-30*time.Second)
		t.Fatalf("seed %d: %v", w.Seed(), err)
	}
}

// A hundred times the cable of the master comes out, and some time later in again.
func TestOneLeaderAtMostWhileCablesFlap(t *testing.T) {
	w := sim.New(1, sim.Options{
		Latency:  sim.Span(0, 5*time.Millisecond),
		HookTime: sim.Span(0, 2*time.Second), HookStopTime: sim.Span(0, 100*time.Millisecond),
	})
	host := func(name string, skew uint8) *sim.Host {
		return w.Host(name, carp.Config{
			VHID: 9, AdvBase: 1, AdvSkew: skew, Passphrase: []byte("secret"), Addresses: []netip.Addr{shared},
		}, sim.HostOptions{})
	}
	w.Segment("lan", host("a", 0), host("b", 100))
	ours := &roles{dir: t.TempDir(), most: 1}
	w.Require(append(sim.Standard(), ours)...)
	run := func(d time.Duration) { play(t, w, func() error { return w.Run(d) }) }
	run(10 * time.Second)
	for i := range 100 {
		for _, master := range w.Holders(shared) {
			master.Unplug()
			run(time.Duration(i) * 97 * time.Millisecond)
			master.Plug()
		}
		run(time.Duration(100-i) * 53 * time.Millisecond)
	}
	run(15 * time.Second) // calm: nothing is late any more
	ours.same(t, w)
}

// Each seed breaks other things, of those that our climate has. A partition may
// have a leader on each side; when all is whole again there is one.
func TestLeaderIsTheHolderWhenAllIsCalmAgain(t *testing.T) {
	climate := sim.Options{
		Hosts: 3, SkewStep: 50, BreakTime: 5 * time.Minute,
		Latency: sim.Span(0, 20*time.Millisecond), LossChance: 0.02, HookTime: sim.Span(0, time.Second),
		FaultEvery: 10 * time.Second, FaultTime: sim.Span(0, 20*time.Second),
		FlapWeight: 3, CutWeight: 1, PartitionWeight: 1, FreezeWeight: 1,
	}
	for seed := range uint64(20) {
		w, calm := sim.Build(seed, climate)
		ours := &roles{dir: t.TempDir(), most: climate.Hosts}
		w.Require(ours)
		play(t, w, func() error { return calm.Play(w) })
		ours.same(t, w)
	}
}

func TestScenarios(t *testing.T) { script.Test(t, "scenarios/*.txt", script.TestOptions{}) }
