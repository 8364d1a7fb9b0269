package hookstest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
)

// textMax is how long the text of a report may be: it is one clause in a status.
const textMax = 300

// Monitors checks that the monitors which open returns keep the contract of
// hooks.Monitor, and of hooks.Waker where they are such. Each call of open must return a
// new instance of something that can be looked at. The checks, a subtest each:
//
//	looks         two looks succeed, and say the same in one line
//	cancelled     a look that is cancelled returns in time, whenever it is cancelled
//	slow          a look returns in time after its deadline
//	after-cancel  a look after a cancelled one succeeds
//	side-by-side  two instances look at the same time (use -race)
//	environment   working directory, environment and open files stay as they are
//	wake          Wake ends with its context, beside looks, and leaves nothing open
func Monitors(t *testing.T, open func() hooks.Monitor) {
	t.Helper()
	for _, c := range monitorChecks() {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(t.Context(), open); err != nil {
				t.Error(err)
			}
		})
	}
}

type monitorCheck struct {
	name string
	run  func(ctx context.Context, open func() hooks.Monitor) error
}

func monitorChecks() []monitorCheck {
	return []monitorCheck{
		{"looks", looksTwice},
		{"cancelled", looksCancelled},
		{"slow", looksSlow},
		{"after-cancel", looksAfterCancel},
		{"side-by-side", looksSideBySide},
		{"environment", looksEnvironment},
		{"wake", wakes},
	}
}

func lookAt(ctx context.Context, limit time.Duration, m hooks.Monitor) (report hooks.Report, err error) {
	seen := make(chan hooks.Report, 1)
	err = guarded(limit, "Monitor", func() error {
		report, err := m.Monitor(ctx)
		seen <- report
		return err
	})
	select {
	case report = <-seen:
	default:
	}
	switch {
	case err != nil:
	case strings.ContainsAny(report.Text, "\n\r") || len(report.Text) > textMax:
		err = fmt.Errorf("its text is no line of at most %d bytes: %q", textMax, report.Text)
	case report.Health > hooks.Unfit || report.Role > hooks.RolePromoted || report.Weight < 0 || report.Weight > 254:
		err = fmt.Errorf("no such report: %+v", report)
	}
	return report, err
}

func looksTwice(ctx context.Context, open func() hooks.Monitor) error {
	m := open()
	first, err := lookAt(ctx, runTime, m)
	if err != nil {
		return err
	}
	second, err := lookAt(ctx, runTime, m)
	if err == nil && (first.Health != second.Health || first.Role != second.Role) {
		err = fmt.Errorf("it says %+v and then %+v, of the same thing", first, second)
	}
	return err
}

// interrupted looks with a context that ends at each of the moments.
func interrupted(ctx context.Context, m hooks.Monitor, end func(context.Context, time.Duration) (context.Context, func()), then func() error) error {
	for _, after := range moments() {
		c, stop := end(ctx, after)
		_, err := lookAt(c, after+Patience, m)
		stop()
		if broken, ok := err.(*brokenError); ok {
			return fmt.Errorf("ended after %v: %w", after, broken)
		}
		if err := then(); err != nil {
			return fmt.Errorf("after a look that ended at %v: %w", after, err)
		}
	}
	return nil
}

func byCancel(ctx context.Context, after time.Duration) (context.Context, func()) {
	c, cancel := context.WithCancel(ctx)
	t := time.AfterFunc(after, cancel)
	if after == 0 {
		cancel()
	}
	return c, func() { t.Stop(); cancel() }
}

func byDeadline(ctx context.Context, after time.Duration) (context.Context, func()) {
	c, cancel := context.WithTimeout(ctx, after)
	return c, cancel
}

func nothing() error { return nil }

func looksCancelled(ctx context.Context, open func() hooks.Monitor) error {
	return interrupted(ctx, open(), byCancel, nothing)
}

func looksSlow(ctx context.Context, open func() hooks.Monitor) error {
	return interrupted(ctx, open(), byDeadline, nothing)
}

func looksAfterCancel(ctx context.Context, open func() hooks.Monitor) error {
	m := open()
	return interrupted(ctx, m, byCancel, func() error {
		_, err := lookAt(ctx, runTime, m)
		return err
	})
}

func looksSideBySide(ctx context.Context, open func() hooks.Monitor) error {
	done := make(chan error)
	for range 2 {
		m := open()
		go func() {
			_, err := lookAt(ctx, runTime, m)
			done <- err
		}()
	}
	first, second := <-done, <-done
	if first != nil {
		return first
	}
	return second
}

func looksEnvironment(ctx context.Context, open func() hooks.Monitor) error {
	m := open()
	if _, err := lookAt(ctx, runTime, m); err != nil { // the first may open what the process keeps
		return err
	}
	return unchanged(func() error {
		for range 5 {
			if _, err := lookAt(ctx, runTime, m); err != nil {
				return err
			}
		}
		return nil
	})
}

func wakes(ctx context.Context, open func() hooks.Monitor) error {
	if _, is := open().(hooks.Waker); !is {
		return nil
	}
	once := func(look bool) error {
		w := open().(hooks.Waker)
		c, cancel := context.WithCancel(ctx)
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			ended <- guarded(runTime+2*Patience, "Wake", func() error { w.Wake(c, func() {}); return nil })
		}()
		if look {
			for range 3 {
				if _, err := lookAt(ctx, runTime, w); err != nil {
					return err
				}
			}
		}
		cancel()
		return guarded(Patience, "Wake, whose context has ended,", func() error { return <-ended })
	}
	if err := once(true); err != nil {
		return err
	}
	return unchanged(func() error {
		for n := range 6 {
			if err := once(n%2 == 0); err != nil {
				return err
			}
		}
		return nil
	})
}
