package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
)

// A restless is a member of a group whose engine and handler are the test.
type restless struct {
	x    *bandFlaps
	name string

	mu sync.Mutex
	worker
	state carp.State
	epoch carp.Epoch
	left  bool // a mastership has ended since the last up
	on    bool // its address
}

func (m *restless) took(flag *bool) (was bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was, *flag = *flag, false
	return was
}

func (m *restless) label() string        { return m.name }
func (m *restless) demoteBy(string, int) {}
func (m *restless) mayAct() error        { return nil }
func (m *restless) resign(r carp.Reason) { m.is(carp.Master, carp.Releasing, r) }
func (m *restless) now() carp.State      { m.mu.Lock(); defer m.mu.Unlock(); return m.state }
func (m *restless) addressed() (on bool) { m.mu.Lock(); defer m.mu.Unlock(); return m.on }
func (m *restless) address(on bool)      { m.mu.Lock(); defer m.mu.Unlock(); m.on = on }

// is makes a transition, if the state is from.
func (m *restless) is(from, to carp.State, why carp.Reason) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == from {
		m.become(to, why)
	}
}

// become makes a transition. The caller has mu.
func (m *restless) become(to carp.State, why carp.Reason) {
	if to == carp.Master {
		m.epoch = m.x.count()
	}
	t := carp.Transition{From: m.state, To: to, Reason: why, Epoch: m.epoch}
	m.left = m.left || m.state == carp.Master && to != carp.Master
	m.state = to
	m.put(t)
	m.x.observe(m, t)
}

func (m *restless) handle(ctx context.Context, t carp.Transition) error {
	if t.To != carp.Master {
		m.x.pause(80)
		m.address(false)
		return m.x.down(ctx, m, t)
	}
	if m.took(&m.left) || t.From != carp.Master {
		m.address(false)
		m.x.off(m)
	} else {
		m.x.again()
	}
	m.x.pause(70) // its own gate
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := m.x.up(ctx, m, t)
	if err == nil {
		m.x.mu.Lock()
		if m.x.failing.Load() == 0 && m.x.thing.role() != hooks.RolePromoted {
			m.x.t.Errorf("%s comes up, and the resource is %v", m.name, m.x.thing.role())
		}
		m.x.mu.Unlock()
		m.address(true)
		return nil
	}
	if ctx.Err() == nil {
		m.address(false)
		return errors.Join(err, m.x.down(ctx, m, t))
	}
	return err
}

// bandFlaps is a group of three such.
type bandFlaps struct {
	*band
	t       *testing.T
	all     []*restless
	thing   *tardy
	failing atomic.Int32

	rngMu  sync.Mutex
	rng    *rand.Rand
	epochs carp.Epoch
}

func (x *bandFlaps) count() carp.Epoch {
	x.rngMu.Lock()
	defer x.rngMu.Unlock()
	x.epochs++
	return x.epochs
}

func (x *bandFlaps) draw(n int) int {
	x.rngMu.Lock()
	defer x.rngMu.Unlock()
	return x.rng.IntN(n)
}

func (x *bandFlaps) pause(most int) {
	d := time.Duration(x.draw(most)) * time.Millisecond
	if x.draw(40) == 0 {
		d *= 30
	}
	wait(d)
}

func wait(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// tardy is a resource that takes its time, fails, and ends late when it is cancelled.
type tardy struct {
	x *bandFlaps

	mu sync.Mutex
	is hooks.Role
}

func (s *tardy) role() hooks.Role { s.mu.Lock(); defer s.mu.Unlock(); return s.is }

func (s *tardy) become(ctx context.Context, to hooks.Role) error {
	s.mu.Lock()
	if s.is == to {
		s.mu.Unlock()
		return nil
	}
	s.is = hooks.RoleUnknown
	s.mu.Unlock()
	end := time.NewTimer(time.Duration(s.x.draw(4000)) * time.Millisecond)
	defer end.Stop()
	select {
	case <-end.C:
	case <-ctx.Done():
		s.x.pause(1500)
		return ctx.Err()
	}
	if s.x.draw(100) < int(s.x.failing.Load()) {
		return errors.New("broken")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.is = to
	return nil
}

func (s *tardy) Promote(ctx context.Context, _ hooks.Event) error {
	return s.become(ctx, hooks.RolePromoted)
}

func (s *tardy) Demote(ctx context.Context, _ hooks.Event) error {
	for _, m := range s.x.all {
		if m.addressed() {
			s.x.t.Errorf("it is demoted while the address of %s is on", m.name)
		}
	}
	return s.become(ctx, hooks.RoleDemoted)
}

func (s *tardy) Monitor(context.Context) (hooks.Report, error) {
	return hooks.Report{Role: s.role()}, nil
}

// Members that are elected, lose, are contested and fall into INIT in every order, while the
// resource of their group takes its time and fails: it is promoted before any address comes
// up, none is on when it is demoted, and at rest the group has the role of its members.
func TestRestlessMembersOfAGroupAlwaysComeToRestTogether(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { flapTogether(t, seed) })
		})
	}
}

func flapTogether(t *testing.T, seed uint64) {
	x := &bandFlaps{t: t, rng: rand.New(rand.NewPCG(seed, 3))}
	x.thing = &tardy{x: x, is: hooks.RoleDemoted}
	journal, err := hooks.OpenJournal(filepath.Join(memory(t), "journal"), "boot")
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	runner, err := hooks.NewRunner([]hooks.Step{{Name: "db", Kind: "tardy", Resource: x.thing}}, hooks.Options{Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	x.band = newBand("g", runner, func(t carp.Transition) hooks.Event { return hooks.Event{Epoch: t.Epoch} })
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	defer func() { stop(); working.Wait() }()
	for _, name := range []string{"a", "b", "c"} {
		m := &restless{x: x, name: name}
		m.worker = newWorker(&m.mu)
		x.all = append(x.all, m)
		x.join(m)
	}
	working.Go(func() { x.run(ctx) })
	for _, m := range x.all {
		working.Go(func() { m.work(ctx, m.handle, m.become) })
	}
	for round := range 100 {
		x.failing.Store([]int32{0, 0, 25}[x.draw(3)])
		for range 1 + x.draw(12) {
			x.stir(x.all[x.draw(len(x.all))])
			x.pause([]int{1, 100, 2000}[x.draw(3)])
		}
		x.failing.Store(0)
		x.rest(round, carp.Master, hooks.RolePromoted)
		if round%2 == 0 {
			x.rest(round, carp.Backup, hooks.RoleDemoted)
		}
	}
}

// stir is a transition of a member at random.
func (x *bandFlaps) stir(m *restless) {
	switch s := m.now(); {
	case s == carp.Init:
		m.is(s, carp.Backup, carp.ReasonLinkUp)
	case s == carp.Master && x.draw(3) == 0:
		m.is(s, carp.Master, carp.ReasonContested)
	case s == carp.Backup && x.draw(4) > 0:
		m.is(s, carp.Master, carp.ReasonTimedOut)
	case s == carp.Master && x.draw(2) == 0:
		m.is(s, carp.Releasing, carp.ReasonHandover)
	case x.draw(3) == 0:
		m.is(s, carp.Init, carp.ReasonLinkDown)
	default:
		m.is(s, carp.Backup, carp.ReasonBetterMaster)
	}
}

// rest has all members be in a state, as often as they leave it, until nothing moves.
func (x *bandFlaps) rest(round int, want carp.State, role hooks.Role) {
	for range 200 {
		rests := true
		for _, m := range x.all {
			if s := m.now(); s == carp.Init {
				m.is(s, carp.Backup, carp.ReasonLinkUp)
			}
			if s := m.now(); s != want && s != carp.Releasing {
				m.is(s, want, carp.ReasonTimedOut)
			}
			rests = rests && m.now() == want && m.addressed() == (want == carp.Master)
		}
		if rests && x.thing.role() == role {
			wait(20 * time.Second)
			still := true
			for _, m := range x.all {
				still = still && m.now() == want && m.addressed() == (want == carp.Master)
			}
			if still && x.thing.role() == role {
				return
			}
		}
		wait(3 * time.Second)
	}
	for _, m := range x.all {
		x.t.Logf("%s is %v, address on: %v", m.name, m.now(), m.addressed())
	}
	x.t.Fatalf("round %d: it does not come to %v: the resource is %v", round, want, x.thing.role())
}
