package hooks

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Verdict is what Watch has come to about a resource or monitor.
type Verdict struct {
	Step   Step
	Health Health // after Rise and Fall
	Weight int    // by how much a degraded one demotes, 1 to 254; 0 if it is not degraded
	Apart  bool   // the resource is in another role than it should be, for longer than its grace
	Text   string // what was seen, or why nothing could be
	Status StepStatus
}

// Waker is a Monitor that can tell when it is worth a look before the next is due: a
// process has ended, an interface has gone down.
type Waker interface {
	Monitor
	// Wake calls look, which never waits, each time that a look is worth it, until ctx
	// ends or nothing can be told any more. It runs in one goroutine of Watch, beside
	// Monitor.
	Wake(ctx context.Context, look func())
}

// Between a look and one that a Waker asks for is at least earlyPause, and as many times
// as long as the look took: however much happens, watching costs no more than a tenth.
const (
	earlyPause = 50 * time.Millisecond
	earlyShare = 10
)

// Watch looks at all resources and monitors, at once and then each in its interval, until
// ctx ends. A resource is not looked at while it is promoted or demoted, and neither
// waits for a look: it is cancelled and does not count.
func (r *Runner) Watch(ctx context.Context) {
	var all sync.WaitGroup
	for i := range r.slots {
		if s := &r.slots[i]; s.Resource != nil || s.Monitor != nil {
			all.Go(func() { r.watch(ctx, i) })
		}
	}
	all.Wait()
}

func (r *Runner) watch(ctx context.Context, i int) {
	s := &r.slots[i]
	each := time.NewTicker(s.Watch.Interval)
	defer each.Stop()
	early, woken := false, make(chan struct{}, 1)
	defer r.waken(ctx, i, woken)()
	grade := newGrading(s.Watch.Rise, s.Watch.Fall)
	var last Verdict
	for ctx.Err() == nil {
		looked := time.Now()
		if seen, ok := r.glance(ctx, i); ok {
			v := r.judged(i, grade.next(seen, early))
			if last.Step.Name == "" || v.Health != last.Health || v.Weight != last.Weight || v.Apart != last.Apart {
				last = v
				r.tell(v)
			}
		}
		took := time.Since(looked)
		select {
		case <-ctx.Done():
			return
		case <-each.C:
			early = false
		case <-woken:
			early = rest(ctx, each.C, max(earlyPause, earlyShare*took)-time.Since(looked))
		}
	}
}

// waken has a Waker fill woken. The function that it returns waits for its end, unless
// it ignores that of ctx.
func (r *Runner) waken(ctx context.Context, i int, woken chan<- struct{}) (wait func()) {
	w, ok := r.slots[i].looksAt().(Waker)
	if !ok {
		return func() {}
	}
	look := func() {
		select {
		case woken <- struct{}{}:
		default: // it is about to look
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := protect(r.lookContext(ctx, i), func(ctx context.Context) error {
			w.Wake(ctx, look)
			return nil
		})
		if err != nil {
			r.o.Log.Error("a monitor looks in its interval only", "hook", r.slots[i].Name, "err", err)
		}
	}()
	return func() {
		late := time.NewTimer(CancelGrace)
		defer late.Stop()
		select {
		case <-ended:
		case <-late.C:
		}
	}
}

// rest waits until an early look may be made, and reports false if one in turn is due
// before.
func rest(ctx context.Context, turn <-chan time.Time, d time.Duration) (early bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-turn:
		return false
	}
	return true
}

func (r *Runner) tell(v Verdict) {
	if r.o.Judge != nil {
		r.o.Judge(v)
	}
}

// words is what was seen, for an operator.
func (st *StepStatus) words() string {
	switch {
	case st.Blind != "":
		return "it cannot be looked at: " + st.Blind
	case !st.Apart.IsZero():
		return fmt.Sprintf("it is %v and should be %v: %s", st.Role, st.Wished, st.Text)
	}
	return st.Text
}

// judged notes the grade and makes the verdict.
func (r *Runner) judged(i int, g severity) Verdict {
	s := &r.slots[i].Step
	v := Verdict{Step: *s, Health: g.health()}
	if v.Health == Degraded {
		v.Weight = int(g)
	}
	r.change(i, func(st *StepStatus) {
		st.Graded, st.Wished = v.Health, r.slots[i].wish()
		v.Status = *st
	})
	v.Text = v.Status.words()
	v.Apart = !v.Status.Apart.IsZero() && time.Since(v.Status.Apart) >= s.Watch.Grace
	return v
}

// glance is a look that is not made while the resource is promoted or demoted, and that
// ends when it is to be: then ok is false.
func (r *Runner) glance(ctx context.Context, i int) (seen severity, ok bool) {
	s := &r.slots[i]
	look, release, ok := s.spare(ctx)
	if !ok {
		return 0, false
	}
	defer release()
	report, err := r.look(look, i)
	if s.Resource != nil {
		_ = r.o.Journal.pay(ctx, s.Name) // or at the next look; that it failed has been said
	}
	return severityOf(report, err, s.Watch.Weight), look.Err() == nil
}

// looksAt is what is asked, or nil.
func (s *slot) looksAt() Monitor {
	if s.Resource != nil {
		return s.Resource
	}
	return s.Monitor
}

func (r *Runner) lookContext(ctx context.Context, i int) context.Context {
	s := &r.slots[i]
	return withCgroup(withLogger(ctx, r.o.Log.With("hook", s.Name, "kind", s.Kind, "phase", PlaceMonitor)), r.o.Cgroup)
}

// look asks a resource or monitor and notes what it says. The caller holds busy. What
// is cancelled says nothing.
func (r *Runner) look(ctx context.Context, i int) (report Report, err error) {
	s := &r.slots[i]
	seen := make(chan Report, 1)
	m := s.looksAt()
	err = s.call(r.lookContext(ctx, i), s.Watch.Timeout, func(ctx context.Context) error {
		report, err := m.Monitor(ctx)
		seen <- report
		return err
	})
	select {
	case report = <-seen:
	default: // it panicked, or was left behind
	}
	if ctx.Err() != nil {
		return report, err // it was cut short, and says nothing
	}
	r.change(i, func(st *StepStatus) {
		st.Seen, st.Blind = time.Now(), ""
		if err != nil {
			st.Blind = err.Error()
			return
		}
		st.Report = report
		switch {
		case s.Resource == nil || report.Role == s.wish():
			st.Apart = time.Time{}
		case st.Apart.IsZero():
			st.Apart = st.Seen
		}
	})
	return report, err
}

// change changes what is shown of a step.
func (r *Runner) change(i int, how func(*StepStatus)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	how(&r.status[i])
}
