package hooks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Hook is one configured reaction.
//
// Run does the work of ev.Phase, or nothing if the phase is none of its
// business. It is called by one goroutine at a time per instance. It must
// return soon after ctx ends, with nothing of it still running, and it must be
// idempotent: the same event may come twice, and a call that was cancelled may
// be followed by the same one or by its opposite. An error says that the
// wished state was not reached. A panic counts as an error.
//
// What Run wants to log goes to Logger(ctx).
type Hook interface {
	Run(ctx context.Context, ev Event) error
}

// opener makes a hook of a kind; decode fills the value it is given a pointer to.
type opener func(decode func(any) error) (Hook, error)

// registry is the one package-level variable of the product that changes: init
// functions fill it before main begins.
var registry struct {
	sync.RWMutex
	kinds map[string]opener
}

// Register makes a kind of hook known under the given name. It is called from
// init functions only. The type C is the schema of the kind's configuration:
// open gets a value of it, strictly decoded, and returns an error for what the
// types cannot say. Register panics if kind is empty or known already: both are
// mistakes of whoever built the program, not of its operator.
func Register[C any](kind string, open func(C) (Hook, error)) {
	if kind == "" {
		panic("hooks: register kind: empty name")
	}
	registry.Lock()
	defer registry.Unlock()
	if _, known := registry.kinds[kind]; known {
		panic(fmt.Sprintf("hooks: register kind %q: registered twice", kind))
	}
	if registry.kinds == nil {
		registry.kinds = make(map[string]opener)
	}
	registry.kinds[kind] = func(decode func(any) error) (Hook, error) {
		var c C
		if err := decode(&c); err != nil {
			return nil, err
		}
		return open(c)
	}
}

// Kinds returns the names of the kinds that this program knows, sorted.
func Kinds() []string {
	registry.RLock()
	defer registry.RUnlock()
	return slices.Sorted(maps.Keys(registry.kinds))
}

// Open makes a hook of the given kind. decode is called once, with a pointer to
// the kind's configuration, and should refuse unknown keys; its error is
// returned as it is, so that a position in a file survives. For an unknown kind
// the error lists all.
func Open(kind string, decode func(any) error) (Hook, error) {
	registry.RLock()
	open, known := registry.kinds[kind]
	registry.RUnlock()
	if !known {
		return nil, unknownKind(kind, Kinds())
	}
	h, err := open(decode)
	if err != nil {
		return nil, fmt.Errorf("hooks: open %s: %w", kind, err)
	}
	if h == nil {
		return nil, fmt.Errorf("hooks: open %s: the kind returned no hook and no error", kind)
	}
	return h, nil
}

func unknownKind(kind string, known []string) error {
	if len(known) == 0 {
		return fmt.Errorf("hooks: open %q: unknown kind: this program was built without any", kind)
	}
	return fmt.Errorf("hooks: open %q: unknown kind: use %s", kind, strings.Join(known, ", "))
}
