package guardian

import (
	"log/slog"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

func newKeeper(t *testing.T) *Keeper {
	t.Helper()
	k, err := Open(Options{Log: slog.New(slog.DiscardHandler), Alarm: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func admit(t *testing.T, k *Keeper) *Ward {
	t.Helper()
	w, err := k.Admit()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// mapped is the page as the other process has it.
func mapped(t *testing.T, k *Keeper) *page {
	t.Helper()
	p, err := mapPage(int(k.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

func TestAPermitIsSeenByTheOtherProcessAtOnce(t *testing.T) {
	k := newKeeper(t)
	first, w := admit(t, k), admit(t, k)
	other := mapped(t, k)
	if !w.Permit(carp.Permit{Epoch: 1, Until: 77}) {
		t.Fatal("the permit was refused")
	}
	if got := other.until(w.slot).Load(); got != 77 {
		t.Errorf("the other process reads %d", got)
	}
	if got := other.until(first.slot).Load(); got != 0 {
		t.Errorf("another instance has a permit until %d", got)
	}
	w.Permit(carp.Permit{})
	if got := other.until(w.slot).Load(); got != 0 {
		t.Errorf("a permit that was withdrawn is read as %d", got)
	}
}

// The loop finds out that it was too late, and its next mastership is guarded again.
func TestAPermitThatWasActedForIsRefusedUntilTheRoleIsLeft(t *testing.T) {
	k := newKeeper(t)
	w := admit(t, k)
	other := mapped(t, k)
	w.Permit(carp.Permit{Epoch: 1, Until: 77})
	g := guardian{page: other, wards: map[int]*ward{w.slot: {generation: w.generation, about: About{Permit: time.Second}}}}
	slots, sights := g.look()
	if len(sights) != 1 || sights[0].until != 77 {
		t.Fatalf("the guardian sees %+v", sights)
	}
	// The loop is first: nothing happens.
	w.Permit(carp.Permit{Epoch: 1, Until: 88})
	if other.until(slots[0]).CompareAndSwap(int64(sights[0].until), int64(taken)) {
		t.Fatal("a permit was taken that had been renewed")
	}
	// The guardian is first.
	other.until(w.slot).Store(int64(taken))
	if w.Permit(carp.Permit{Epoch: 1, Until: 99}) || w.Permit(carp.Permit{Epoch: 2, Until: 99}) {
		t.Error("a permit counts though the guardian has acted")
	}
	w.Permit(carp.Permit{})
	if !w.Permit(carp.Permit{Epoch: 3, Until: 111}) {
		t.Error("the next mastership has no permit")
	}
}

func TestASlotThatIsUsedAgainIsAnotherInstance(t *testing.T) {
	k := newKeeper(t)
	w := admit(t, k)
	other := mapped(t, k)
	g := guardian{page: other, wards: map[int]*ward{w.slot: {generation: w.generation}}}
	w.Permit(carp.Permit{Epoch: 1, Until: 77})
	w.Close()
	again := admit(t, k)
	if again.slot != w.slot {
		t.Fatalf("slot %d after %d", again.slot, w.slot)
	}
	again.Permit(carp.Permit{Epoch: 1, Until: 88})
	if _, sights := g.look(); sights[0].until != 0 {
		t.Error("the guardian takes the new instance for the old one, whose addresses it knows")
	}
	tell := func(w *Ward, name string) {
		if err := w.Tell(About{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	tell(again, "new")
	tell(w, "old") // it was on its way when the instance ended
	if m, err := decode(k.news[topic{w.slot, kindWard}]); err != nil || m.about.Name != "new" {
		t.Errorf("a guardian that starts now is told of %q, %v, want the new instance", m.about.Name, err)
	}
}

func TestThereIsAnEndToInstances(t *testing.T) {
	k := newKeeper(t)
	k.used = maxSlots
	if _, err := k.Admit(); err == nil {
		t.Error("one more than the page has room for was admitted")
	}
}

func TestWithoutAGuardianEverythingIsPermitted(t *testing.T) {
	var k *Keeper
	w, err := k.Admit()
	if err != nil || !w.Permit(carp.Permit{Epoch: 1, Until: 1}) || w.Tell(About{}) != nil || k.Status().State != Off {
		t.Error("a daemon without a guardian is kept from something")
	}
	w.Close()
	k.Turned(1)
	k.Close()
}
