package daemon

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

// contender is an instance with one resource, whose engine is the test.
func contender(t *testing.T, onContest string) (*instance, *shared) {
	d := &Daemon{book: newBook(slog.New(slog.DiscardHandler)), log: slog.New(slog.DiscardHandler), stateDir: t.TempDir()}
	p := planned(t, oneRouter)
	p.OnContest = onContest
	p.addresses.Lease = vip.Lease{}
	p.addresses.Now = func() carp.Instant { return carp.Instant(time.Now().UnixNano()) } // of the bubble
	thing := &shared{d: &diary{}, role: hooks.RoleDemoted}
	p.steps = []hooks.Step{{Name: "thing", Kind: "test", Resource: thing}}
	i := &instance{d: d, name: p.Name, saving: make(chan struct{}, 1)}
	i.resources.changed = make(chan struct{}, 1)
	i.plan.Store(p)
	if err := i.setHooks(p.steps); err != nil {
		t.Fatal(err)
	}
	if err := i.resources.journal.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.closeJournal)
	i.set = vip.New(viptest.NewFakeKernel("192.0.2.1/24"), p.addresses)
	return i, thing
}

// moves tells an instance of a transition, as the speaker does.
func (i *instance) moves(t *testing.T, from, to carp.State, epoch carp.Epoch) error {
	tr := carp.Transition{VHID: 51, From: from, To: to, Epoch: epoch}
	i.observe(tr)
	i.set.Permit(carp.Permit{Epoch: epoch, Until: 1 << 62})
	return i.up(t.Context(), tr)
}

func TestAContestIsFollowedByWhatTheFileSays(t *testing.T) {
	for onContest, want := range map[string]string{"regate": "promote 8, promote 9", "keep": "promote 8", "yield": "promote 8, demote"} {
		t.Run(onContest, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i, thing := contender(t, onContest)
				if err := i.moves(t, carp.Backup, carp.Master, 8); err != nil {
					t.Fatal(err)
				}
				err := i.moves(t, carp.Master, carp.Master, 9)
				if got := thing.d.take(); got != want || (err != nil) != (onContest == "yield") {
					t.Errorf("it went %s (%v), want %s", got, err, want)
				}
			})
		})
	}
}

// Two transitions that nobody carried out, since a hook did not end: the mastership that
// goes on is another one.
func TestAContestDoesNotHideThatTheMastershipEndedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, thing := contender(t, "keep")
		if err := i.moves(t, carp.Backup, carp.Master, 8); err != nil {
			t.Fatal(err)
		}
		i.observe(carp.Transition{From: carp.Master, To: carp.Backup, Epoch: 8})
		i.observe(carp.Transition{From: carp.Backup, To: carp.Master, Epoch: 9})
		if err := i.moves(t, carp.Master, carp.Master, 10); err != nil {
			t.Fatal(err)
		}
		if got := thing.d.take(); got != "promote 8, promote 10" {
			t.Errorf("it went %s", got)
		}
	})
}
