package vip

import (
	"context"
	"errors"
	"time"
)

// fits reports whether link is our device on base, apart from being up. It is pure.
func fits(link, base Link, d Device) bool {
	return link.Parent == base.Index && link.MAC == d.MAC && link.Quiet && base.Quiet
}

// surveyDevice looks for our device and its addresses. The zero Link says that it
// is not there as it must be: no error, prepare sees to that.
func (s *Set) surveyDevice(base Link) (Link, []Addr, error) {
	link, err := s.k.Link(s.device.Name)
	if errors.Is(err, ErrNoLink) || err == nil && !fits(link, base, s.device) {
		return Link{}, nil, nil
	}
	if err != nil {
		return Link{}, nil, err
	}
	have, err := s.k.Addrs(link.Index)
	return link, have, err
}

// prepare surveys, and makes the device first if it is not there as it must be. To
// be there is no matter of the permit: a device that is made is down, and has no
// addresses. The caller has the token.
func (s *Set) prepare() (survey, error) {
	v, err := s.survey()
	if err != nil || v.link.Index != 0 {
		return v, err
	}
	if err := s.makeDevice(v.base); err != nil {
		return v, err
	}
	if v, err = s.survey(); err == nil && v.link.Index == 0 {
		err = &OpError{Op: "make", Link: s.device.Name, Err: errors.New("it was changed at once by somebody else"), Hint: "see who does it by ip monitor link"}
	}
	return v, err
}

func (s *Set) makeDevice(base Link) error {
	d := s.device
	d.Parent = base
	made, err := s.k.EnsureDevice(d)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.state.made = made
	s.mu.Unlock()
	return nil
}

// away reports whether the device answers for nothing, though it should.
func (s *Set) away(v survey) bool { return s.device.Name != "" && (v.link.Index == 0 || !v.link.Up) }

// placeOn records where the addresses are about to go, after the device was made
// anew.
func (s *Set) placeOn(v survey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.serving {
		s.state.on, s.state.placed = v.link, v.placed
	}
}

const (
	// lowerAfter is how long a device stays up without addresses. Those of the other
	// sets that end at the same time go first: the kernel does one thing at a time.
	lowerAfter = 200 * time.Millisecond
	// lowerAgain is the time between two attempts to set a device down while others go
	// down. Of 255 that ended at once the last is down after seconds.
	lowerAgain = 20 * time.Millisecond
)

// lower sets our device down. Nothing is left on it, so there is no hurry. The caller
// has the token.
func (s *Set) lower() {
	l, err := s.k.Link(s.device.Name)
	if off := s.switchOff(l); err == nil && l.Up && len(off) > 0 {
		err = s.k.Apply(off)
	}
	if errors.Is(err, ErrNoLink) {
		err = nil
	}
	now := s.clock()
	s.mu.Lock()
	s.state.raised = err != nil
	s.state.lowerAt = now.Add(clearAgain)
	if errors.Is(err, ErrBusy) {
		s.state.lowerAt = now.Add(lowerAgain)
	}
	s.mu.Unlock()
	if err != nil && !errors.Is(err, ErrBusy) {
		s.tell(Event{Kind: EventFailed, Err: err, Text: "the virtual interface could not be set down; nothing is left on it"})
	}
}

// switchOff returns the change that sets l down if it is our device.
func (s *Set) switchOff(l Link) []Change {
	if s.device.Name == "" || l.Name != s.device.Name || l.Parent == 0 {
		return nil
	}
	return []Change{{Op: SetDown, Index: l.Index, Link: l.Name}}
}

// beginDevice makes the device, down, so that it can be seen, and so that what
// stands in its way is told at once. One that an earlier run left is replaced: its
// addresses are in nobody's care.
func (s *Set) beginDevice(ctx context.Context) {
	if s.device.Name == "" || s.take(ctx) != nil {
		return
	}
	defer s.release()
	s.mu.Lock()
	busy := s.state.serving || len(s.state.placed) > 0
	s.mu.Unlock()
	if busy {
		return // Up was faster
	}
	base, err := s.k.Link(s.link)
	if errors.Is(err, ErrNoLink) {
		return // Up says so, if it is still missing then
	}
	if err == nil {
		err = s.renewDevice(base)
	}
	if err != nil {
		s.tell(Event{Kind: EventFailed, Err: err, Text: "the virtual interface could not be made: this node cannot serve until that is mended"})
	}
}

func (s *Set) renewDevice(base Link) error {
	left, err := s.k.Link(s.device.Name)
	if err == nil && left.Parent == base.Index && left.MAC == s.device.MAC {
		err = s.k.RemoveDevice(left)
	}
	if err != nil && !errors.Is(err, ErrNoLink) {
		return err
	}
	return s.makeDevice(base)
}

// endDevice deletes the device when Run ends.
func (s *Set) endDevice() error {
	if s.device.Name == "" {
		return nil
	}
	_ = s.take(context.Background()) // which does not end
	defer s.release()
	s.mu.Lock()
	made := s.state.made
	s.mu.Unlock()
	if made.Index == 0 {
		return nil
	}
	// Made anew by another Set or process it would have another index.
	err := s.k.RemoveDevice(made)
	if err != nil {
		s.tell(Event{Kind: EventFailed, Err: err, Text: "the virtual interface could not be deleted: carpd cleanup does that when no carpd runs"})
	}
	return err
}
