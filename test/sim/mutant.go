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
	numMutants
)

// Mutants lists all mutants.
func Mutants() []Mutant {
	var all []Mutant
	for m := NoMutant + 1; m < numMutants; m++ {
		all = append(all, m)
	}
	return all
}

var mutantNames = [...]string{
	"none", "ignore-permits", "permit-forever", "forget-lateness", "no-wait-for-permit",
	"keep-permit", "released-early", "failure-untold", "sent-though-not", "sent-late", "clock-back",
	"timer-stops", "no-grace", "two-hooks", "oldest-wins", "wrong-key",
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
