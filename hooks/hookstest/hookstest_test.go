package hookstest

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/hooks"
)

type hookFunc func(ctx context.Context, ev hooks.Event) error

func (f hookFunc) Run(ctx context.Context, ev hooks.Event) error { return f(ctx, ev) }

func TestGoodHooksPass(t *testing.T) {
	Conformance(t, func() hooks.Hook {
		return hookFunc(func(ctx context.Context, _ hooks.Event) error { return ctx.Err() })
	})
}

// TestEachCheckCatchesItsFault breaks the contract once for each check.
func TestEachCheckCatchesItsFault(t *testing.T) {
	for name, open := range faults(t) {
		t.Run(name, func(t *testing.T) {
			for _, c := range checks() {
				if c.name != name {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					if c.run(context.Background(), open) == nil {
						t.Error("the fault was not caught")
					}
					<-time.After(2 * time.Hour) // for the deaf hooks to end
				})
				return
			}
			t.Error("there is no such check")
		})
	}
	if len(faults(t)) != len(checks()) {
		t.Error("a check has no fault that it must catch")
	}
}

func faults(t *testing.T) map[string]func() hooks.Hook {
	of := func(f hookFunc) func() hooks.Hook { return func() hooks.Hook { return f } }
	deaf := of(func(ctx context.Context, _ hooks.Event) error {
		<-ctx.Done()
		<-time.After(time.Hour)
		return nil
	})
	return map[string]func() hooks.Hook{
		"every-phase": of(func(_ context.Context, ev hooks.Event) error {
			if ev.Phase == hooks.BeforeDown {
				return errors.New("what is that?")
			}
			return nil
		}),
		"twice": func() hooks.Hook {
			seen := map[hooks.Phase]bool{}
			return hookFunc(func(_ context.Context, ev hooks.Event) error {
				if seen[ev.Phase] {
					return errors.New("already mounted")
				}
				seen[ev.Phase] = true
				return nil
			})
		},
		"bare-event": of(func(_ context.Context, ev hooks.Event) error {
			_ = ev.Addresses[0]
			return nil
		}),
		"cancelled": deaf,
		"slow":      deaf,
		"after-cancel": func() hooks.Hook {
			broken := false
			return hookFunc(func(ctx context.Context, _ hooks.Event) error {
				if broken {
					return errors.New("stale lock file")
				}
				broken = ctx.Err() != nil
				return ctx.Err()
			})
		},
		"side-by-side": func() func() hooks.Hook {
			lock := make(chan struct{}, 1)
			return func() hooks.Hook {
				return hookFunc(func(context.Context, hooks.Event) error {
					select {
					case lock <- struct{}{}:
						return nil
					default:
						return errors.New("somebody else runs")
					}
				})
			}
		}(),
		"environment": func() hooks.Hook {
			var kept []*os.File
			t.Cleanup(func() {
				for _, f := range kept {
					f.Close()
				}
			})
			return hookFunc(func(context.Context, hooks.Event) error {
				f, err := os.Open("/dev/null")
				kept = append(kept, f)
				return err
			})
		},
	}
}
