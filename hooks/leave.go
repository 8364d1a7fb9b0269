package hooks

import (
	"context"
	"errors"
	"fmt"
)

// Leaver is a Resource that can say, before anything is done, why it must not be handed
// over now: the copy of the other node lacks something.
type Leaver interface {
	// MayLeave returns why not. It changes nothing.
	MayLeave(ctx context.Context) error
}

// MayLeave asks all resources that are promoted whether the role may be handed over. A
// handover that an operator asks for is refused by an error before it begins. Nobody is
// asked when this node must leave: it does so in any case.
func (r *Runner) MayLeave(ctx context.Context) error {
	var faults []error
	for i := range r.slots {
		s := &r.slots[i]
		one, asks := s.Resource.(Leaver)
		if !asks || !r.o.Journal.Past(s.Name).Promoted {
			continue
		}
		s.busy <- struct{}{}
		err := s.call(ctx, s.Watch.Timeout, one.MayLeave)
		<-s.busy
		if err != nil {
			faults = append(faults, fmt.Errorf("%s (%s): %w", s.Name, s.Kind, err))
		}
	}
	return errors.Join(faults...)
}
