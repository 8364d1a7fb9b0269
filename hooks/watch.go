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
	var told *Verdict
	for {
		if report, err, seen := r.glance(ctx, i); seen {
			health := grade.next(report.Health, err)
			st := r.judged(i, health)
			v := Verdict{Step: s.Step, Health: health, Text: st.words(), Status: st}
			v.Apart = !st.Apart.IsZero() && time.Since(st.Apart) >= s.Watch.Grace
			if told == nil || v.Health != told.Health || v.Apart != told.Apart {
				told = &v
				r.tell(v)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-each.C:
		}
	}
}

// glance is a look that is not made while the resource is promoted or demoted, and that
// ends when it is to be: then seen is false.
func (r *Runner) glance(ctx context.Context, i int) (report Report, err error, seen bool) {
	look, release, ok := r.slots[i].spare(ctx)
	if !ok {
		return report, nil, false
	}
	defer release()
	report, err = r.look(look, i)
	return report, err, look.Err() == nil
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

// grading makes a grade of looks: it follows them when rise better ones or fall worse ones
// came in a row, as far as all of these went. The zero grade is healthy.
type grading struct {
	rise, fall int
	grade      Health
	streak     int
	toward     Health // of the streak, what is nearest to grade
}

func (g *grading) next(seen Health, blind error) Health {
	if blind != nil {
		seen = Unfit
	}
	if seen == g.grade {
		g.streak = 0
		return g.grade
	}
	enough, nearest := g.fall, min(g.toward, seen)
	if seen < g.grade {
		enough, nearest = g.rise, max(g.toward, seen)
	}
	if g.streak == 0 || (seen > g.grade) != (g.toward > g.grade) {
		g.streak, nearest = 0, seen
	}
	g.toward = nearest
	g.streak++
	if g.streak >= enough {
		g.grade, g.streak = nearest, 0
	}
	return g.grade
}
