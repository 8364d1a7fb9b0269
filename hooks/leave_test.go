package hooks

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

// leaver is a resource that does not want to be handed over.
type leaver struct {
	role Role
	why  error
}

func (l *leaver) Promote(context.Context, Event) error { l.role = RolePromoted; return nil }
func (l *leaver) Demote(context.Context, Event) error  { l.role = RoleDemoted; return nil }
func (l *leaver) MayLeave(context.Context) error       { return l.why }
func (l *leaver) Monitor(context.Context) (Report, error) {
	return Report{Role: l.role}, nil
}

func TestOnlyAPromotedResourceIsAskedWhetherItMayLeave(t *testing.T) {
	j, err := OpenJournal(filepath.Join(t.TempDir(), "journal"), "boot")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	l := &leaver{role: RoleDemoted, why: errors.New("the other node lacks something")}
	r, err := NewRunner([]Step{{Name: "disk", Kind: "fake", Resource: l}}, Options{Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.MayLeave(t.Context()); err != nil {
		t.Errorf("a demoted one was asked: %v", err)
	}
	if err := r.Run(t.Context(), BeforeUp, Event{Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	if err := r.MayLeave(t.Context()); !errors.Is(err, l.why) {
		t.Errorf("got %v", err)
	}
	l.why = nil
	if err := r.MayLeave(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}
