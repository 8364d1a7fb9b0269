package hooks

import (
	"context"
	"fmt"
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

// Class says what a kind is for. A kind may be registered in several classes: the
// configuration says which is meant.
type Class uint8

// The classes.
const (
	Notification  Class = iota // a Hook: it is told at a phase
	ResourceClass              // a Resource: it takes part
	MonitorClass               // a Monitor: it is asked all the time
)

func classNames() [3]string { return [...]string{"notification", "resource", "monitor"} }

// String returns the name that documentation and errors use.
func (c Class) String() string {
	if names := classNames(); int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("Class(%d)", c)
}

// opener makes what a kind makes, of its class; decode fills the value it is given a
// pointer to.
type opener func(decode func(any) error) (any, error)

type entry struct {
	kind  string
	class Class
}

// registry is the one package-level variable of the product that changes: init
// functions fill it before main begins.
var registry struct {
	sync.RWMutex
	kinds map[entry]opener
}

// Register makes a kind of hook known under the given name. It is called from
// init functions only. The type C is the schema of the kind's configuration:
// open gets a value of it, strictly decoded, and returns an error for what the
// types cannot say. Register panics if kind is empty or known already: both are
// mistakes of whoever built the program, not of its operator.
func Register[C any](kind string, open func(C) (Hook, error)) { register(kind, Notification, open) }

// RegisterResource is Register for a kind of resource.
func RegisterResource[C any](kind string, open func(C) (Resource, error)) {
	register(kind, ResourceClass, open)
}

// RegisterMonitor is Register for a kind of monitor.
func RegisterMonitor[C any](kind string, open func(C) (Monitor, error)) {
	register(kind, MonitorClass, open)
}

func register[C, T any](kind string, class Class, open func(C) (T, error)) {
	if kind == "" {
		panic("hooks: register kind: empty name")
	}
	registry.Lock()
	defer registry.Unlock()
	key := entry{kind, class}
	if _, known := registry.kinds[key]; known {
		panic(fmt.Sprintf("hooks: register kind %q: registered twice as a %v", kind, class))
	}
	if registry.kinds == nil {
		registry.kinds = make(map[entry]opener)
	}
	registry.kinds[key] = func(decode func(any) error) (any, error) {
		var c C
		if err := decode(&c); err != nil {
			return nil, err
		}
		return open(c)
	}
}

// Kinds returns the names of the kinds of a class that this program knows, sorted.
func Kinds(class Class) (names []string) {
	registry.RLock()
	defer registry.RUnlock()
	for e := range registry.kinds {
		if e.class == class {
			names = append(names, e.kind)
		}
	}
	slices.Sort(names)
	return names
}

// Open makes a hook of the given kind. decode is called once, with a pointer to
// the kind's configuration, and should refuse unknown keys; its error is
// returned as it is, so that a position in a file survives. For an unknown kind
// the error lists all.
func Open(kind string, decode func(any) error) (Hook, error) {
	return open[Hook](kind, Notification, decode)
}

// OpenResource is Open for a resource.
func OpenResource(kind string, decode func(any) error) (Resource, error) {
	return open[Resource](kind, ResourceClass, decode)
}

// OpenMonitor is Open for a monitor.
func OpenMonitor(kind string, decode func(any) error) (Monitor, error) {
	return open[Monitor](kind, MonitorClass, decode)
}

func open[T any](kind string, class Class, decode func(any) error) (made T, err error) {
	registry.RLock()
	opener, known := registry.kinds[entry{kind, class}]
	registry.RUnlock()
	if !known {
		return made, unknownKind(kind, class, Kinds(class))
	}
	one, err := opener(decode)
	if err != nil {
		return made, fmt.Errorf("hooks: open %s: %w", kind, err)
	}
	made, ok := one.(T)
	if !ok {
		return made, fmt.Errorf("hooks: open %s: the kind returned no %v and no error", kind, class)
	}
	return made, nil
}

func unknownKind(kind string, class Class, known []string) error {
	if len(known) == 0 {
		return fmt.Errorf("hooks: open %q: unknown kind of %v: this program was built without any", kind, class)
	}
	return fmt.Errorf("hooks: open %q: unknown kind of %v: use %s", kind, class, strings.Join(known, ", "))
}
