package bench

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// Fault is what happens to the master.
type Fault string

// The faults.
const (
	Kill   Fault = "kill"   // SIGKILL to all its processes at once; its host stays up
	Crash  Fault = "crash"  // SIGKILL to the process that was started, and to no other
	Freeze Fault = "freeze" // SIGSTOP to that process alone
	Unplug Fault = "unplug" // its cable is pulled: the carrier is lost
	Stop   Fault = "stop"   // SIGTERM: it may say goodbye
)

// Faults are all there are.
func Faults() []Fault { return []Fault{Kill, Crash, Freeze, Unplug, Stop} }

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
	Again        int     `json:"again,omitzero"`       // how often it was made before in vain: the backup took over before the fault
	Error        string  `json:"error,omitempty"`      // nobody took over: the rest says nothing
	Lost         uint64  `json:"lost_frames,omitzero"` // by the observer
}

// disturbed is the error of a run in which the backup took over before the fault: it
// is made again, if it may be.
const disturbed = "the backup took over before the fault"

// maxTries bounds how often a run is made.
const maxTries = 3

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
	if errors.Is(err, lab.ErrTime) {
		run.Error = err.Error()
		return run, nil
	}
	if err != nil {
		return run, err
	}
	since := stamp()
	c, err := newClient(f.client, VIP(1), takeoverLimit(interval)+tail(interval))
	if err != nil {
		return run, err
	}
	quiet := f.asker.ask(VIP(1))
	at, err := f.breakMaster(c, since, fault, started[0], interval, phase)
	end := stamp()
	quiet()
	answers, late := c.stop()
	if errors.Is(err, lab.ErrTime) {
		run.Error = err.Error()
		return run, nil
	}
	if err != nil {
		return run, err
	}
	outage, began := longest(answers, at-int64(beat), end)
	if fault == Unplug {
		// Other namespaces hold the lock that a link needs to go down, at times for
		// 50 ms: the cable was pulled when the client got its last answer.
		at = max(at, began)
	}
	still, _ := longest(answers, end-int64(tail(interval)/2), end)
	run.Outage, run.OutageOpen = ms(outage), still > tail(interval)/4
	run.Watched, run.Late, run.Lost = ms(time.Duration(end-at)), spread(late).Max, f.ear.overruns()
	run.tell(f.ear.heard(), at, interval)
	gone := end
	if fault == Unplug {
		gone = at
	}
	hold, holding := together(f.holders.take(), at, end, gone)
	run.BothHold, run.HoldOpen = ms(hold), holding
	return run, nil
}

// breakMaster waits until the client is answered, makes the fault, and waits for
// the other node and a while longer. It returns the stamp of the fault.
func (f *field) breakMaster(c *client, since int64, fault Fault, master Running, interval time.Duration, phase float64) (at int64, err error) {
	if err = f.await(patience, "the client to be answered", func() bool { return c.answered(since) }); err != nil {
		return 0, err
	}
	if at, err = f.inflict(fault, master, interval, phase); err != nil {
		return at, err
	}
	if err = f.await(takeoverLimit(interval), "the other node to be master", func() bool { return f.ear.lastAdvert(1, 1) > at }); err != nil {
		return at, err
	}
	return at, f.pass(tail(interval))
}

// inflict breaks the master at a phase of its interval, and returns the stamp.
func (f *field) inflict(fault Fault, master Running, interval time.Duration, phase float64) (at int64, err error) {
	pids, err := processes(f.hosts[0])
	if err != nil {
		return 0, err
	}
	at = f.ear.lastAdvert(0, 1) + int64(phase*float64(interval))
	for soon := stamp() + int64(5*time.Millisecond); at < soon; {
		at += int64(interval)
	}
	sleepUntil(unix.CLOCK_REALTIME, at)
	at = stamp()
	switch fault {
	case Kill:
		killAll(pids)
	case Crash:
		master.Signal(syscall.SIGKILL)
	case Freeze:
		master.Signal(syscall.SIGSTOP)
	case Unplug:
		f.hosts[0].Unplug()
	case Stop:
		master.Stop()
	default:
		return at, fmt.Errorf("bench: unknown fault %q", fault)
	}
	return at, nil
}

// killAll kills processes as if at once. They are frozen first: keepalived's worker
// sees its parent die, and would say goodbye in the microseconds that it has left. The
// youngest dies first: a group that loses its leader is woken by the kernel.
func killAll(pids []int) {
	pids = slices.Clone(pids)
	slices.Sort(pids)
	slices.Reverse(pids)
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range pids {
			_ = syscall.Kill(pid, sig) // it may have gone already
		}
	}
}

// tell reads from what was heard how the takeover of instance 1 went.
func (r *Takeover) tell(sounds []sound, fault int64, interval time.Duration) {
	var last, first, announced int64 // of the old master, of the new one, of the address
	for _, s := range sounds {
		switch n, ok := nodeOf(s.from); {
		case s.kind == advert && ok && n == 1 && s.at < fault && s.at > fault-int64(alone(interval)):
			r.Error = disturbed
			return
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
