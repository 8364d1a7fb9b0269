package sim

import (
	"time"

	"github.com/carpd/carpd/carp"
)

// Mutant is a deliberate fault around the engine: of its caller, its worker or
// its configuration. A soak that does not find them proves nothing.
type Mutant uint8

// The mutants.
const (
	NoMutant        Mutant = iota
	IgnorePermits          // the worker acts without looking at permits
	PermitForever          // the worker looks at the permit, but not at its end
	ForgetLateness         // the worker renews as long as the permit lives, though the lease outlives it
	NoWaitForPermit        // the address goes on without waiting for the permit
	KeepPermit             // leaving the role does not withdraw the permit
	ReleasedEarly          // Released is called before the address is off
	FailureUntold          // the worker could not take the address and tells nobody
	SentThoughNot          // Sent is called after a send that failed
	SentLate               // Sent is called with an instant a second after the send
	ClockBack              // the loop's clock goes back now and then
	TimerStops             // no tick while master
	NoGrace                // no grace after preempting
	TwoHooks               // a cancelled hook is not waited for
	OldestWins             // a newer transition does not replace one that waits
	WrongKey               // the passphrase is another one

	// Those of hosts that share a resource.
	StepUnpermitted // the step without return is taken without looking at the permit
	BowOutFirst     // the bow-out comes before the demotion
	StayPromoted    // it is never demoted
	Unsettled       // the election is joined with what an earlier daemon left
	AddressFirst    // the address does not wait for the promotion
	GateOnce        // the gate is passed once for all masterships
	TriedOnce       // a demotion that failed is not tried again
	numMutants
)

// Mutants lists all mutants but those of a shared resource.
func Mutants() []Mutant { return mutants(NoMutant+1, StepUnpermitted) }

// ResourceMutants lists the mutants of a shared resource.
func ResourceMutants() []Mutant { return mutants(StepUnpermitted, numMutants) }

func mutants(from, to Mutant) (all []Mutant) {
	for m := from; m < to; m++ {
		all = append(all, m)
	}
	return all
}

var mutantNames = [...]string{
	"none", "ignore-permits", "permit-forever", "forget-lateness", "no-wait-for-permit",
	"keep-permit", "released-early", "failure-untold", "sent-though-not", "sent-late", "clock-back",
	"timer-stops", "no-grace", "two-hooks", "oldest-wins", "wrong-key",
	"step-unpermitted", "bow-out-first", "stay-promoted", "unsettled", "address-first", "gate-once", "tried-once",
}

func (m Mutant) String() string {
	if int(m) < len(mutantNames) {
		return mutantNames[m]
	}
	return "unknown"
}

// configure spoils a configuration.
func (m Mutant) configure(c *carp.Config) {
	switch m {
	case NoGrace:
		c.PreemptGrace = -time.Nanosecond
	case WrongKey:
		if c.Protocol.VRRP() {
			return // nothing is signed
		}
		c.Passphrase = append([]byte("x"), c.Passphrase...)
	}
}
