package hooks

import (
	"context"
	"errors"
	"fmt"
)

// Resource is what one node of a group uses at a time: a database that is written to,
// a block device, a proxy that carries the traffic. The node that has the role has it
// promoted, all others have it demoted. It is told apart from a [Hook], which is only
// told what happens: a Resource takes part, and can keep the role from moving.
//
// The methods of one Resource are never called at the same time, and each is bounded by
// its context. They look first, act, and look again: each may be called in any state of
// the resource, twice for one epoch, and after a call that was cancelled or a process
// that died anywhere within one. Already so is success.
//
// A method returns soon after its context ends, with nothing of it still running. An
// error says that the wished state was not reached; the runner asks Monitor in any case.
// [Refuse] and [TryAgain] say what is to follow from an error.
type Resource interface {
	// Promote makes this node the one that uses the resource. The addresses are not up
	// yet; other nodes hear that this one has the role. ev.Reason tells whether the
	// node before let go in order (carp.ReasonBowOut, carp.ReasonOperator) or fell silent.
	//
	// Before each step of its plan it calls [Mark], and [MarkNoReturn] before the one
	// from which on another node could be harmed: that fails when the permit has ended.
	Promote(ctx context.Context, ev Event) error
	// Demote lets go of it. The addresses are off already.
	Demote(ctx context.Context, ev Event) error
	Monitor
}

// Monitor looks at something, and changes nothing.
type Monitor interface {
	// Monitor says how it is. An error says that it could not be found out, which
	// counts as unfit.
	Monitor(ctx context.Context) (Report, error)
}

// Report is what a Monitor has seen. The zero value is healthy, in no known role.
type Report struct {
	Role   Role
	Health Health
	Weight int    // by how much it demotes while degraded, 1 to 254, instead of Watch.Weight; 0: that
	Text   string // one clause for an operator: "replica of 192.0.2.2, 0 s behind"; may be empty
}

// Role is the role that a resource is in on this node, whatever the group thinks.
type Role uint8

// The roles of a resource.
const (
	RoleUnknown  Role = iota // in between, or it has none: what only watches says this
	RoleDemoted              // not used here
	RolePromoted             // used here
)

func roleNames() [3]string { return [...]string{"unknown", "demoted", "promoted"} }

// String returns the name that status and logs use.
func (r Role) String() string {
	if names := roleNames(); int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("Role(%d)", r)
}

// Health says how fit a node is to have the role. The zero value is Healthy.
type Health uint8

// The grades, the worse the greater.
const (
	Healthy  Health = iota
	Degraded        // it could serve; another one would be better
	Unfit           // it could not serve
)

func healthNames() [3]string { return [...]string{"ok", "degraded", "unfit"} }

// String returns the name that status and logs use.
func (h Health) String() string {
	if names := healthNames(); int(h) < len(names) {
		return names[h]
	}
	return fmt.Sprintf("Health(%d)", h)
}

// refusal is the error of Refuse, retry that of TryAgain.
type (
	refusal struct{ error }
	retry   struct{ error }
)

func (r refusal) Unwrap() error { return r.error }
func (r retry) Unwrap() error   { return r.error }

// Refuse marks an error as a refusal: this node is not fit to be promoted, and trying
// again changes nothing. err says why and what an operator can do.
func Refuse(err error) error { return refusal{err} }

// Refused reports whether an error is a refusal.
func Refused(err error) bool { return as[refusal](err) }

// TryAgain marks an error as passing: the runner calls again, with growing pauses, until
// the deadline of the step.
func TryAgain(err error) error { return retry{err} }

func tryAgain(err error) bool { return as[retry](err) }

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// Marks is what a call of a Resource gets from who makes it, for Mark and its like: the
// Runner, or the test of a kind. A function that is nil does nothing.
type Marks struct {
	// Mark is told of a step before it is taken; final says that it has no return.
	// Its error keeps the step from being taken.
	Mark     func(ctx context.Context, step string, final bool) error
	Remember func(ctx context.Context, key, value string) error
	Recall   func(key string) string
}

type marksKey struct{}

// WithMarks returns a context for a call of a Resource.
func WithMarks(ctx context.Context, m Marks) context.Context {
	return context.WithValue(ctx, marksKey{}, m)
}

func marksOf(ctx context.Context) Marks {
	m, _ := ctx.Value(marksKey{}).(Marks)
	return m
}

// Mark records that the step of this name is about to be taken, durably: after a crash
// the journal says how far it came. It is an error that the context has ended, or that
// the journal cannot be written; a demotion goes on without a journal. Outside of a
// Runner it only looks at the context.
func Mark(ctx context.Context, step string) error { return mark(ctx, step, false) }

// MarkNoReturn is Mark for a step that could harm the node that has the role if that is
// no longer this one: it also waits for a live permit of this node, and fails if there is
// none before the context ends. What it guards is to follow at once.
func MarkNoReturn(ctx context.Context, step string) error { return mark(ctx, step, true) }

func mark(ctx context.Context, step string, final bool) error {
	err := ctx.Err()
	if err == nil {
		if at := marksOf(ctx).Mark; at != nil {
			err = at(ctx, step, final)
		}
	}
	if err != nil {
		return fmt.Errorf("before %s: %w", step, err)
	}
	return nil
}

// Remember keeps a value for the resource under a key, durably: what a step destroys and
// a later one needs, such as where a replica got its data from. An empty value forgets
// the key; at most MaxRemembered are kept. No secrets: the journal is a plain file. It is
// an error that the journal cannot be written, in a demotion too: then what would be
// destroyed is better left. Outside of a Runner nothing is kept.
func Remember(ctx context.Context, key, value string) error {
	if keep := marksOf(ctx).Remember; keep != nil {
		return keep(ctx, key, value)
	}
	return nil
}

// Recall returns what was last remembered under a key for the resource, or "".
func Recall(ctx context.Context, key string) string {
	if known := marksOf(ctx).Recall; known != nil {
		return known(key)
	}
	return ""
}
