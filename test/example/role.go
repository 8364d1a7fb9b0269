// Package example is a small project beside carpd, as the page docs/harness.md
// shows it: a hook of its own, and what its CI tests of it.
package example

import (
	"context"
	"os"

	"github.com/carpd/carpd/hooks"
)

// Role is a hook for after-up and after-down: it keeps a file that tells our
// service whether this node leads. It may be called twice for one event, and File
// may be missing.
type Role struct{ File string }

// Run writes the file as a whole or not at all. It is a hooks.Hook.
func (r Role) Run(_ context.Context, ev hooks.Event) error {
	word := "leader\n"
	if ev.Phase.Down() {
		word = "standby\n"
	}
	if err := os.WriteFile(r.File+".new", []byte(word), 0o644); err != nil {
		return err
	}
	return os.Rename(r.File+".new", r.File)
}

// Leads reads what the hook wrote.
func (r Role) Leads() bool {
	word, err := os.ReadFile(r.File)
	return err == nil && string(word) == "leader\n"
}
