package guardian

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/carpd/carpd/carp"
)

// Ward is one instance of the daemon, as its guardian has it. A nil Ward is one that
// nobody guards: its methods do nothing.
type Ward struct {
	k          *Keeper
	slot       int
	generation int64
}

// Admit makes the ward of an instance, which holds no permit. It fails if there are
// too many. Close gives it back. On a nil Keeper it returns a nil Ward.
func (k *Keeper) Admit() (*Ward, error) {
	if k == nil {
		return nil, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	slot := k.used
	switch n := len(k.free); {
	case n > 0:
		slot, k.free = k.free[n-1], k.free[:n-1]
	case k.used == maxSlots:
		return nil, errors.New("guardian: admit an instance: there are too many")
	default:
		k.used++
	}
	w := &Ward{k: k, slot: slot, generation: k.page.generation(slot).Add(1)}
	return w, nil
}

// Permit notes the end of a permit, or with the zero Permit that there is none any
// more. It reports false if the guardian has acted for this one: then the addresses
// are gone, bow-outs were sent, and the instance must leave the role. One goroutine
// calls it; it is a store to memory, and waits for nothing.
func (w *Ward) Permit(p carp.Permit) bool {
	if w == nil {
		return true
	}
	until := w.k.page.until(w.slot)
	if p.Epoch == 0 {
		until.Store(0)
		return true
	}
	was := until.Load()
	return was != int64(taken) && until.CompareAndSwap(was, int64(p.Until))
}

// Tell says what the guardian has to know of the instance from now on. It returns
// when the guardian has it to read, or will be told as soon as it reads; it does not
// wait for that. An error says that it cannot be told: what it knew before stays.
// Any goroutine but the loop's may call it.
func (w *Ward) Tell(a About) error {
	if w == nil {
		return nil
	}
	return w.tell(message{kind: kindWard, about: a})
}

// Place says, as Tell, which addresses may be on the interface with that index from
// now on, in the form that they have there.
func (w *Ward) Place(index int, prefixes []netip.Prefix) error {
	if w == nil {
		return nil
	}
	return w.tell(message{kind: kindPlace, place: place{index, prefixes}})
}

func (w *Ward) tell(m message) error {
	m.slot, m.generation = w.slot, w.generation
	b, err := m.encode()
	if err != nil {
		return err
	}
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	if w.k.page.generation(w.slot).Load() != w.generation {
		return nil // closed meanwhile: the slot may be another's, whose news this would replace
	}
	t := topic{w.slot, m.kind}
	w.k.news[t] = b
	return w.k.deliver(t)
}

// Close forgets the instance, which has stopped.
func (w *Ward) Close() {
	if w == nil {
		return
	}
	k := w.k
	k.page.until(w.slot).Store(0)
	m := message{kind: kindForget, slot: w.slot, generation: w.generation}
	b, err := m.encode()
	if err != nil {
		panic(fmt.Sprintf("guardian: %v", err)) // three numbers are never too long
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// Told once: a guardian that starts later has never heard of it, and one that is
	// full finds another generation on the page.
	_ = k.post(b)
	for _, about := range []kind{kindWard, kindPlace} {
		delete(k.news, topic{w.slot, about})
		delete(k.owed, topic{w.slot, about})
	}
	k.page.generation(w.slot).Add(1)
	k.free = append(k.free, w.slot)
}
