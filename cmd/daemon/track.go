package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/track"
)

// probes are the probes of all client sides: instances that ask the same host in the
// same way share one, so that a hundred of them ask no more than one.
type probes struct {
	mu  sync.Mutex
	all map[probeKey]*probe // guarded by mu
}

type probeKey struct {
	link string
	config.Gateway
}

// probe is one, while anybody uses it.
type probe struct {
	*track.Gateway
	key  probeKey
	stop context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex
	users []*side // guarded by mu
}

// get returns the probe of a gateway, over an interface that is open, for one more
// user.
func (p *probes) get(l *link.Interface, g config.Gateway, user *side) (*probe, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := probeKey{l.Name(), g}
	one := p.all[key]
	if one == nil {
		gateway, err := track.Open(track.Config{
			Address: g.Address, Interval: g.Interval, Deadline: g.Deadline, Fall: int(g.Fall), Rise: int(g.Rise),
			Side: func() track.Side { return track.Side(l.Own()) },
		})
		if err != nil {
			return nil, err
		}
		ctx, stop := context.WithCancel(context.Background())
		one = &probe{Gateway: gateway, key: key, stop: stop}
		one.done.Go(func() { gateway.Run(ctx, one.report) })
		p.all[key] = one
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	one.users = append(one.users, user)
	return one, nil
}

// put gives a probe back, and ends it with its last user.
func (p *probes) put(one *probe, user *side) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	one.mu.Lock()
	one.users = slices.DeleteFunc(one.users, func(u *side) bool { return u == user })
	left := len(one.users)
	one.mu.Unlock()
	if left > 0 {
		return nil
	}
	delete(p.all, one.key)
	one.stop()
	one.done.Wait()
	return one.Close()
}

// report tells the users that the verdict has changed.
func (p *probe) report(track.Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.users {
		u.wake()
	}
}

// side is the client side of an instance as its probes see it.
type side struct {
	i     *instance
	nudge chan struct{}

	mu     sync.Mutex // guards what follows
	probes []*probe
	state  sideState
}

// sideState is what a client side has come to.
type sideState struct {
	ever   bool // some probe has been good since the start
	cutOff bool // and now all of them fail
}

// next is what a verdict makes of it. A probe that has never been good says nothing
// about the network, and more likely something about its address.
func (s sideState) next(v track.Verdict) sideState {
	switch v {
	case track.Good:
		return sideState{ever: true}
	case track.Failed:
		s.cutOff = s.ever
	}
	return s
}

func newSide(i *instance) *side { return &side{i: i, nudge: make(chan struct{}, 1)} }

// wake has run look again; it never blocks.
func (s *side) wake() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// use asks these gateways from now on. On an error it asks as before.
func (s *side) use(all []config.Gateway) error {
	p := &s.i.d.probes
	var fresh []*probe
	for _, g := range all {
		one, err := p.get(s.i.links[0].on, g, s)
		if err != nil {
			for _, f := range fresh {
				err = errors.Join(err, p.put(f, s))
			}
			return err
		}
		fresh = append(fresh, one)
	}
	s.mu.Lock()
	old := s.probes
	s.probes = fresh
	s.mu.Unlock()
	s.wake()
	var err error
	for _, o := range old {
		if slices.Contains(fresh, o) { // the same, with one user too many
			continue
		}
		err = errors.Join(err, p.put(o, s))
	}
	return err
}

// run tells the engine what the probes have come to, until ctx ends.
func (s *side) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.nudge:
		}
		before, now := s.look()
		if before.cutOff != now.cutOff {
			s.i.speaker.ClientSide(!now.cutOff)
		}
		select {
		case s.i.d.nudge <- struct{}{}: // for the alarm
		default:
		}
	}
}

// look takes the verdicts that there are now.
func (s *side) look() (before, now sideState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	verdicts := make([]track.Verdict, len(s.probes))
	for n, p := range s.probes {
		verdicts[n] = p.Status().Verdict
	}
	before = s.state
	s.state = before.next(track.All(verdicts...))
	return before, s.state
}

// status lists the probes.
func (s *side) status() (state sideState, all []track.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.probes {
		all = append(all, p.Status())
	}
	return s.state, all
}

// trackTrouble says what is wrong with the client side, or nothing.
func trackTrouble(p *plan, state sideState, all []track.Status) string {
	var failed []string
	verdicts := make([]track.Verdict, len(all))
	for n, s := range all {
		if verdicts[n] = s.Verdict; s.Verdict != track.Failed {
			continue
		}
		text := s.Address.String()
		if s.Trouble != "" {
			text += " (" + s.Trouble + ")"
		}
		failed = append(failed, text)
	}
	who := strings.Join(failed, " and ")
	switch {
	case state.cutOff:
		return fmt.Sprintf("nothing on %s answers, neither %s: clients may not be reached from here. This node is demoted until something does. "+
			"If other nodes say the same, look at what is asked; else at the cable and the switch.", p.Interface, strings.Join(failed, " nor "))
	case track.All(verdicts...) == track.Failed:
		return fmt.Sprintf("%s has never answered on %s since carpd started, so that nothing tells if clients are reached from here. "+
			"Is the address right, and does that host answer ARP or neighbour solicitations?", who, p.Interface)
	case len(failed) > 0:
		return fmt.Sprintf("%s does not answer on %s; something else does, and that is enough.", who, p.Interface)
	}
	return ""
}

// trackStates lists the probes as carpctl status shows them.
func trackStates(all []track.Status) []api.Track {
	var out []api.Track
	for _, s := range all {
		t := api.Track{Gateway: s.Address.String(), State: s.Verdict.String(), Rounds: s.Rounds, Missed: s.Missed, Trouble: s.Trouble}
		if !s.Answered.IsZero() {
			ms := time.Since(s.Answered).Milliseconds()
			t.LastAnswerMS, t.RTTMicros = &ms, s.RTT.Microseconds()
		}
		out = append(out, t)
	}
	return out
}

// explainTrack says what the probes have come to.
func explainTrack(say sayer, p *plan, all []track.Status) {
	for _, s := range all {
		last := "has not answered yet"
		if !s.Answered.IsZero() {
			last = fmt.Sprintf("answered last %v ago, after %v", time.Since(s.Answered).Round(time.Millisecond), s.RTT.Round(10*time.Microsecond))
		}
		say("Probe of the client side: %v on %s is %v: it %s; %d of %d requests went without an answer.",
			s.Address, p.Interface, s.Verdict, last, s.Missed, s.Rounds)
	}
}
