package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

func TestFakeFenceConforms(t *testing.T) {
	viptest.FenceConformance(t, func(*testing.T) viptest.FenceSubject {
		f := viptest.NewFakeFence()
		return viptest.FenceSubject{Fence: f, Passes: func(a string) bool { return f.Passes(a, viptest.LinkName) }}
	})
}

// fenced is a world whose set is behind a gate. Adverts come each 100 ms, permits are
// for 270 ms, and the lease is long.
type fenced struct {
	*world
	f     *viptest.FakeFence
	gates *vip.Gates
	mu    sync.Mutex
	told  []vip.GatesEvent
	step  func() // called by the gates at each look at the clock
}

const (
	fastAdvert = 100 * ms
	fastPermit = 270 * ms
)

func inFence(t *testing.T, change func(*vip.Config), run func(*fenced)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fenced{f: viptest.NewFakeFence(), step: func() {}}
		w := &world{T: t, k: viptest.NewFakeKernel(viptest.Own()...), start: time.Now(), ended: make(chan error, 1)}
		f.world = w
		f.gates = vip.NewGates(f.f, func() carp.Instant { f.look(); return w.now() }, func(e vip.GatesEvent) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.told = append(f.told, e)
		})
		cfg := vip.Config{
			Interface: viptest.LinkName, VHID: 1, Addresses: prefixesOf(vip9+"/24", vip96+"/64"), Fence: f.gates,
			Lease: vip.Lease{Valid: 10 * time.Second, Renew: 2500 * ms}, Now: w.now, Observe: w.observe,
		}
		if change != nil {
			change(&cfg)
		}
		w.set = vip.New(w.k, cfg)
		working, stopWork := context.WithCancel(t.Context())
		gating, stopGates := context.WithCancel(context.Background())
		var both sync.WaitGroup
		go func() { w.ended <- w.set.Run(working) }()
		both.Go(func() { f.gates.Run(gating) })
		synctest.Wait()
		run(f)
		stopWork()
		if err := <-w.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		stopGates()
		both.Wait()
		if s := f.f.String(); s != "" {
			t.Errorf("left of the fence after Run:\n%s", s)
		}
	})
}

func (f *fenced) look() {
	f.mu.Lock()
	step := f.step
	f.mu.Unlock()
	step()
}

func (f *fenced) setStep(step func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.step = step
}

// fast gives a permit as after an advert of a fast group.
func (f *fenced) fast(epoch carp.Epoch) {
	f.set.Permit(carp.Permit{Epoch: epoch, Until: f.now().Add(fastPermit)})
}

func (f *fenced) fastUp(epoch carp.Epoch) {
	f.Helper()
	f.fast(epoch)
	if err := f.set.Up(f.Context(), epoch); err != nil {
		f.Fatalf("Up: %v", err)
	}
}

// adverts gives n permits, one each interval.
func (f *fenced) adverts(epoch carp.Epoch, n int) {
	for range n {
		time.Sleep(fastAdvert)
		f.fast(epoch)
	}
	synctest.Wait()
}

func (f *fenced) wantPass(pass bool, when string) {
	f.Helper()
	synctest.Wait()
	for _, a := range []string{vip9, vip96} {
		if got := f.f.Passes(a, viptest.LinkName); got != pass {
			f.Errorf("%s: %s passes: %v, want %v\n%v", when, a, got, pass, f.f)
		}
	}
}

func TestGateIsClosedBeforeAndAfterAMastershipAndOpenInIt(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		f.wantPass(false, "before any mastership")
		f.fastUp(1)
		f.wantPass(true, "when Up has returned")
		for range 30 {
			f.adverts(1, 1)
			f.wantPass(true, "with permits")
		}
		if err := f.set.Down(f.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		f.wantPass(false, "after Down")
		f.fastUp(2)
		f.wantPass(true, "in the next mastership")
	})
}

func TestGateClosesByItselfWhenPermitsEndAndPermitsThatResumeDoNotOpenIt(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		f.fastUp(1)
		f.adverts(1, 5)
		time.Sleep(fastPermit - 20*ms)
		f.wantPass(true, "shortly before the end of the permit")
		time.Sleep(20 * ms)
		f.wantPass(false, "at the end of the permit")
		f.adverts(1, 10)
		f.wantPass(false, "with permits of the same epoch")
		f.adverts(2, 10)
		f.wantPass(false, "with permits of the next epoch")
		f.fastUp(3)
		f.wantPass(true, "after a new Up")
	})
}

func TestGateClosesAtOnceWhenThePermitIsWithdrawn(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		f.fastUp(1)
		f.set.Permit(carp.Permit{})
		f.wantPass(false, "after the zero permit")
	})
}

func TestPermitWithdrawnWhileATagIsStagedOpensNothing(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		f.f.SetHooks(viptest.FenceHooks{After: func(call string) {
			if call == "Stage" {
				f.set.Permit(carp.Permit{})
			}
			if f.f.Passes(vip9, viptest.LinkName) {
				t.Errorf("open after %s", call)
			}
		}})
		f.fast(1)
		if err := f.set.Up(f.Context(), 1); err == nil {
			t.Error("Up: no error")
		}
		f.f.SetHooks(viptest.FenceHooks{})
	})
}

// Else a dead daemon's new address would answer beside the next master's.
func TestWhatAReloadAddsIsBehindTheGateBeforeItIsOn(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		f.fastUp(1)
		const added = "192.0.2.77"
		puts := 0
		f.k.SetHooks(viptest.Hooks{BeforeApply: func(changes []vip.Change) {
			for _, c := range changes {
				if c.Op != vip.Put || c.Prefix.Addr().String() != added {
					continue
				}
				if puts++; !strings.Contains(f.f.String(), added) {
					t.Errorf("%s is put on, and behind the gate is\n%v", added, f.f)
				}
			}
		}})
		f.fast(1)
		if err := f.set.Reconfigure(f.Context(), prefixesOf(vip9+"/24", vip96+"/64", added+"/24"), vip.Lease{Valid: 10 * time.Second, Renew: 2500 * ms}); err != nil {
			t.Fatal(err)
		}
		f.k.SetHooks(viptest.Hooks{})
		if puts == 0 {
			t.Error("it was not put on")
		}
	})
}

// The order of the plan: gate, addresses and their announcements; and gate, addresses.
func TestGateOpensBeforeTheAddressesAreOnAndClosesBeforeTheyAreOff(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		var order []string
		f.f.SetHooks(viptest.FenceHooks{Before: func(call string) error {
			order = append(order, fmt.Sprintf("%s on=%v", call, f.k.Has(vip9)))
			return nil
		}})
		f.k.SetHooks(viptest.Hooks{
			BeforeApply: func([]vip.Change) {
				order = append(order, fmt.Sprintf("Apply pass=%v", f.f.Passes(vip9, viptest.LinkName)))
			},
			BeforeSend: func([][]byte) error { order = append(order, "Send"); return nil },
			BeforeSever: func(context.Context, []netip.Addr) error {
				order = append(order, fmt.Sprintf("Sever pass=%v", f.f.Passes(vip9, viptest.LinkName)))
				return nil
			},
		})
		check := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := fmt.Sprint(order); got != want {
				t.Errorf("order %v, want %v", got, want)
			}
			order = nil
		}
		f.fastUp(1)
		check("[Stage on=false Set on=false Apply pass=true Send]")
		if err := f.set.Down(f.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		check("[Sever pass=true Set on=true Apply pass=false Sever pass=false]")
		f.fastUp(2)
		order = nil
		f.set.Permit(carp.Permit{}) // another master lives: nobody is told by us
		check("[Set on=true Sever pass=false Apply pass=false Sever pass=false]")
		f.k.SetHooks(viptest.Hooks{})
		f.f.SetHooks(viptest.FenceHooks{})
	})
}

// TestFrozenAnywhereTheGateIsNeverOpenLongerThanItsPermit freezes the process at every
// look at the clock and before and after every call of the fence in turn, for times
// around all that matter, and lets it go on in three ways.
func TestFrozenAnywhereTheGateIsNeverOpenLongerThanItsPermit(t *testing.T) {
	freezes := []time.Duration{15 * ms, 60 * ms, 169 * ms, 200 * ms, 268 * ms, 270 * ms, 272 * ms, 400 * ms, 3 * time.Second}
	resumes := []string{"with permits", "yielding", "silent"}
	runs, froze := 0, 0
	for _, length := range freezes {
		for _, resume := range resumes {
			for at := 1; ; at++ {
				runs++
				if !frozenRun(t, at, length, resume) {
					break
				}
				froze++
				if at > 500 {
					t.Fatal("the run does not end")
				}
			}
		}
	}
	t.Logf("%d runs, frozen in %d", runs, froze)
	if froze < 20*len(freezes)*len(resumes) {
		t.Errorf("only %d freezes: the steps are not counted", froze)
	}
}

// frozenRun freezes at one step, and reports whether there was such a step.
func frozenRun(t *testing.T, at int, length time.Duration, resume string) (froze bool) {
	inFence(t, nil, func(f *fenced) {
		var mu sync.Mutex
		var allowed carp.Instant // until when the gate may be open
		frozen, lapsed, steps := false, false, 0
		step := func() {
			mu.Lock()
			steps++
			now := steps == at
			frozen = frozen || now
			mu.Unlock()
			if now {
				froze = true
				time.Sleep(length)
				mu.Lock()
				frozen = false
				mu.Unlock()
			}
		}
		permit := func() {
			mu.Lock()
			if f.now() >= allowed && allowed != 0 {
				lapsed = true
			}
			if !lapsed {
				allowed = f.now().Add(fastPermit)
			}
			mu.Unlock()
			f.fast(1)
		}
		ctx, stop := context.WithCancel(f.Context())
		var all sync.WaitGroup
		all.Go(func() { // the eye, which does not freeze
			for ctx.Err() == nil {
				mu.Lock()
				open, limit := f.f.Passes(vip9, viptest.LinkName), allowed
				mu.Unlock()
				if now := f.now(); open && now >= limit {
					t.Fatalf("freeze of %v at step %d, %s: open at %v, and the permit ended at %v", length, at, resume, now, limit)
				}
				time.Sleep(ms)
			}
		})
		f.setStep(step)
		f.f.SetHooks(viptest.FenceHooks{Before: func(string) error { step(); return nil }, After: func(string) { step() }})
		permit()
		up := make(chan error, 1)
		all.Go(func() { up <- f.set.Up(ctx, 1) })
		was := false
		for range 8 { // the loop, which freezes with the rest
			time.Sleep(fastAdvert)
			for {
				mu.Lock()
				now := frozen
				mu.Unlock()
				if !now {
					break
				}
				was = true
				time.Sleep(ms)
			}
			switch {
			case was && resume == "silent":
			case was && resume == "yielding":
				f.set.Permit(carp.Permit{})
			default:
				permit()
			}
		}
		time.Sleep(2 * fastPermit)
		f.wantPass(false, "without permits")
		f.setStep(func() {})
		f.f.SetHooks(viptest.FenceHooks{})
		stop()
		<-up
		all.Wait()
	})
	return froze
}

func TestSlowFenceIsGivenMoreTime(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		f.f.SetHooks(viptest.FenceHooks{Before: func(call string) error {
			if call == "Stage" {
				time.Sleep(40 * ms)
			}
			return nil
		}})
		f.fastUp(1)
		for range 20 {
			f.adverts(1, 1)
			f.wantPass(true, "with a slow fence")
		}
		f.f.SetHooks(viptest.FenceHooks{})
	})
}

func TestGateThatCannotBeOpenedFailsTheUp(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		broken := errors.New("no")
		f.f.SetHooks(viptest.FenceHooks{Before: func(call string) error {
			if call == "Stage" {
				return broken
			}
			return nil
		}})
		f.fast(1)
		if err := f.set.Up(f.Context(), 1); !errors.Is(err, broken) {
			t.Errorf("Up: %v, want the fence's error", err)
		}
		if f.k.Has(vip9) {
			t.Error("the address is on")
		}
		f.f.SetHooks(viptest.FenceHooks{})
		f.fastUp(2)
		f.wantPass(true, "when the fence works again")
		if len(f.told) != 2 || f.told[0].Err == nil || f.told[1].Err != nil {
			t.Errorf("told %+v, want the failure and its end, once", f.told)
		}
	})
}

func TestFenceThatSomebodyRemovedIsMadeAnew(t *testing.T) {
	for name, told := range map[string]bool{"noticed": true, "found at the next renewal": false} {
		t.Run(name, func(t *testing.T) {
			inFence(t, nil, func(f *fenced) {
				f.fastUp(1)
				f.f.Flush(told)
				if told {
					f.wantPass(true, "at once")
				}
				f.adverts(1, 3)
				f.wantPass(true, "after it was made anew")
				if f.f.String() == "" || len(f.told) != 1 || !errors.Is(f.told[0].Err, vip.ErrFenceLost) {
					t.Errorf("told %+v, want that it was lost, once", f.told)
				}
				time.Sleep(fastPermit)
				f.wantPass(false, "without permits")
			})
		})
	}
}

func TestReconfigureOfAFencedMasterCutsNothing(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		f.fastUp(1)
		f.f.SetHooks(viptest.FenceHooks{After: func(call string) {
			if f.k.Has(vip9) && !f.f.Passes(vip9, viptest.LinkName) {
				t.Errorf("%s cut the address that stays", call)
			}
		}})
		f.fast(1)
		if err := f.set.Reconfigure(f.Context(), prefixesOf(vip9+"/24", "192.0.2.10/24"), vip.Lease{}); err != nil {
			t.Errorf("Reconfigure: %v", err)
		}
		if !f.k.Has("192.0.2.10") || !f.f.Passes("192.0.2.10", viptest.LinkName) {
			t.Error("the new address is not served")
		}
		f.f.SetHooks(viptest.FenceHooks{})
		time.Sleep(fastPermit)
		if f.f.Passes("192.0.2.10", viptest.LinkName) || !f.f.Passes(vip96, viptest.LinkName) {
			t.Error("the new address is not behind the gate, or the old one is")
		}
	})
}

func TestFenceIsPutUpAndTakenDownUnderALivingMaster(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		f.fastUp(1)
		f.f.SetHooks(viptest.FenceHooks{After: func(call string) {
			if !f.f.Passes(vip9, viptest.LinkName) {
				t.Errorf("%s cut the address", call)
			}
		}})
		if err := f.set.Fence(f.Context(), nil); err != nil {
			t.Errorf("Fence off: %v", err)
		}
		if s := f.f.String(); s != "" {
			t.Errorf("left of the fence:\n%s", s)
		}
		f.adverts(1, 3)
		if err := f.set.Fence(f.Context(), f.gates); err != nil {
			t.Errorf("Fence on: %v", err)
		}
		f.adverts(1, 3)
		f.f.SetHooks(viptest.FenceHooks{})
		time.Sleep(fastPermit)
		f.wantPass(false, "without permits")
	})
}

// A renewal a third of the life, not one an advert.
func TestFastAdvertsDoNotRenewTheGateEachTime(t *testing.T) {
	inFence(t, nil, func(f *fenced) {
		give := func() { f.set.Permit(carp.Permit{Epoch: 1, Until: f.now().Add(time.Second)}) }
		give()
		if err := f.set.Up(f.Context(), 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := f.f.Calls()
		for range 300 {
			time.Sleep(10 * ms)
			give()
			f.wantPass(true, "with permits")
		}
		if n := f.f.Calls() - before; n > 2*13 {
			t.Errorf("%d calls in 3 s, want two each 300 ms or so", n)
		}
	})
}
