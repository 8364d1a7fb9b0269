package daemon

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
)

// clinging is a resource that does not let go.
type clinging struct{ shared }

func (c *clinging) Demote(context.Context, hooks.Event) error { return errors.New("it is in use") }

func TestWhatCannotBeLetGoIsFollowedByWhatTheFileSays(t *testing.T) {
	for policy, want := range map[hooks.Policy]string{
		hooks.PhaseDefault: "alarm", hooks.Alarm: "alarm", hooks.Reboot: "alarm, restart", hooks.StopWatchdog: "alarm, starving",
	} {
		t.Run(policy.String(), func(t *testing.T) {
			journal, err := hooks.OpenJournal(filepath.Join(t.TempDir(), "journal"), "boot")
			if err != nil {
				t.Fatal(err)
			}
			defer journal.Close()
			runner, err := hooks.NewRunner([]hooks.Step{
				{Name: "thing", Kind: "test", OnStuck: policy, Resource: &clinging{shared{d: &diary{}}}},
			}, hooks.Options{Journal: journal})
			if err != nil {
				t.Fatal(err)
			}
			restarted := false
			log := slog.New(slog.DiscardHandler)
			i := &instance{d: &Daemon{log: log, book: newBook(log), restart: func() { restarted = true }}, name: "9@eth0"}
			i.plan.Store(&plan{})
			i.runner.Store(runner)
			if err := runner.Run(t.Context(), hooks.BeforeUp, hooks.Event{Epoch: 1}); err != nil {
				t.Fatal(err)
			}
			if err := i.letGo(t.Context(), carp.Transition{From: carp.Master, To: carp.Backup}); err == nil {
				t.Error("it is said to be let go")
			}
			got := ""
			for _, a := range i.d.book.standing(i.name) {
				if a.Name == "not-let-go" {
					got = "alarm"
				}
			}
			if restarted {
				got += ", restart"
			}
			if i.d.watchdog.starving.Load() {
				got += ", starving"
			}
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// The next master waits for the adverts of this one, and no longer.
func TestWhatIsStillHeldWhenTheReleaseBudgetIsOverIsFollowedByWhatTheFileSays(t *testing.T) {
	i, thing := contender(t, "regate")
	if err := i.setHooks([]hooks.Step{{Name: "thing", Kind: "test", OnStuck: hooks.Reboot, Resource: thing}}); err != nil {
		t.Fatal(err)
	}
	restarts := 0
	i.d.restart = func() { restarts++ }
	over := carp.Transition{From: carp.Releasing, To: carp.Backup, Reason: carp.ReasonReleaseFailed}
	i.observe(over)
	if restarts != 0 {
		t.Error("the machine restarts though nothing is held")
	}
	if err := i.runner.Load().Run(t.Context(), hooks.BeforeUp, hooks.Event{Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	i.observe(over)
	i.observe(over)
	if alarms := i.d.book.standing(i.name); restarts != 1 || len(alarms) != 1 || alarms[0].Name != notLetGo {
		t.Errorf("%d restarts, alarms %v", restarts, alarms)
	}
}

// What a resource is promoted with must not be used again after a crash.
func TestTheEpochIsSavedBeforeTheResourcesOfAGroupArePromoted(t *testing.T) {
	if p := planned(t, oneRouter); p.gated() {
		t.Error("an instance without gates and resources has one")
	}
	if p := planned(t, `
node_id: 1
groups:
  site:
    together: true
    hooks:
      - {kind: exec, name: volume, with: {promote: [/bin/true], demote: [/bin/true], monitor: [/bin/true]}}
instances:
  - {vhid: 9, interface: eth0, passphrase: a secret, replay: sealed, addresses: [192.0.2.50/24], groups: [site]}
`); !p.gated() {
		t.Error("the resource of a group is no gate")
	}
}
