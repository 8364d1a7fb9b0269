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
// the error names the nearest one and lists all.
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
	hint := ""
	if near := nearest(kind, known); near != "" {
		hint = fmt.Sprintf(": did you mean %q?", near)
	}
	return fmt.Errorf("hooks: open %q: unknown kind%s (known: %s)", kind, hint, strings.Join(known, ", "))
}

// nearest returns the word of known that takes the fewest edits, or "" if each
// takes more than half of the word's letters.
func nearest(word string, known []string) string {
	best, least := "", max(len(word)/2, 2)+1
	for _, k := range known {
		if d := edits(word, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance of a and b, in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
