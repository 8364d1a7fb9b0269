package viptest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/carpd/carpd/vip"
)

// FenceSubject is a fence and a way to look at it. The addresses of FenceAddrs are on
// LinkName of the host that it is on.
type FenceSubject struct {
	vip.Fence
	// Passes reports whether the host answers for the address now. It may take a moment.
	Passes func(addr string) bool
}

// FenceAddrs returns the addresses that FenceConformance uses.
func FenceAddrs() []string { return []string{"192.0.2.9", "2001:db8::9", "fe80::9"} }

// fenceGrain is how much sooner than its life a tag may end.
const fenceGrain = 20 * time.Millisecond

type fenceSuite struct {
	*testing.T
	FenceSubject
}

// FenceConformance checks what a vip.Fence promises. Open returns a fresh one each time;
// FenceConformance closes it.
func FenceConformance(t *testing.T, open func(t *testing.T) FenceSubject) {
	for _, tc := range []struct {
		name string
		run  func(fenceSuite)
	}{
		{"NothingIsFencedThatIsNotProtected", testFenceEmpty},
		{"ProtectedIsClosedUntilItsMarkIsSetToALivingTag", testFenceOpens},
		{"StagedTagHasNoEffectAndEndsWhateverIsSet", testFenceStaged},
		{"TagEndsInTime", testFenceEnds},
		{"MarkIsClosedAtOnce", testFenceCloses},
		{"ProtectKeepsTheStateOfTheMark", testFenceProtectAgain},
		{"AddressHasOneMark", testFenceOwner},
		{"LinkLocalCountsOnItsLinks", testFenceLinks},
		{"ForgottenPasses", testFenceForgets},
		{"ThousandsAreProtected", testFenceThousands},
		{"SetIsAllOrNothing", testFenceAtomic},
		{"RestoreCloses", testFenceRestores},
		{"CloseTwice", testFenceClose},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := open(t)
			t.Cleanup(func() { _ = f.Close() })
			tc.run(fenceSuite{t, f})
		})
	}
}

func (s fenceSuite) do(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s fenceSuite) protect(mark uint32, addrs ...string) {
	s.Helper()
	s.do(s.Protect(mark, []string{LinkName}, addrsOf(addrs)))
}

func addrsOf(words []string) (out []netip.Addr) {
	for _, w := range words {
		out = append(out, netip.MustParseAddr(w))
	}
	return out
}

func (s fenceSuite) open(mark, tag uint32, life time.Duration) {
	s.Helper()
	s.do(s.Stage([]vip.Stage{{Tag: tag, Life: life}}))
	s.do(s.Set([]vip.Point{{Mark: mark, Tag: tag}}))
}

func (s fenceSuite) want(passes bool, addrs ...string) {
	s.Helper()
	for _, a := range addrs {
		if passes { // a question may be lost on a busy machine
			eventually(s.T, 2*time.Second, a+" to pass", func() bool { return s.Passes(a) })
		} else if s.Passes(a) {
			s.Errorf("%s passes", a)
		}
	}
}

func testFenceEmpty(s fenceSuite) { s.want(true, FenceAddrs()...) }

func testFenceOpens(s fenceSuite) {
	s.protect(1, FenceAddrs()...)
	s.want(false, FenceAddrs()...)
	s.open(1, 7, 10*time.Second)
	s.want(true, FenceAddrs()...)
}

func testFenceStaged(s fenceSuite) {
	s.protect(1, FenceAddrs()...)
	s.do(s.Stage([]vip.Stage{{Tag: 5, Life: 50 * time.Millisecond}, {Tag: 6, Life: 10 * time.Second}}))
	s.want(false, FenceAddrs()[0])
	<-time.After(60 * time.Millisecond)
	s.do(s.Set([]vip.Point{{Mark: 1, Tag: 5}}))
	s.want(false, FenceAddrs()...)
	s.do(s.Set([]vip.Point{{Mark: 1, Tag: 6}}))
	s.want(true, FenceAddrs()...)
}

func testFenceEnds(s fenceSuite) {
	s.protect(1, FenceAddrs()...)
	const life = 300 * time.Millisecond
	began := time.Now()
	s.open(1, 7, life)
	latest := time.Now().Add(life)
	for s.Passes(FenceAddrs()[0]) {
		if late := time.Since(latest); late > time.Second {
			s.Fatalf("open %v after the end of the tag", late)
		}
	}
	if early := life - time.Since(began); early > fenceGrain {
		s.Errorf("closed %v early", early)
	}
	s.want(false, FenceAddrs()...)
}

func testFenceCloses(s fenceSuite) {
	s.protect(1, FenceAddrs()...)
	s.open(1, 7, 10*time.Second)
	s.want(true, FenceAddrs()[0])
	s.do(s.Set([]vip.Point{{Mark: 1}}))
	s.want(false, FenceAddrs()...)
}

func testFenceProtectAgain(s fenceSuite) {
	all := FenceAddrs()
	s.protect(1)
	s.open(1, 7, 10*time.Second)
	s.protect(1, all[0])
	s.want(true, all...)
	s.protect(1, all...)
	s.want(true, all...)
	s.do(s.Set([]vip.Point{{Mark: 1}}))
	s.want(false, all...)
	s.protect(1, all[1])
	s.want(true, all[0], all[2])
	s.want(false, all[1])
}

func testFenceOwner(s fenceSuite) {
	all := FenceAddrs()
	s.protect(1, all[0])
	err := s.Protect(2, []string{LinkName}, addrsOf(all))
	if op, ok := errors.AsType[*vip.OpError](err); !ok || !errors.Is(err, vip.ErrFenced) || op.Op != "fence" {
		s.Errorf("Protect of another mark's address: %v, want an OpError, ErrFenced", err)
	}
	s.want(true, all[1])
	s.protect(1)
	s.protect(2, all...)
	s.want(false, all...)
}

func testFenceLinks(s fenceSuite) {
	s.do(s.Protect(1, []string{"other0"}, addrsOf(FenceAddrs())))
	s.do(s.Protect(2, []string{"third0", "fourth0"}, addrsOf(FenceAddrs()[2:])))
	s.want(false, FenceAddrs()[:2]...)
	s.want(true, FenceAddrs()[2])
}

func testFenceForgets(s fenceSuite) {
	s.protect(1, FenceAddrs()...)
	s.do(s.Forget(1))
	s.want(true, FenceAddrs()...)
	s.do(s.Forget(1))
	s.protect(1, FenceAddrs()...)
	s.want(false, FenceAddrs()...)
}

func testFenceThousands(s fenceSuite) {
	var all []string
	for i := range 3000 {
		all = append(all, fmt.Sprintf("10.1.%d.%d", i/250, i%250), fmt.Sprintf("2001:db8:1::%x", i+1))
	}
	s.protect(1, slices.Concat(all, FenceAddrs())...)
	s.want(false, FenceAddrs()...)
	s.protect(1, all...)
	s.want(true, FenceAddrs()...)
	s.protect(1)
	s.protect(2, slices.Concat(all, FenceAddrs())...) // nothing of it is mark 1's
	s.open(2, 9, 10*time.Second)
	s.want(true, FenceAddrs()...)
}

func testFenceAtomic(s fenceSuite) {
	s.protect(1, FenceAddrs()...)
	s.do(s.Stage([]vip.Stage{{Tag: 7, Life: 10 * time.Second}}))
	if err := s.Set([]vip.Point{{Mark: 1, Tag: 7}, {Mark: 99, Tag: 7}}); !errors.Is(err, vip.ErrFenceLost) {
		s.Errorf("Set of an unknown mark: %v, want ErrFenceLost", err)
	}
	s.want(false, FenceAddrs()...)
}

func testFenceRestores(s fenceSuite) {
	s.protect(1, FenceAddrs()...)
	s.open(1, 7, 10*time.Second)
	s.do(s.Restore())
	s.want(false, FenceAddrs()...)
	s.open(1, 8, 10*time.Second)
	s.want(true, FenceAddrs()...)
}

func testFenceClose(s fenceSuite) {
	s.protect(1, FenceAddrs()...)
	s.do(s.Close())
	s.want(true, FenceAddrs()...)
	s.do(s.Close())
	if err := s.Stage([]vip.Stage{{Tag: 1, Life: time.Second}}); err == nil {
		s.Error("Stage after Close: no error")
	}
}
