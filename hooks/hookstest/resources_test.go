package hookstest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
)

// disk is what the resources of these tests act on: a device that is open, then mounted.
type disk struct {
	mu            sync.Mutex
	open, mounted bool
}

func (d *disk) do(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// model is a resource of a disk, with one fault or none.
type model struct {
	*disk
	fault string
	tried *bool // what a faulty one remembers
}

func (m model) Promote(ctx context.Context, _ hooks.Event) error {
	if err := ctx.Err(); err != nil && m.fault != "deaf" {
		return err
	}
	if m.fault == "deaf" && ctx.Err() != nil {
		<-time.After(2 * Patience)
	}
	if m.fault == "not again after a crash" {
		if *m.tried {
			return errors.New("stale lock file")
		}
		*m.tried = true
	}
	if m.fault == "acts before it marks" {
		m.do(func() { m.open, m.mounted = true, true })
	}
	mark := hooks.MarkNoReturn
	if m.fault == "marks nothing" {
		mark = func(context.Context, string) error { return nil }
	}
	if err := hooks.Mark(ctx, "look"); err != nil && m.fault != "ignores the journal" {
		return err
	}
	if err := mark(ctx, "open"); err != nil && m.fault != "ignores the permit" {
		return err
	}
	m.do(func() { m.open = true })
	if err := mark(ctx, "mount"); err != nil {
		return err
	}
	m.do(func() { m.mounted = true })
	if m.tried != nil {
		*m.tried = false
	}
	return nil
}

func (m model) Demote(ctx context.Context, _ hooks.Event) error {
	if err := hooks.Mark(ctx, "unmount"); err != nil {
		return err
	}
	half := false
	m.do(func() {
		half = m.open && !m.mounted
		m.mounted = false
	})
	if err := hooks.Mark(ctx, "close"); err != nil {
		return err
	}
	if m.fault == "cannot undo a half" && half {
		return errors.New("it is not mounted")
	}
	m.do(func() { m.open = false })
	return nil
}

func (m model) Monitor(context.Context) (hooks.Report, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	role := hooks.RoleUnknown
	switch {
	case m.open && m.mounted:
		role = hooks.RolePromoted
	case !m.open && !m.mounted:
		role = hooks.RoleDemoted
	}
	if m.fault == "a look closes" && role == hooks.RolePromoted {
		m.open = false
	}
	return hooks.Report{Role: role}, nil
}

func worldWith(fault string) World {
	d, tried := &disk{}, new(bool)
	return World{
		Open: func() hooks.Resource { return model{d, fault, tried} },
		Reset: func(testing.TB) {
			d.do(func() { d.open, d.mounted = false, false })
			*tried = false
		},
	}
}

func TestGoodResourcesPass(t *testing.T) { Resources(t, worldWith("")) }

// faultVariable names the fault that TestFaultyResource is to meet, in a process of its
// own that fails.
const faultVariable = "HOOKSTEST_FAULT"

func TestFaultyResource(t *testing.T) {
	fault := os.Getenv(faultVariable)
	if fault == "" {
		t.Skip("it is run by TestEachFaultOfAResourceIsCaught")
	}
	Resources(t, worldWith(fault))
}

func TestEachFaultOfAResourceIsCaught(t *testing.T) {
	for fault, where := range map[string]string{
		"marks nothing":           "marked",
		"ignores the permit":      "permit",
		"ignores the journal":     "journal",
		"acts before it marks":    "permit",
		"cannot undo a half":      "crash",
		"not again after a crash": "crash",
		"a look closes":           "looking",
		"deaf":                    "bounded",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			child := exec.Command(os.Args[0], "-test.run", "^TestFaultyResource$/^("+where+")$")
			child.Env = append(os.Environ(), faultVariable+"="+fault)
			out, err := child.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestFaultyResource/"+where) {
				t.Errorf("not caught by %s: %v\n%s", where, err, out)
			}
		})
	}
}
