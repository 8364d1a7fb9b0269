package carp

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackupThatSleptListensBeforeItTakesItsMasterForDead(t *testing.T) {
	const down = 3*time.Second + 100*unit
	for _, tt := range []struct {
		name string
		late time.Duration
		set  func(*Config)
		want State
	}{
		{"on time", 0, nil, Master},
		{"late", time.Second, nil, Master},
		{"late by just a master-down time", down, nil, Master},
		{"later", down + 1, nil, Backup},
		{"an hour", time.Hour, nil, Backup},
		{"an hour, as the BSDs", time.Hour, func(c *Config) { c.Compat = CompatBSD }, Master},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			if tt.set != nil {
				r = newRig(t, tt.set)
			}
			r.hear(peerLow, 1, 0)
			r.now = r.deadline().Add(tt.late)
			r.do(r.e.Tick(r.now))
			r.state(tt.want)
			if tt.want == Master {
				return
			}
			if got := r.deadline(); got != r.now.Add(down) {
				t.Errorf("it listens for %v, want %v", got.Sub(r.now), down)
			}
			r.now = r.deadline()
			r.do(r.e.Tick(r.now)) // nobody lives
			r.state(Master)
		})
	}
}

func TestBackupThatSleptThroughAGoodbyeListens(t *testing.T) {
	r := newRig(t)
	r.hear(peerLow, 1, 0)
	r.hear(peerLow, 255, 255)
	r.now = r.deadline().Add(time.Hour)
	r.do(r.e.Tick(r.now))
	r.state(Backup)
	r.hear(peerHigh, 1, 0) // who took over meanwhile
	r.run(2 * time.Second)
	r.state(Backup)
}

// sleepyLink is a link whose clock jumps, as CLOCK_BOOTTIME does across a suspend,
// while that of the timers stands still.
type sleepyLink struct {
	inboxLink
	slept time.Duration
}

func (l *sleepyLink) Now() Instant { return l.inboxLink.Now().Add(l.slept) }

// A node that was suspended wakes with timers that are long due, an empty socket, and
// whatever its peers did meanwhile.
func TestNodeThatWasSuspendedYieldsOrListensBeforeAnythingElse(t *testing.T) {
	for _, asleep := range []time.Duration{5 * time.Second, 10 * time.Second, time.Hour, 400 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			link := &sleepyLink{inboxLink: inboxLink{events: make(chan LinkEvent, 64), began: time.Now()}}
			s, err := NewSpeaker(rigConfig(), link, nil)
			if err != nil {
				t.Fatal(err)
			}
			var seen []Transition
			s.Observe = func(tr Transition) { seen = append(seen, tr) }
			ctx, stop := context.WithCancel(context.Background())
			ended := make(chan error)
			go func() { ended <- s.Run(ctx) }()
			s.do(func() { link.put(LinkEvent{Up: &rigLocal}) })
			r := &rig{t: t, e: s.engine, counter: 1 << 50}
			hear := func() {
				s.do(func() {
					p := r.advert(peerLow, 1, 0)
					link.put(LinkEvent{Packet: &p})
				})
			}
			sleep := func() { s.do(func() { link.slept += asleep }) }
			state := func(what string, want State) {
				t.Helper()
				if st, _ := s.Status(); st.State != want {
					t.Errorf("asleep for %v: %s: %v, want %v", asleep, what, st.State, want)
				}
			}

			// A backup, whose master lives.
			hear()
			<-time.After(time.Second)
			sleep()
			<-time.After(900 * time.Millisecond)
			if asleep > 2*s.engine.masterDown(bid{}) {
				state("a backup that woke", Backup)
			}
			hear()
			<-time.After(900 * time.Millisecond)
			state("a backup that heard its master again", Backup)

			// A master. The first thing it does is to yield.
			<-time.After(5 * time.Second)
			state("after silence", Master)
			n := len(seen)
			sleep()
			<-time.After(maxNap)
			state("a master that woke", Backup)
			if len(seen) != n+1 || seen[n].Reason != ReasonStalled {
				t.Errorf("asleep for %v: it did %v", asleep, seen[n:])
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
