package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

// flapping is a resource of four steps, whose calls take their time, hang, fail, lie, panic
// and ignore that they are cancelled, at random.
type flapping struct {
	name string
	x    *flaps

	mu     sync.Mutex
	rng    *rand.Rand
	on     [4]bool
	epoch  carp.Epoch // of the promotion that ran last
	inside string
}

// flaps is an instance whose engine is the test.
type flaps struct {
	t      *testing.T
	i      *instance
	kernel *viptest.FakeKernel
	steps  []*flapping
	faults atomic.Int32 // in a hundred steps
	held   atomic.Bool  // nothing can be demoted

	mu sync.Mutex
	worker
	state carp.State
	epoch carp.Epoch
	at    carp.Instant
}

const (
	flapAddress = "192.0.2.50"
	noReturn    = 2 // the step that has none
)

func (f *flapping) enter(call string) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inside != "" {
		f.x.t.Errorf("%s: %s while %s runs", f.name, call, f.inside)
	}
	f.inside = call
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.inside = ""
	}
}

// effect is what a step does to the world; lie that it does nothing.
func (f *flapping) step(ctx context.Context) (lie bool, err error) {
	f.mu.Lock()
	kind, takes := f.rng.IntN(100), time.Duration(f.rng.IntN(800))*time.Millisecond
	which := f.rng.IntN(12)
	f.mu.Unlock()
	if kind >= int(f.x.faults.Load()) {
		which = 99
	}
	wait := func(ctx context.Context) error {
		timer := time.NewTimer(takes)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch which {
	case 0, 1: // hangs
		<-ctx.Done()
		return false, ctx.Err()
	case 2, 3:
		return false, errors.New("broken")
	case 4:
		return false, hooks.Refuse(errors.New("not fit"))
	case 5, 6:
		return false, hooks.TryAgain(errors.New("busy"))
	case 7:
		return true, nil
	case 8:
		panic("flapping")
	case 9, 10: // takes the step, though it was cancelled
		takes *= 12
		return false, wait(context.Background())
	}
	return false, wait(ctx)
}

func (f *flapping) Promote(ctx context.Context, ev hooks.Event) error {
	defer f.enter("promote")()
	f.mu.Lock()
	f.epoch = ev.Epoch
	f.mu.Unlock()
	return f.move(ctx, true)
}

func (f *flapping) Demote(ctx context.Context, _ hooks.Event) error {
	defer f.enter("demote")()
	if f.x.held.Load() {
		return errors.New("held by a process")
	}
	return f.move(ctx, false)
}

func (f *flapping) move(ctx context.Context, to bool) error {
	for n := range f.on {
		k := n
		if !to {
			k = len(f.on) - 1 - n
			if f.x.kernel.Has(flapAddress) {
				f.x.t.Errorf("%s is demoted while the address is on", f.name)
			}
		}
		f.mu.Lock()
		already := f.on[k] == to
		f.mu.Unlock()
		if already {
			continue
		}
		name, mark := fmt.Sprint("step-", k), hooks.Mark
		if to && k == noReturn {
			mark = hooks.MarkNoReturn
		}
		if err := mark(ctx, name); err != nil {
			return err
		}
		if to && k == noReturn && f.x.i.mayAct() != nil {
			f.x.t.Errorf("%s takes a step without return and has no permit", f.name)
		}
		lie, err := f.step(ctx)
		if err != nil {
			return err
		}
		if !lie {
			f.mu.Lock()
			f.on[k] = to
			f.mu.Unlock()
		}
	}
	return nil
}

func (f *flapping) Monitor(ctx context.Context) (hooks.Report, error) {
	defer f.enter("monitor")()
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, on := range f.on {
		if on {
			n++
		}
	}
	return hooks.Report{Role: map[int]hooks.Role{0: hooks.RoleDemoted, len(f.on): hooks.RolePromoted}[n]}, nil
}

// memory is a directory on which nothing waits for a disk, if there is one.
func memory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "carpd")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newFlaps makes an instance with two resources and a hook after up.
func newFlaps(t *testing.T, seed uint64) *flaps {
	x := &flaps{t: t, kernel: viptest.NewFakeKernel("192.0.2.1/24"), state: carp.Init}
	x.worker = newWorker(&x.mu)
	d := &Daemon{book: newBook(slog.New(slog.DiscardHandler)), log: slog.New(slog.DiscardHandler), stateDir: memory(t)}
	p := planned(t, oneRouter)
	p.addresses.Lease = vip.Lease{}
	p.addresses.Now = func() carp.Instant { return carp.Instant(time.Now().UnixNano()) } // of the bubble
	x.i = &instance{d: d, name: p.Name, owing: true, saving: make(chan struct{}, 1)}
	x.i.resources.changed = make(chan struct{}, 1)
	for n := range 2 {
		f := &flapping{name: fmt.Sprint("resource-", n), x: x, rng: rand.New(rand.NewPCG(seed, uint64(n)))}
		x.steps = append(x.steps, f)
		p.steps = append(p.steps, hooks.Step{
			Name: f.name, Kind: "flapping", Resource: f, Timeout: 8 * time.Second, Release: 8 * time.Second,
			Watch: hooks.Watch{Interval: time.Second},
		})
	}
	slow := rand.New(rand.NewPCG(seed, 99))
	p.steps = append(p.steps, hooks.Step{Name: "told", Kind: "slow", Phase: hooks.AfterUp, Timeout: 10 * time.Second, Hook: slowHook{x, slow}})
	x.i.plan.Store(p)
	if err := x.i.setHooks(p.steps); err != nil {
		t.Fatal(err)
	}
	if err := x.i.resources.journal.Open(); err != nil {
		t.Fatal(err)
	}
	x.i.set = vip.New(x.kernel, p.addresses)
	var err error
	if x.i.speaker, err = carp.NewSpeaker(p.carp, closedLink{}, x.i); err != nil {
		t.Fatal(err)
	}
	return x
}

type slowHook struct {
	x   *flaps
	rng *rand.Rand // a hook runs one at a time
}

// Run checks what holds when the addresses are on, and sometimes takes long to be ended.
func (h slowHook) Run(ctx context.Context, ev hooks.Event) error {
	for _, f := range h.x.steps {
		f.mu.Lock()
		if f.epoch != ev.Epoch {
			h.x.t.Errorf("%s serves in epoch %d, and was promoted in %d: its gate did not run in this mastership", f.name, ev.Epoch, f.epoch)
		}
		f.mu.Unlock()
	}
	if h.rng.IntN(4) == 0 {
		late := time.NewTimer(time.Duration(h.rng.IntN(5000)) * time.Millisecond)
		<-late.C
	}
	return nil
}

// become is what the engine does: it puts a transition in the mailbox, and withdraws or
// gives the permit. The caller holds mu.
func (x *flaps) become(to carp.State, why carp.Reason) {
	x.at++
	if to == carp.Master && (x.state != carp.Master || why == carp.ReasonContested) {
		x.epoch++
	}
	t := carp.Transition{VHID: 51, From: x.state, To: to, Reason: why, Epoch: x.epoch, At: x.at}
	x.state = to
	x.put(t)
	x.i.observe(t)
	switch to {
	case carp.Master, carp.Releasing:
		x.i.Permit(carp.Permit{Epoch: x.epoch, Until: 1 << 62})
	default:
		x.i.Permit(carp.Permit{})
	}
}

// flap is the next transition at random.
func (x *flaps) flap(rng *rand.Rand) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch r := rng.IntN(10); {
	case x.state == carp.Master && r < 2:
		x.become(carp.Master, carp.ReasonContested)
	case x.state == carp.Master && r < 5:
		x.become(carp.Releasing, carp.ReasonHandover)
	case x.state == carp.Master:
		x.become(carp.Backup, carp.ReasonBetterMaster)
	case x.state == carp.Releasing:
		x.become(carp.Backup, carp.ReasonReleaseFailed)
	default:
		x.become(carp.Master, carp.ReasonTimedOut)
	}
}

// A thousand opposite transitions at random, at every step of two resources that hang,
// fail, lie, panic and ignore that they are cancelled: no two calls of a resource at once,
// no address without the resources of this mastership, none without a permit past the
// point of no return, and when it is quiet all agree with the role.
func TestFlappingRolesNeverMixAndEndWhereTheRoleIs(t *testing.T) {
	rounds := 1000
	if testing.Short() {
		rounds = 150
	}
	const seeds = 4
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newFlaps(t, seed)
				defer x.i.closeJournal()
				x.run(rand.New(rand.NewPCG(seed, 7)), rounds/seeds)
			})
		})
	}
}

// What could not be let go is let go when what held it is gone, though the role has long
// moved.
func TestWhatCouldNotBeLetGoIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFlaps(t, 1)
		defer x.i.closeJournal()
		defer x.begin()()
		alarm := func() bool {
			return slices.ContainsFunc(x.i.d.book.standing(x.i.name), func(a api.Alarm) bool { return a.Name == "not-let-go" })
		}
		x.held.Store(true)
		for _, to := range []carp.State{carp.Master, carp.Backup} {
			x.mu.Lock()
			x.become(to, carp.ReasonTimedOut)
			x.mu.Unlock()
			pause(10 * time.Minute)
		}
		if !x.i.holds() || !alarm() {
			t.Fatalf("a resource that is held by a process is let go: %v, alarm %v", !x.i.holds(), alarm())
		}
		x.held.Store(false)
		pause(settleLong + time.Minute)
		if x.i.holds() || alarm() {
			t.Errorf("it is held still: %v, alarm: %v", x.i.holds(), alarm())
		}
	})
}

func pause(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// begin runs all that an instance has beside its speaker.
func (x *flaps) begin() (end func()) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	_ = x.i.speaker.Run(ctx) // it ends at once
	ctx, stop = context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { x.i.set.Run(ctx) })
	all.Go(func() { x.i.watchResources(ctx) })
	all.Go(func() { x.work(ctx, x.i.Handle, x.become) })
	return func() { stop(); x.cancel(); all.Wait() }
}

func (x *flaps) run(rng *rand.Rand, rounds int) {
	t := x.t
	defer x.begin()()
	for round := range rounds {
		x.faults.Store(int32([]int{0, 10, 30}[rng.IntN(3)]))
		for range 1 + rng.IntN(8) {
			x.flap(rng)
			pause(time.Duration(rng.IntN([]int{1, 50, 1000, 6000}[rng.IntN(4)])) * time.Millisecond)
		}
		x.faults.Store(0)
		want := []carp.State{carp.Master, carp.Backup}[round%2]
		for tries := 0; ; tries++ { // until it is quiet
			x.mu.Lock()
			if x.state != want || tries == 0 {
				x.become(want, carp.ReasonTimedOut)
			}
			x.mu.Unlock()
			pause(2 * time.Minute)
			synctest.Wait()
			x.mu.Lock()
			quiet := x.state == want
			x.mu.Unlock()
			if quiet {
				break
			}
			if tries > 3 {
				t.Fatalf("round %d: it does not come to %v", round, want)
			}
		}
		role := map[carp.State]hooks.Role{carp.Master: hooks.RolePromoted, carp.Backup: hooks.RoleDemoted}[want]
		for _, f := range x.steps {
			report, _ := f.Monitor(t.Context())
			if report.Role != role {
				t.Fatalf("round %d: the node is %v, and %s is %v: %v", round, want, f.name, report.Role, f.on)
			}
			if p := x.i.resources.journal.Past(f.name); p.Promoted != (want == carp.Master) || p.Unfinished {
				t.Fatalf("round %d: the node is %v, and the journal knows of %s: %+v", round, want, f.name, p)
			}
		}
		if x.kernel.Has(flapAddress) != (want == carp.Master) {
			t.Fatalf("round %d: the node is %v, and the address is on: %v", round, want, x.kernel.Has(flapAddress))
		}
		for _, st := range x.i.runner.Load().Status() {
			if st.Place == hooks.PlaceResource && (st.Wished != role || st.Role != role || !st.Apart.IsZero()) {
				t.Fatalf("round %d: the node is %v, and the status says %+v", round, want, st)
			}
		}
	}
}

// closedLink is the link of a speaker that has ended: the test is its engine.
type closedLink struct{}

func (closedLink) Now() carp.Instant     { return link.Now() }
func (closedLink) Send(carp.Frame) error { return errors.New("closed") }
func (closedLink) Notify(func())         {}
func (closedLink) Close() error          { return nil }
func (closedLink) Events() <-chan carp.LinkEvent {
	events := make(chan carp.LinkEvent)
	close(events)
	return events
}
