package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Down takes the addresses off, sees that they are gone, and tries again a few
// times if not. From its call on nothing puts them back; whatever it could not
// remove is tried again by the worker. The end of ctx ends the retries; the first
// attempt is always made.
func (s *Set) Down(ctx context.Context) error {
	s.mu.Lock()
	s.state.turn++ // ends an Up that waits for its permit
	s.end(EventDown)
	s.stir()
	s.mu.Unlock()
	if err := s.take(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	defer s.release()
	s.mu.Lock()
	over := s.state.serving // an Up was called since
	s.mu.Unlock()
	if over {
		return &OpError{Op: "remove", Link: s.link, Err: ErrSuperseded}
	}
	return s.clear(ctx)
}

const (
	clearTries = 5
	clearPause = 20 * time.Millisecond // doubled each time: 0.3 s together
	clearAgain = time.Second
)

// clear takes off what is ours and sees that it is gone. The caller has the
// token, and the set does not serve. The sockets of the addresses go first, see sever.
func (s *Set) clear(ctx context.Context) error {
	s.mu.Lock()
	on, want, why, epoch := s.state.on, s.state.want, s.state.ended, s.state.epoch
	placed := union(s.state.placed, s.state.strays)
	s.mu.Unlock()

	// The gate closes before the addresses go. By plan, when this node is the master
	// still, after the sessions have ended: through a closed one nobody would be told.
	if why != EventDown {
		s.shutGate()
	}
	more := s.sever(on.Index, placed, severBudget(why))
	s.shutGate()
	changes := removes(on, placed)
	var foreign []netip.Prefix
	var err error
	for try := range clearTries {
		if len(changes) > 0 {
			err = s.k.Apply(changes)
		}
		var listed error
		changes, foreign, listed = s.remaining(on, want, placed)
		if listed == nil && len(changes) == 0 {
			err = nil
			break
		}
		err = errors.Join(err, listed)
		if try == clearTries-1 || !pause(ctx, clearPause<<try) {
			break
		}
	}
	if err == nil && len(changes) > 0 {
		err = ErrPresent
	}
	s.cleared(err)
	// Again, for what came while the addresses were still on.
	if more || s.sever(on.Index, placed, severHurried) {
		s.linger(placed)
	}
	if len(foreign) > 0 {
		s.tell(Event{Kind: EventForeign, Addresses: foreign, Text: fmt.Sprintf(
			"%v is on %s though this node is not to hold it, and carpd did not put it there: remove it from the system's network configuration", foreign[0], s.link)})
	}
	if err != nil {
		e := s.removeError(changes, err)
		s.tell(Event{Kind: EventFailed, Epoch: epoch, Addresses: placed, Err: e, Text: "addresses could not be taken off"})
		return e
	}
	if len(placed) > 0 {
		s.tell(Event{Kind: why, Epoch: epoch, Addresses: placed, Text: offTexts[why]})
	}
	return nil
}

var offTexts = map[EventKind]string{
	EventDown:      "addresses are off",
	EventLapsed:    "addresses were taken off: the permit lapsed, the loop that decides mastership stood still",
	EventWithdrawn: "addresses were taken off: the permit was withdrawn",
	EventFailed:    "addresses were taken off again: they could not be put on",
}

func (s *Set) removeError(changes []Change, err error) error {
	if op, ok := errors.AsType[*OpError](err); ok {
		return op
	}
	e := &OpError{Op: "remove", Link: s.link, Err: err, Hint: "see who puts it there: ip monitor address"}
	if len(changes) > 0 {
		e.Addr, e.More = changes[0].Prefix, len(changes)-1
	}
	return e
}

// cleared records the outcome of clear.
func (s *Set) cleared(err error) {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.state.clearAt = now.Add(clearAgain)
		return
	}
	s.confess(s.state.owed)
	s.state.owed = nil
	s.state.placed, s.state.strays, s.state.present = nil, nil, nil
	s.state.lowerAt = now.Add(lowerAfter)
}

// remaining lists what is still to be done: addresses to be removed on the
// interface where they were put (it may have been renamed), on the one that has the
// name and on our device. If one stays on that, it goes down, and so answers for
// none; otherwise this is left to the worker, because it takes time.
func (s *Set) remaining(on Link, want, placed []netip.Prefix) (changes []Change, foreign []netip.Prefix, err error) {
	links := make([]Link, 0, 3)
	if on.Index != 0 {
		on.Up = false // unless it is found to be
		links = append(links, on)
	}
	for _, name := range []string{s.link, s.device.Name} {
		if name == "" {
			continue
		}
		switch l, err := s.k.Link(name); {
		case err == nil && l.Index != on.Index:
			links = append(links, l)
		case err == nil:
			links[0] = l
		case !errors.Is(err, ErrNoLink):
			return nil, nil, err
		}
	}
	for _, l := range links {
		have, err := s.k.Addrs(l.Index)
		if err != nil {
			return changes, foreign, err
		}
		ours, theirs := left(have, want, placed)
		changes = append(changes, removes(l, ours)...)
		if l.Up && len(ours) > 0 {
			changes = append(changes, s.switchOff(l)...)
		}
		foreign = append(foreign, theirs...)
	}
	return changes, foreign, nil
}
