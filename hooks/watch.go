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
	Apart  bool   // the resource is in another role than it should be, for longer than its grace
	Text   string // what was seen, or why nothing could be
	Status StepStatus
}

// Watch looks at all resources and monitors, each in its interval, until ctx ends. A
// resource is not looked at while it is promoted or demoted.
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
	grade := grading{rise: s.Watch.Rise, fall: s.Watch.Fall}
	var told struct {
		health Health
		apart  bool
	}
	for {
		select {
		case s.busy <- struct{}{}:
			report, err := r.look(ctx, i)
			<-s.busy
			if ctx.Err() != nil {
				return
			}
			health := grade.next(report.Health, err)
			st := r.judged(i, health)
			apart := !st.Apart.IsZero() && time.Since(st.Apart) >= s.Watch.Grace
			if health != told.health || apart != told.apart {
				told.health, told.apart = health, apart
				r.tell(Verdict{Step: s.Step, Health: health, Apart: apart, Text: st.words(), Status: st})
			}
		default: // it is being promoted or demoted
		}
		select {
		case <-ctx.Done():
			return
		case <-each.C:
		}
	}
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

// judged notes the grade and returns the status.
func (r *Runner) judged(i int, h Health) (st StepStatus) {
	r.change(i, func(s *StepStatus) {
		s.Graded = h
		st = *s
	})
	return st
}

// look asks a resource or monitor and notes what it says. The caller holds busy.
func (r *Runner) look(ctx context.Context, i int) (report Report, err error) {
	s := &r.slots[i]
	ctx = withCgroup(withLogger(ctx, r.o.Log.With("hook", s.Name, "kind", s.Kind, "phase", PlaceMonitor)), r.o.Cgroup)
	seen := make(chan Report, 1)
	m := s.Monitor
	if s.Resource != nil {
		m = s.Resource
	}
	err = s.call(ctx, s.Watch.Timeout, func(ctx context.Context) error {
		report, err := m.Monitor(ctx)
		seen <- report
		return err
	})
	select {
	case report = <-seen:
	default: // it panicked, or was left behind
	}
	r.change(i, func(st *StepStatus) {
		st.Seen, st.Blind = time.Now(), ""
		if err != nil {
			st.Blind = err.Error()
			return
		}
		st.Report = report
		switch {
		case s.Resource == nil || report.Role == st.Wished:
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

// grading makes a grade of looks: it follows them when rise good ones or fall bad ones
// came in a row. The zero grade is healthy.
type grading struct {
	rise, fall int
	grade      Health
	streak     int
	toward     Health
}

func (g *grading) next(seen Health, blind error) Health {
	if blind != nil {
		seen = Unfit
	}
	if seen == g.grade {
		g.streak = 0
		return g.grade
	}
	if (seen > g.grade) != (g.toward > g.grade) {
		g.streak = 0
	}
	g.toward = seen
	g.streak++
	enough := g.fall
	if seen < g.grade {
		enough = g.rise
	}
	if g.streak >= enough {
		g.grade, g.streak = seen, 0
	}
	return g.grade
}
