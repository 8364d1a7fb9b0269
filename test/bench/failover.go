package bench

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Fault is what happens to the master.
type Fault string

// The faults.
const (
	Kill   Fault = "kill"   // SIGKILL to all its processes at once; its host stays up
	Unplug Fault = "unplug" // its cable is pulled: the carrier is lost
	Stop   Fault = "stop"   // SIGTERM: it may say goodbye
)

// Faults are all there are.
func Faults() []Fault { return []Fault{Kill, Unplug, Stop} }

// Takeover is one run of a failover. Times are in milliseconds.
type Takeover struct {
	Phase        float64 `json:"phase"`                // of the fault, in intervals after the last advert but whole ones
	Silence      float64 `json:"silence_ms"`           // between the masters' adverts
	Announced    float64 `json:"announced_ms"`         // fault to first gratuitous ARP
	Outage       float64 `json:"outage_ms"`            // at the client; about 1 is none
	OutageOpen   bool    `json:"outage_open"`          // there was still no answer at the end
	BothHold     float64 `json:"both_hold_ms"`         // by netlink
	HoldOpen     bool    `json:"both_hold_open"`       // they still did at the end
	BothAnswered float64 `json:"both_answered_ms"`     // by ARP, in steps of 20 ms
	Watched      float64 `json:"watched_ms"`           // from the fault to the end
	Late         float64 `json:"late_ms"`              // the bench's own worst lateness
	Error        string  `json:"error,omitempty"`      // nobody took over: the rest says nothing
	Lost         uint64  `json:"lost_frames,omitzero"` // by the observer
}

// alone is how long the master must have been alone before it is broken.
func alone(interval time.Duration) time.Duration { return max(300*time.Millisecond, 2*interval) }

// tail is how long is watched after the takeover.
func tail(interval time.Duration) time.Duration { return 500*time.Millisecond + 2*interval }

// takeoverLimit bounds the wait for the other master.
func takeoverLimit(interval time.Duration) time.Duration { return 5*time.Second + 10*interval }

// failover makes one run. The error says that nothing more can be measured; that
// nobody took over is in Takeover.
func (f *field) failover(s Speaker, fault Fault, interval time.Duration, phase float64) (Takeover, error) {
	f.clear()
	f.holders.take()
	f.ear.record()
	defer f.ear.forget()
	run := Takeover{Phase: phase}
	g := Group{Interval: interval, Instances: 1}
	started, err := f.settle(s, g, alone(interval))
	if errors.Is(err, errTime) {
		run.Error = err.Error()
		return run, nil
	}
	if err != nil {
		return run, err
	}
	client := f.client.Probe(VIP(1))
	defer client.Stop()
	began := client.Mark()
	if err := f.await(patience, "the client to be answered", func() bool { return client.Answering(began) }); err != nil {
		run.Error = err.Error()
		return run, f.ctx.Err()
	}
	quiet := f.asker.ask(VIP(1))
	defer quiet()
	beats := newPulse(takeoverLimit(interval) + tail(interval))
	mark, at, err := f.inflict(fault, started[0], interval, phase)
	if err != nil {
		beats.stop()
		return run, err
	}
	err = f.await(takeoverLimit(interval), "the other node to be master", func() bool { return f.ear.lastAdvert(1, 1) > at })
	if err == nil {
		err = f.pass(tail(interval))
	}
	end := stamp()
	outage, _ := client.Longest(mark)
	run.Outage, run.OutageOpen = ms(outage), !client.Answering(time.Now().Add(-tail(interval)/2))
	run.Watched, run.Late = ms(time.Duration(end-at)), spread(beats.stop()).Max
	if err != nil {
		run.Error = err.Error()
		return run, f.ctx.Err()
	}
	run.tell(f.ear.heard(), at)
	gone := end
	if fault == Unplug {
		gone = at
	}
	hold, still := together(f.holders.take(), at, end, gone)
	run.BothHold, run.HoldOpen = ms(hold), still
	run.Lost = f.ear.overruns()
	return run, nil
}

// inflict breaks the master at a phase of its interval. It returns the client's
// mark just before, and the stamp of the fault.
func (f *field) inflict(fault Fault, master Running, interval time.Duration, phase float64) (mark time.Time, at int64, err error) {
	pids, err := processes(f.hosts[0])
	if err != nil {
		return mark, 0, err
	}
	at = f.ear.lastAdvert(0, 1) + int64(phase*float64(interval))
	for soon := stamp() + int64(5*time.Millisecond); at < soon; {
		at += int64(interval)
	}
	sleepUntil(unix.CLOCK_REALTIME, at)
	mark, at = time.Now(), stamp()
	switch fault {
	case Kill:
		killAll(pids)
	case Unplug:
		f.hosts[0].Unplug()
	case Stop:
		master.Stop()
	default:
		return mark, at, fmt.Errorf("bench: unknown fault %q", fault)
	}
	return mark, at, nil
}

// killAll kills processes as if at once. They are frozen first: keepalived's worker
// sees its parent die, and would say goodbye in the microseconds that it has left.
func killAll(pids []int) {
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range pids {
			_ = syscall.Kill(pid, sig) // it may have gone already
		}
	}
}

// tell reads from what was heard how the takeover of instance 1 went.
func (r *Takeover) tell(sounds []sound, fault int64) {
	var last, first, announced int64 // of the old master, of the new one, of the address
	for _, s := range sounds {
		switch n, ok := nodeOf(s.from); {
		case s.kind == advert && ok && s.id == 1 && n == 0 && first == 0:
			last = s.at
		case s.kind == advert && ok && s.id == 1 && n == 1 && s.at > fault && first == 0:
			first = s.at
		case s.kind == announcement && s.from == VIP(1).As4() && s.mac != nodeMAC(0) && s.at > fault && announced == 0:
			announced = s.at
		}
	}
	r.Silence = ms(time.Duration(first - last))
	r.BothAnswered = ms(bothAnswered(sounds, VIP(1), fault))
	if announced == 0 {
		r.Error = "the address was not announced"
		return
	}
	r.Announced = ms(time.Duration(announced - fault))
}
