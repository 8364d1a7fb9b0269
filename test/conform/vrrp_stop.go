package conform

import (
	"context"
	"fmt"
	"time"
)

// How often a speaker that stops is asked for the address: as fast as it goes for
// a short while, then each tick, up to a limit. What is first shows only if a
// question falls between, so there are several trials.
const (
	askFirst  = 10 * time.Millisecond
	askFast   = 150 * time.Millisecond
	askTick   = 200 * time.Microsecond
	askLimit  = 3 * time.Second
	askTrials = 4
)

// stops ends the speaker in order, while it is master, and watches what comes
// first: its farewell or the end of the address.
func (t *vrrpTester) stops() error {
	if t.cfg.Stop == nil {
		t.skip("no command that stops the speaker was given", "S-ZERO", "S-ORDER", "S-AFTER")
		return nil
	}
	for trial := range askTrials {
		if _, ok := t.makeMaster(); !ok {
			t.skip(noMaster, "S-ZERO", "S-ORDER", "S-AFTER")
			return nil
		}
		known, err := t.stop()
		if err != nil {
			return fmt.Errorf("conform: stop the speaker: %w", err)
		}
		if known || t.cfg.Restart == nil || trial == askTrials-1 || t.ctx.Err() != nil {
			break
		}
		if _, err := t.restart(t.cfg.Priority); err != nil {
			return err
		}
	}
	if mac, ok := t.whoHas(t.cfg.Addresses[0]); ok {
		t.row("S-AFTER", "it answers", "%v is at %v, after the process ended", t.cfg.Addresses[0], mac)
	} else {
		t.row("S-AFTER", "no answer", "none")
	}
	return nil
}

// stop is one trial; it reports whether it showed what is first.
func (t *vrrpTester) stop() (known bool, err error) {
	mark, begin := t.log.len(), now()
	stopped := make(chan error, 1)
	go func() {
		t.until(begin.Add(askFirst)) // some questions are answered before
		stopped <- t.cfg.Stop(t.ctx)
	}()
	asked := t.ask(mark)
	select {
	case err := <-stopped:
		if err != nil {
			return false, err
		}
	case <-t.ctx.Done():
		return false, context.Cause(t.ctx)
	}
	zeroes := t.log.since(mark, t.leaves)
	if len(zeroes) == 0 {
		t.row("S-ZERO", "none", "no advert of priority 0")
		t.skip("it does not say that it leaves", "S-ORDER")
		return true, nil
	}
	zero := zeroes[0]
	t.row("S-ZERO", "priority 0", "%d, the first %s after it was told to stop", len(zeroes), ms(zero.at.Sub(begin)-askFirst))
	answers := t.log.since(mark, func(s *sighting) bool { return s.kind == answered && s.addr == t.cfg.Addresses[0] })
	if len(answers) == 0 {
		t.skip("it answers no questions", "S-ORDER")
		return true, nil
	}
	last := answers[len(answers)-1].at
	unanswered := 0
	for _, at := range asked {
		// The one on its way when the last answer came does not count.
		if at.After(last) && at.Before(zero.at) {
			unanswered++
		}
	}
	seen := fmt.Sprintf("its last answer for %v was %+.2f ms from the advert; %d questions between", t.cfg.Addresses[0],
		float64(last.Sub(zero.at).Microseconds())/1000, unanswered)
	switch {
	case last.After(zero.at):
		t.row("S-ORDER", "advert", "%s", seen)
	case unanswered > 1:
		t.row("S-ORDER", "address", "%s", seen)
	default:
		t.row("S-ORDER", "", "not told apart: %s", seen)
		return false, nil
	}
	return true, nil
}

// leaves reports whether a sighting is a farewell of the speaker.
func (t *vrrpTester) leaves(s *sighting) bool { return t.ours(s) && s.vrrp.priority == 0 }

// ask asks for the address until shortly after the farewell, and returns when it
// asked.
func (t *vrrpTester) ask(mark int) (asked []time.Time) {
	question := t.query(t.cfg.Addresses[0])
	tick := time.NewTicker(askTick)
	defer tick.Stop()
	begin, said := now(), false
	for n, until := 0, begin.Add(askLimit); now().Before(until) && t.ctx.Err() == nil; n++ {
		if now().Sub(begin) > askFast {
			<-tick.C
		}
		asked = append(asked, t.transmit(question))
		if !said && n%50 == 0 && len(t.log.since(mark, t.leaves)) > 0 {
			said, until = true, now().Add(50*time.Millisecond)
		}
	}
	return asked
}
