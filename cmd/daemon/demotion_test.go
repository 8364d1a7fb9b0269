package daemon

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
)

// heavy is a resource whose demotion takes a while.
type heavy struct{ shared }

const heavyTime = 10 * time.Second

func (h *heavy) Demote(ctx context.Context, ev hooks.Event) error {
	h.d.note("demotion begins")
	select {
	case <-time.After(heavyTime):
		return h.shared.Demote(ctx, ev)
	case <-ctx.Done():
		h.d.note("cancelled")
		return ctx.Err()
	}
}

// promotedHeavy is an instance that has been master and is to let go of a heavy resource.
func promotedHeavy(t *testing.T) (*instance, *heavy) {
	i, _ := contender(t, "regate")
	thing := &heavy{shared{d: &diary{}, role: hooks.RoleDemoted}}
	if err := i.setHooks([]hooks.Step{{Name: "thing", Kind: "test", Resource: thing}}); err != nil {
		t.Fatal(err)
	}
	if err := i.moves(t, carp.Backup, carp.Master, 8); err != nil {
		t.Fatal(err)
	}
	thing.d.take()
	return i, thing
}

// The release budget ends the waiting, and the adverts. What is let go goes on to be: from
// its beginning it would take twice as long.
func TestADemotionGoesOnWhenTheReleaseBudgetIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, thing := promotedHeavy(t)
		began := time.Now()
		budget, over := context.WithTimeout(t.Context(), heavyTime/2)
		defer over()
		leaving := carp.Transition{From: carp.Master, To: carp.Releasing, Epoch: 8}
		if err := i.Handle(budget, leaving); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != heavyTime/2 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		left := carp.Transition{From: carp.Releasing, To: carp.Backup, Epoch: 8, Reason: carp.ReasonReleaseFailed}
		i.observe(left)
		if err := i.letGo(t.Context(), left); err != nil || time.Since(began) != heavyTime {
			t.Errorf("after %v, want %v: %v", time.Since(began), heavyTime, err)
		}
		if got := thing.d.take(); got != "demotion begins, demote" {
			t.Errorf("it went %s", got)
		}
		if alarms := i.d.book.standing(i.name); len(alarms) > 0 {
			t.Errorf("alarms stand: %v", alarms)
		}
	})
}

// A node that is elected again does not let go beside that, nor does one that has ended.
func TestADemotionEndsBeforeTheNextMastershipAndWithItsInstance(t *testing.T) {
	for name, ends := range map[string]func(t *testing.T, i *instance){
		"elected": func(t *testing.T, i *instance) {
			if err := i.moves(t, carp.Backup, carp.Master, 9); err != nil {
				t.Error(err)
			}
		},
		"ended": func(_ *testing.T, i *instance) { i.endDemotion() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i, thing := promotedHeavy(t)
				budget, over := context.WithTimeout(t.Context(), time.Second)
				defer over()
				if err := i.letGo(budget, carp.Transition{From: carp.Master, To: carp.Releasing}); err == nil {
					t.Error("it is said to be let go")
				}
				ends(t, i)
				want := "demotion begins, cancelled"
				if name == "elected" {
					want += ", promote 9"
				}
				if got := thing.d.take(); got != want {
					t.Errorf("it went %s, want %s", got, want)
				}
				if err := i.letGo(t.Context(), carp.Transition{From: carp.Master, To: carp.Backup}); err != nil || !strings.HasSuffix(thing.d.take(), "demote") {
					t.Errorf("and then: %v", err)
				}
			})
		})
	}
}
