package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
)

// fitness is what the looks at the resources and monitors of an instance, and of its
// group, have come to. The zero value has seen nothing, and nobody can wait for it.
type fitness struct {
	news chan struct{} // capacity 1: there is a verdict, or something is not watched any more

	mu     sync.Mutex // guards what follows; held while the engine is told, which keeps the order
	grades map[string]hooks.Verdict
	since  time.Time // since when it is unfit; zero: it is not
}

// gradeOf returns the grade that follows from all, and what is not healthy, in a stable order.
// What is only to raise an alarm does not count.
func gradeOf(grades map[string]hooks.Verdict) (grade hooks.Health, why []string) {
	for _, name := range slices.Sorted(maps.Keys(grades)) {
		h := effect(grades[name]).health
		if grade = max(grade, h); h != hooks.Healthy {
			why = append(why, fmt.Sprintf("%s is %v: %s", name, grades[name].Health, grades[name].Text))
		}
	}
	return grade, why
}

// consequence is what a verdict does to the node: it is unfit, or it is degraded and
// demoted by amount.
type consequence struct {
	health hooks.Health
	amount int
}

// effect is what `if_it_fails` makes of a verdict.
func effect(v hooks.Verdict) consequence {
	switch {
	case v.Health == hooks.Healthy || v.Step.OnFailure == hooks.Alarm:
		return consequence{}
	case v.Health == hooks.Degraded:
		return consequence{hooks.Degraded, v.Weight}
	case v.Step.OnFailure == hooks.Demote:
		return consequence{hooks.Degraded, v.Step.Watch.Weight}
	}
	return consequence{health: hooks.Unfit} // the engine demotes for that
}

// judged carries out what follows from a look at something of the instance's.
func (i *instance) judged(v hooks.Verdict) { i.judge(v.Step.Name, v) }

// judge carries out what follows from a look, at what is known by this name.
func (i *instance) judge(name string, v hooks.Verdict) {
	f := &i.fitness
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(i.watched(true), name) {
		return // a reload has just removed it
	}
	if v.Step.Resource != nil {
		i.d.book.set(v.Apart, i.name, "role-mismatch-"+name, fmt.Sprintf("%s: %s is not in the role of this node: %s", i.name, name, v.Text))
	}
	i.d.book.set(v.Health != hooks.Healthy, i.name, "health-"+name, fmt.Sprintf("%s: %s is %v: %s", i.name, name, v.Health, v.Text))
	if f.grades == nil {
		f.grades = map[string]hooks.Verdict{}
	}
	f.grades[name] = v
	i.speaker.Demote("health "+name, effect(v).amount)
	i.tellFitness()
	f.changed()
}

// changed wakes who waits for looks.
func (f *fitness) changed() {
	select {
	case f.news <- struct{}{}:
	default: // it is told already
	}
}

// tellFitness tells the engine what follows from all grades. The caller holds mu.
func (i *instance) tellFitness() {
	f := &i.fitness
	grade, _ := gradeOf(f.grades)
	switch unfit := grade == hooks.Unfit; {
	case !unfit:
		f.since = time.Time{}
	case f.since.IsZero():
		f.since = time.Now()
	}
	i.speaker.Unfit(!f.since.IsZero())
}

// unwatch forgets what is not watched any more, after a reload.
func (i *instance) unwatch() {
	f := &i.fitness
	f.mu.Lock()
	defer f.mu.Unlock()
	names := i.watched(true)
	for name := range f.grades {
		if slices.Contains(names, name) {
			continue
		}
		delete(f.grades, name)
		i.speaker.Demote("health "+name, 0)
		i.d.book.clear(i.name, "health-"+name)
		i.d.book.clear(i.name, "role-mismatch-"+name)
	}
	i.tellFitness()
	f.changed() // what was waited for may be among them
}

// watched lists what the fitness of the instance follows from: monitors, and resources if
// these are wanted, too. It is what the runner of now looks at: a reload changes that
// before the plan.
func (i *instance) watched(resources bool) (names []string) {
	is := func(s hooks.StepStatus) bool {
		return s.Place == hooks.PlaceMonitor || resources && s.Place == hooks.PlaceResource
	}
	for _, s := range i.runner.Load().Status() {
		if is(s) {
			names = append(names, s.Name)
		}
	}
	if i.group != nil {
		for _, s := range i.group.runner.Status() {
			if is(s) {
				names = append(names, i.group.stepName(s.Name))
			}
		}
	}
	return names
}

// stepName is how the members know a step of their group.
func (g *group) stepName(name string) string { return g.name + "/" + name }

// awaitLooks returns when each monitor has been looked at once, or ctx ends. A look
// takes its timeout at most: one that hangs is a verdict, too. Resources were looked at
// when they were settled.
func (i *instance) awaitLooks(ctx context.Context) {
	for i.unseen() {
		select {
		case <-i.fitness.news:
		case <-ctx.Done():
			return
		}
	}
}

// unseen reports whether there is a monitor that nothing is known of.
func (i *instance) unseen() bool {
	f := &i.fitness
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(i.watched(false), func(name string) bool {
		_, known := f.grades[name]
		return !known
	})
}

// health says how fit the node is for the instance, and why it is not. known is false if
// nothing says so.
func (i *instance) health() (grade hooks.Health, why []string, known bool) {
	f := &i.fitness
	f.mu.Lock()
	defer f.mu.Unlock()
	grade, why = gradeOf(f.grades)
	return grade, why, len(f.grades) > 0
}

// noFitAfter is how many of its master-down times an unfit master stays before that is an
// alarm: until then another may take the role.
const noFitAfter = 2

// lookForFit raises an alarm while an unfit node has the role, and ends it.
func (i *instance) lookForFit(st carp.Status, now carp.Instant) {
	i.fitness.mu.Lock()
	since := i.fitness.since
	i.fitness.mu.Unlock()
	stands := !since.IsZero() && st.State == carp.Master &&
		min(time.Since(since), now.Sub(st.Since)) > noFitAfter*st.MasterDown
	text := ""
	if stands {
		_, why, _ := i.health()
		text = fmt.Sprintf("%s: this node has the role though it is not fit for it: %s. %s", i.name, strings.Join(why, "; "), noFitText(i.plan.Load(), st))
	}
	i.d.book.set(stands, i.name, "no-fit-node", text)
}

// noFitText says why no other node has the role.
func noFitText(p *plan, st carp.Status) string {
	if p.carp.Replay != carp.ReplaySealed {
		return "Another one takes it only with `preempt: true` there: nodes tell each other how fit they are with `replay: sealed`."
	}
	living := 0
	for _, m := range st.Members {
		switch {
		case m.Gone:
		case m.State == carp.Backup && m.Fitness != carp.Unfit && m.AdvSkew < carp.MaxDemotedSkew:
			return fmt.Sprintf("Node %d says that it is fit, and has not taken the role that was let go for it: look there.", m.Node)
		default:
			living++
		}
	}
	if living == 0 {
		return "No other node is heard."
	}
	return "No other node is fit: repair one, and the role goes there by itself."
}
