package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
)

const (
	// bandWait is how long an elected instance waits for the others of its group. Its
	// adverts go on meanwhile, and it has no address.
	bandWait = 15 * time.Second
	// bandLeave is how long an instance whose addresses are off waits for those of the
	// others to be, before the resources are demoted all the same.
	bandLeave = 5 * time.Second
	// bandFailed is how long the others stay demoted after a member that could not serve.
	bandFailed = time.Minute
)

// member is an instance as its group sees it.
type member interface {
	label() string
	resign(carp.Reason)
	demoteBy(owner string, amount int)
	mayAct() error
}

// band moves the instances of a group as one, with the resources of the group: no
// address comes up before all of them are MASTER here and the resources promoted, and no
// resource is demoted before all their addresses are off. When one leaves the role the
// others do, and while one cannot have it the others are demoted.
type band struct {
	name   string
	runner *hooks.Runner // of the group's resources, maybe none
	event  func(carp.Transition) hooks.Event

	mu      sync.Mutex
	members []*standing
	moved   bool               // the resources are promoted, for this mastership
	failed  error              // why they are not, until all have left
	moving  hooks.Action       // what is under way; "": nothing
	cancel  context.CancelFunc // ends it
	tried   bool               // a demotion has ended since the last promotion, or since somebody asked again
	stuck   error              // how it ended
	news    chan struct{}      // closed and replaced at each change
	jobs    []func()           // what is to be told to members, by run
	work    chan struct{}      // capacity 1: there are jobs
}

// standing is where a member is. Its fields belong to the band.
type standing struct {
	member
	state   carp.State
	ready   bool // elected, and its own gates are passed
	holding bool // its addresses may be on
	epoch   carp.Epoch
	failed  bool        // it could not serve, and the others are demoted for it
	mend    *time.Timer // ends that
	leaving bool        // it was told to leave the role
}

func newBand(name string, runner *hooks.Runner, event func(carp.Transition) hooks.Event) *band {
	return &band{name: name, runner: runner, event: event, news: make(chan struct{}), work: make(chan struct{}, 1)}
}

// join adds a member, before anything runs. It is in INIT, so the others wait for it.
func (b *band) join(m member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members = append(b.members, &standing{member: m})
	for _, s := range b.members {
		b.hinder(s, "is INIT", 240)
	}
}

// run tells members what follows from the others, until ctx ends.
func (b *band) run(ctx context.Context) {
	for {
		b.mu.Lock()
		jobs := b.jobs
		b.jobs = nil
		b.mu.Unlock()
		for _, job := range jobs {
			job()
		}
		select {
		case <-b.work:
		case <-ctx.Done():
			return
		}
	}
}

// tell plans a job. The caller has mu.
func (b *band) tell(job func()) {
	b.jobs = append(b.jobs, job)
	select {
	case b.work <- struct{}{}:
	default:
	}
}

// hinder demotes all others because a member cannot have the role; 0 takes it back. The
// caller has mu.
func (b *band) hinder(of *standing, because string, amount int) {
	owner := fmt.Sprintf("group %s: %s %s", b.name, of.label(), because)
	for _, s := range b.members {
		if s != of {
			b.tell(func() { s.demoteBy(owner, amount) })
		}
	}
}

func (b *band) standing(m member) *standing {
	n := slices.IndexFunc(b.members, func(s *standing) bool { return s.member == m })
	return b.members[n]
}

// changed wakes who waits. The caller has mu.
func (b *band) changed() {
	close(b.news)
	b.news = make(chan struct{})
}

// observe is told of each transition of a member, and waits for nothing.
func (b *band) observe(m member, t carp.Transition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.standing(m)
	s.state, s.leaving = t.To, false
	switch {
	case t.From == carp.Init && t.To != carp.Init:
		b.hinder(s, isInit, 0)
	case t.To == carp.Init && t.Reason != carp.ReasonStopping:
		b.hinder(s, isInit, 240)
	case t.To == carp.Master:
		b.recovered(s)
	case t.Reason == carp.ReasonFailed:
		if s.mend != nil {
			s.mend.Stop() // it is of an earlier failure
		}
		s.failed = true
		b.hinder(s, hasFailed, 240)
		s.mend = time.AfterFunc(bandFailed, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.recovered(s)
		})
	}
	if t.From == carp.Master && t.To != carp.Master {
		b.leaves(s, t.Reason)
	}
}

// recovered takes back that the others are demoted for a member. The caller has mu.
func (b *band) recovered(s *standing) {
	if s.failed {
		s.failed = false
		b.hinder(s, hasFailed, 0)
	}
}

// Why a member hinders the others.
const (
	isInit    = "is INIT"
	hasFailed = "could not serve"
)

// leaves has the others leave the role with a member. The caller has mu.
func (b *band) leaves(s *standing, because carp.Reason) {
	s.ready, b.moved = false, false // the next mastership looks at the resources anew
	if b.moving == hooks.Promotion {
		b.cancel() // it is not for all any more
	}
	why := carp.ReasonGroup
	if because == carp.ReasonHandover {
		why = because // they stay away until resume, as the first one does
	}
	for _, o := range b.members {
		if o != s && o.state == carp.Master && !o.leaving {
			o.leaving = true
			b.tell(func() { o.resign(why) })
		}
	}
	b.changed()
}

// whole reports whether all members are ready. The caller has mu.
func (b *band) whole() bool {
	return !slices.ContainsFunc(b.members, func(s *standing) bool { return !s.ready })
}

// missing names the members that are not. The caller has mu.
func (b *band) missing() string {
	return b.without(func(s *standing) bool { return s.ready })
}

// absent names the members that are not elected: one that is and still busy with gates of
// its own is waited for. The caller has mu.
func (b *band) absent() string {
	return b.without(func(s *standing) bool { return s.ready || s.state == carp.Master })
}

func (b *band) without(is func(*standing) bool) string {
	var names []string
	for _, s := range b.members {
		if !is(s) {
			names = append(names, fmt.Sprintf("%s is %v", s.label(), s.state))
		}
	}
	return strings.Join(names, ", ")
}

// up returns when all members are ready and the resources of the group are promoted: the
// addresses of this one may come up.
func (b *band) up(ctx context.Context, m member, t carp.Transition) error {
	late := time.NewTimer(bandWait)
	defer late.Stop()
	over := false
	b.mu.Lock()
	s := b.standing(m)
	s.ready, s.epoch = true, t.Epoch
	b.changed()
	for {
		switch {
		case b.failed != nil:
			defer b.mu.Unlock()
			return fmt.Errorf("group %s: %w", b.name, b.failed)
		case b.moved && b.whole() && b.moving == "":
			defer b.mu.Unlock()
			s.holding = true
			return nil
		case b.whole() && b.moving == "":
			b.promote(t)
		case over && b.absent() != "":
			defer b.mu.Unlock()
			return fmt.Errorf("group %s is not whole here within %v: %s", b.name, bandWait, b.absent())
		}
		news := b.news
		b.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			over = true
		}
		b.mu.Lock()
	}
}

// off tells that the addresses of a member are off, where it was elected again before
// anybody called down.
func (b *band) off(m member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.standing(m).holding = false
	b.changed()
}

// promote begins to promote the resources. The caller has mu.
func (b *band) promote(t carp.Transition) {
	for _, s := range b.members {
		t.Epoch = max(t.Epoch, s.epoch)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.moving, b.cancel, b.tried, b.stuck = hooks.Promotion, cancel, false, nil
	go func() {
		err := b.runner.Run(ctx, hooks.BeforeUp, b.event(t))
		b.mu.Lock()
		defer b.mu.Unlock()
		b.moving, b.moved, b.failed = "", err == nil, err
		if ctx.Err() != nil { // somebody left: who is elected again meanwhile begins anew
			b.moved, b.failed = false, nil
		}
		cancel()
		b.forgive()
		b.changed()
	}()
}

// forgive forgets why a promotion failed when all have left: the next mastership tries
// again. The caller has mu.
func (b *band) forgive() {
	if !slices.ContainsFunc(b.members, func(s *standing) bool { return s.ready }) {
		b.failed = nil
	}
}

// again has the resources promoted once more before the next up returns: another master
// has served beside this one.
func (b *band) again() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.moving == "" {
		b.moved = false
	}
}

// down returns when the resources of the group are demoted, which waits until the
// addresses of all members are off, as those of this one are.
func (b *band) down(ctx context.Context, m member, t carp.Transition) error {
	late := time.NewTimer(bandLeave)
	defer late.Stop()
	over := false
	b.mu.Lock()
	s := b.standing(m)
	if b.moving == "" {
		b.tried, b.stuck = false, nil // what could not be demoted is tried again
	}
	if s.ready || s.holding {
		b.leaves(s, t.Reason)
	}
	s.holding = false
	for {
		off := over || !slices.ContainsFunc(b.members, func(s *standing) bool { return s.holding })
		switch {
		case b.moving == "" && !b.owes():
			defer b.mu.Unlock()
			b.forgive()
			return b.stuck
		case b.moving == "" && off:
			b.demote(t)
		}
		news := b.news
		b.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			over = true
		}
		b.mu.Lock()
	}
}

// owes reports whether there is something to be demoted that was not tried yet. A journal
// that cannot be written goes on to say that it is held. The caller has mu.
func (b *band) owes() bool { return !b.tried && b.runner.Holds() }

// demote begins to demote the resources. The caller has mu.
func (b *band) demote(t carp.Transition) {
	ctx, cancel := context.WithCancel(context.Background())
	b.moving, b.cancel, b.moved = hooks.Demotion, cancel, false
	go func() {
		err := b.runner.Demote(ctx, b.event(t))
		b.mu.Lock()
		defer b.mu.Unlock()
		cancel()
		b.moving, b.tried, b.stuck = "", true, err
		b.changed()
	}()
}

// mayAct returns an error unless all members have a live permit.
func (b *band) mayAct() error {
	b.mu.Lock()
	members := slices.Clone(b.members)
	b.mu.Unlock()
	var faults []error
	for _, s := range members {
		if err := s.mayAct(); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.label(), err))
		}
	}
	return errors.Join(faults...)
}
