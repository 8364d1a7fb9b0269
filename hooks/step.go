package hooks

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Step is one hook, resource or monitor at its place in the plan.
type Step struct {
	Name      string        // for logs, status and journal; required, unique in a plan
	Kind      string        // as registered
	Phase     Phase         // when a Hook runs
	Timeout   time.Duration // of one call of a Hook, of a promotion; 0 means DefaultTimeout
	OnFailure Policy        // the zero value is the default of the place

	// One of these, of this step alone: not shared with another one.
	Hook     Hook
	Resource Resource
	Monitor  Monitor

	Release time.Duration // of a demotion; 0 means Timeout
	OnStuck Policy        // what follows when a demotion fails: Alarm (default), Reboot, StopWatchdog
	Watch   Watch         // how a Resource or Monitor is looked at
}

// Watch says how something is looked at all the time. The zero value is the defaults.
type Watch struct {
	Interval time.Duration // between two looks; 0 means DefaultInterval
	Timeout  time.Duration // of a look; 0 means DefaultTimeout, and never more than ten intervals
	Rise     int           // good looks in a row until it is better; 0 means 1
	Fall     int           // bad looks in a row until it is worse; 0 means 1
	Weight   int           // by how much a degraded one demotes, 1 to 254; 0 means DefaultWeight
	Grace    time.Duration // how long a resource may be in another role than its node; 0 means DefaultApart
}

// Defaults of Watch.
const (
	DefaultInterval = 5 * time.Second
	DefaultWeight   = 50
	DefaultApart    = 10 * time.Second
)

// The names of places that are no phase.
const (
	PlaceResource = "resource"
	PlaceMonitor  = "monitor"
)

// Place is when the step runs: a phase, "resource" or "monitor".
func (s Step) Place() string {
	switch {
	case s.Resource != nil:
		return PlaceResource
	case s.Monitor != nil:
		return PlaceMonitor
	}
	return s.Phase.String()
}

// runsAt reports whether the step has a part in a phase.
func (s Step) runsAt(p Phase) bool {
	if s.Resource != nil {
		return p == BeforeUp
	}
	return s.Hook != nil && s.Phase == p
}

// Policies returns what a failed step may be followed by, the default first.
func (s Step) Policies() []Policy {
	switch {
	case s.Resource != nil:
		return []Policy{Retreat}
	case s.Monitor != nil:
		return MonitorPolicies()
	}
	return s.Phase.Policies()
}

// MonitorPolicies returns what may follow from a monitor that says unfit, the default
// first: the node leaves the role for a fit one, it is demoted by the weight only, or
// somebody is told.
func MonitorPolicies() []Policy { return []Policy{Retreat, Demote, Alarm} }

// StuckPolicies returns what may follow from a resource that cannot be demoted.
func StuckPolicies() []Policy { return []Policy{Alarm, Reboot, StopWatchdog} }

func (s Step) validate() error {
	parts := 0
	for _, given := range []bool{s.Hook != nil, s.Resource != nil, s.Monitor != nil} {
		if given {
			parts++
		}
	}
	switch {
	case s.Name == "":
		return errors.New("the name is empty")
	case parts == 0:
		return errors.New("there is no hook")
	case parts > 1:
		return errors.New("it is more than one of hook, resource and monitor")
	case s.Phase > AfterDown:
		return fmt.Errorf("unknown phase %v", s.Phase)
	case s.OnFailure != PhaseDefault && !slices.Contains(s.Policies(), s.OnFailure):
		return fmt.Errorf("failure policy %v cannot be carried out in phase %s", s.OnFailure, s.Place())
	case s.OnStuck != PhaseDefault && !slices.Contains(StuckPolicies(), s.OnStuck):
		return fmt.Errorf("failure policy %v cannot follow from a demotion", s.OnStuck)
	case s.Watch.Weight < 0 || s.Watch.Weight > 254:
		return fmt.Errorf("weight %d: use 1 to 254", s.Watch.Weight)
	case s.Watch.Rise < 0 || s.Watch.Fall < 0:
		return errors.New("rise and fall are not negative")
	}
	for _, d := range []time.Duration{s.Timeout, s.Release, s.Watch.Interval, s.Watch.Timeout, s.Watch.Grace} {
		if d < 0 || d > MaxTimeout {
			return fmt.Errorf("timeout %v: use more than 0 and at most %v", d, MaxTimeout)
		}
	}
	return nil
}

// fill replaces zero values by their defaults.
func (s *Step) fill() {
	s.Timeout = cmp.Or(s.Timeout, DefaultTimeout)
	s.Release = cmp.Or(s.Release, s.Timeout)
	s.Watch.Interval = cmp.Or(s.Watch.Interval, DefaultInterval)
	s.Watch.Timeout = cmp.Or(s.Watch.Timeout, min(DefaultTimeout, 10*s.Watch.Interval))
	s.Watch.Grace = cmp.Or(s.Watch.Grace, DefaultApart)
	s.Watch.Rise, s.Watch.Fall = max(s.Watch.Rise, 1), max(s.Watch.Fall, 1)
	if s.Watch.Weight == 0 {
		s.Watch.Weight = DefaultWeight
	}
	if s.OnFailure == PhaseDefault {
		s.OnFailure = s.Policies()[0]
	}
	if s.OnStuck == PhaseDefault {
		s.OnStuck = Alarm
	}
}

// FillTimeout gives a timeout in the configuration of a kind its default where that is 0,
// and returns an error that names its key unless it is more than 0 and at most MaxTimeout.
func FillTimeout(key string, d *time.Duration, otherwise time.Duration) error {
	*d = cmp.Or(*d, otherwise)
	if *d <= 0 || *d > MaxTimeout {
		return fmt.Errorf("%s %v: use more than 0 and at most %v", key, *d, MaxTimeout)
	}
	return nil
}
