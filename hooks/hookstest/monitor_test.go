package hookstest

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/hooks"
)

type monitorFunc func(ctx context.Context) (hooks.Report, error)

func (f monitorFunc) Monitor(ctx context.Context) (hooks.Report, error) { return f(ctx) }

// wakingMonitor is one that wakes.
type wakingMonitor struct {
	monitorFunc
	wake func(ctx context.Context)
}

func (w wakingMonitor) Wake(ctx context.Context, look func()) {
	look()
	w.wake(ctx)
}

func good(ctx context.Context) (hooks.Report, error) { return hooks.Report{}, ctx.Err() }

func TestGoodMonitorsPass(t *testing.T) {
	Monitors(t, func() hooks.Monitor { return monitorFunc(good) })
	Monitors(t, func() hooks.Monitor { return wakingMonitor{good, func(ctx context.Context) { <-ctx.Done() }} })
	Monitors(t, func() hooks.Monitor { return wakingMonitor{good, func(context.Context) {}} })
}

func TestEachFaultOfAMonitorIsCaught(t *testing.T) {
	var kept []*os.File
	t.Cleanup(func() {
		for _, f := range kept {
			f.Close()
		}
	})
	of := func(f monitorFunc) func() hooks.Monitor { return func() hooks.Monitor { return f } }
	deaf := of(func(ctx context.Context) (hooks.Report, error) {
		<-ctx.Done()
		<-time.After(time.Hour)
		return hooks.Report{}, nil
	})
	n, lock := 0, make(chan struct{}, 1)
	for _, c := range []struct {
		check string
		open  func() hooks.Monitor
	}{
		{"looks", of(func(context.Context) (hooks.Report, error) { return hooks.Report{}, errors.New("no") })},
		{"looks", of(func(context.Context) (hooks.Report, error) { panic("at once") })},
		{"looks", of(func(context.Context) (hooks.Report, error) { return hooks.Report{Text: "two\nlines"}, nil })},
		{"looks", of(func(context.Context) (hooks.Report, error) { return hooks.Report{Text: strings.Repeat("x", 301)}, nil })},
		{"looks", of(func(context.Context) (hooks.Report, error) { return hooks.Report{Health: 3}, nil })},
		{"looks", of(func(context.Context) (hooks.Report, error) {
			n++
			return hooks.Report{Health: hooks.Health(n % 2)}, nil
		})},
		{"cancelled", deaf},
		{"slow", deaf},
		{"after-cancel", func() hooks.Monitor {
			broken := false
			return monitorFunc(func(ctx context.Context) (hooks.Report, error) {
				if broken {
					return hooks.Report{}, errors.New("still in use")
				}
				broken = ctx.Err() != nil
				return hooks.Report{}, ctx.Err()
			})
		}},
		{"side-by-side", of(func(context.Context) (hooks.Report, error) {
			select {
			case lock <- struct{}{}:
				return hooks.Report{}, nil
			default:
				return hooks.Report{}, errors.New("somebody else looks")
			}
		})},
		{"environment", of(func(context.Context) (hooks.Report, error) {
			f, err := os.Open("/dev/null")
			kept = append(kept, f)
			return hooks.Report{}, err
		})},
		{"wake", func() hooks.Monitor { return wakingMonitor{good, func(context.Context) { <-time.After(time.Hour) }} }},
		{"wake", func() hooks.Monitor { return wakingMonitor{good, func(context.Context) { panic("at the waker") }} }},
		{"wake", func() hooks.Monitor {
			return wakingMonitor{good, func(ctx context.Context) {
				f, _ := os.Open("/dev/null")
				kept = append(kept, f)
				<-ctx.Done()
			}}
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			for _, check := range monitorChecks() {
				if check.name == c.check && check.run(context.Background(), c.open) == nil {
					t.Errorf("%s: the fault was not caught", c.check)
				}
			}
			<-time.After(2 * time.Hour) // for the deaf ones to end
		})
	}
}
