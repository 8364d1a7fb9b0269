package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
)

// note makes a hook that writes in the diary of a world.
type note struct {
	w    *world
	text string
}

func (n note) Run(context.Context, Event) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.diary = append(n.w.diary, n.text)
	return nil
}

// written returns the diary and begins a new one.
func (w *world) written() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := strings.Join(w.diary, "|")
	w.diary = nil
	return text
}

func mustBe(t testing.TB, want Role, all ...*thing) {
	t.Helper()
	for _, th := range all {
		th.sound(t)
		if got := th.world.role(); got != want {
			t.Fatalf("%s is %v, want %v: %v", th.name, got, want, th.world)
		}
	}
}

func TestResourcesGoUpInOrderAmongTheHooksAndDownInReverse(t *testing.T) {
	disk, db := newThing("disk"), newThing("db")
	db.world = disk.world
	short := func(th *thing) Step { // it does nothing but write
		s := th.resource()
		s.Resource = diarist{th.world, th.name, new(Role)}
		return s
	}
	w := disk.world
	r := runner(t, filepath.Join(t.TempDir(), "journal"), Options{},
		Step{Name: "first", Kind: "note", Phase: BeforeUp, Hook: note{w, "first"}},
		short(disk),
		Step{Name: "between", Kind: "note", Phase: BeforeUp, Hook: note{w, "between"}},
		short(db),
		Step{Name: "told", Kind: "note", Phase: AfterUp, Hook: note{w, "told"}},
		Step{Name: "left", Kind: "note", Phase: AfterDown, Hook: note{w, "left"}},
	)
	for _, c := range []struct {
		do   func() error
		want string
	}{
		{func() error { return r.Settle(t.Context(), withEpoch(0)) }, "demote db|demote disk"}, // of unknown role
		{func() error { return r.Demote(t.Context(), withEpoch(1)) }, ""},
		{func() error { return r.Run(t.Context(), BeforeUp, withEpoch(2)) }, "first|promote disk|between|promote db"},
		{func() error { return r.Run(t.Context(), AfterUp, withEpoch(2)) }, "told"},
		{func() error { return r.Run(t.Context(), BeforeDown, withEpoch(2)) }, ""},
		{func() error { return r.Demote(t.Context(), withEpoch(2)) }, "demote db|demote disk"},
		{func() error { return r.Demote(t.Context(), withEpoch(2)) }, ""},
		{func() error { return r.Run(t.Context(), AfterDown, withEpoch(2)) }, "left"},
		{func() error { return r.Settle(t.Context(), withEpoch(2)) }, ""},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if got := w.written(); got != c.want {
			t.Errorf("%q was done, want %q", got, c.want)
		}
	}
}

// diarist is a resource that only writes what is asked of it.
type diarist struct {
	w    *world
	name string
	role *Role
}

func (d diarist) Promote(ctx context.Context, ev Event) error {
	*d.role = RolePromoted
	return note{d.w, "promote " + d.name}.Run(ctx, ev)
}

func (d diarist) Demote(ctx context.Context, ev Event) error {
	*d.role = RoleDemoted
	return note{d.w, "demote " + d.name}.Run(ctx, ev)
}

func (d diarist) Monitor(context.Context) (Report, error) { return Report{Role: *d.role}, nil }

// What follows from how a promotion ends.
func TestHowAPromotionEnds(t *testing.T) {
	bad := errors.New("broken")
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for _, c := range []struct {
		name  string
		step  func(ctx context.Context, n int) error // in the step "open", at the n-th try
		look  func(context.Context) (Report, error)
		took  time.Duration
		tries int
		want  string // in the error; "": none
	}{
		{"works", func(context.Context, int) error { return nil }, nil, 0, 1, ""},
		{"fails", func(context.Context, int) error { return bad }, nil, 0, 1, "broken"},
		{"refuses", func(context.Context, int) error { return Refuse(bad) }, nil, 0, 1, "broken"},
		{"panics", func(context.Context, int) error { panic("no such map") }, nil, 0, 1, "no such map"},
		{"lies", func(context.Context, int) error { return errLie }, nil, 0, 1, "it says that it is promoted, and is unknown"},
		{"cannot be looked at", func(context.Context, int) error { return nil },
			func(context.Context) (Report, error) { return Report{}, bad }, 0, 1, "cannot be looked at: broken"},
		{"hangs when looked at", func(context.Context, int) error { return nil },
			func(ctx context.Context) (Report, error) { return Report{}, hang(ctx) }, 5 * time.Second, 1, "cannot be looked at"},
		{"panics when looked at", func(context.Context, int) error { return nil },
			func(context.Context) (Report, error) { panic("no such row") }, 0, 1, "no such row"},
		{"hangs", func(ctx context.Context, _ int) error { return hang(ctx) }, nil, 20 * time.Second, 1, "timeout of 20s"},
		{"works at the third try", func(_ context.Context, n int) error {
			if n < 3 {
				return TryAgain(bad)
			}
			return nil
		}, nil, 750 * time.Millisecond, 3, ""},
		{"asks to be tried again for ever", func(context.Context, int) error { return TryAgain(bad) }, nil, 17750 * time.Millisecond, 8, "tried 8 times within its timeout of 20s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal")
			synctest.Test(t, func(t *testing.T) {
				th, tries := newThing("db"), 0
				th.step = func(ctx context.Context, call, step string) error {
					if call != "promote" || step != "open" {
						return nil
					}
					tries++
					return c.step(ctx, tries)
				}
				th.look = c.look
				r := runner(t, path, Options{}, th.resource())
				start := time.Now()
				err := r.Run(t.Context(), BeforeUp, withEpoch(3))
				took := time.Since(start)
				var failed *StepError
				switch {
				case c.want == "" && err != nil:
					t.Error(err)
				case c.want == "":
				case !errors.As(err, &failed) || failed.Policy != Retreat || failed.Place != PlaceResource:
					t.Errorf("got %v, want a StepError with the policy retreat", err)
				case !strings.Contains(err.Error(), c.want):
					t.Errorf("got %v, want %q", err, c.want)
				}
				if Refused(err) != (c.name == "refuses") {
					t.Errorf("refused is %v: %v", Refused(err), err)
				}
				if took != c.took || tries != c.tries {
					t.Errorf("%d tries in %v, want %d in %v", tries, took, c.tries, c.took)
				}
				past := r.o.Journal.Past("db")
				if want := map[bool]EntryState{true: Done, false: Broken}[c.want == ""]; past.Last.State != want || !past.Promoted || past.Unfinished {
					t.Errorf("the journal knows %+v, want %v", past, want)
				}
				th.look = nil
				th.step = nil
				if err := r.Demote(t.Context(), withEpoch(3)); err != nil {
					t.Error(err)
				}
				mustBe(t, RoleDemoted, th)
			})
		})
	}
}

// A resource that cannot be demoted keeps no other from it, and the gravest policy counts.
func TestStuckResourceKeepsNoOtherFromBeingDemoted(t *testing.T) {
	a, b, c := newThing("a"), newThing("b"), newThing("c")
	stuck := errors.New("held by mysqld")
	for _, th := range []*thing{a, b} {
		th.step = func(_ context.Context, call, _ string) error {
			if call == "demote" {
				return stuck
			}
			return nil
		}
	}
	sa, sb := a.resource(), b.resource()
	sa.OnStuck, sb.OnStuck = Reboot, Alarm
	r := runner(t, filepath.Join(t.TempDir(), "journal"), Options{}, sa, sb, c.resource())
	if err := r.Run(t.Context(), BeforeUp, withEpoch(1)); err != nil {
		t.Fatal(err)
	}
	err := r.Demote(t.Context(), withEpoch(1))
	var failed *StepError
	if !errors.As(err, &failed) || failed.Step != "a" || failed.Policy != Reboot || !errors.Is(err, stuck) {
		t.Errorf("got %v, want that a is stuck, with the policy reboot", err)
	}
	mustBe(t, RoleDemoted, c)
	if r.o.Journal.Past("c").Promoted || !r.o.Journal.Past("a").Promoted {
		t.Error("the journal does not say which are still promoted")
	}
	a.step, b.step = nil, nil
	if err := r.Demote(t.Context(), withEpoch(1)); err != nil {
		t.Error(err)
	}
	mustBe(t, RoleDemoted, a, b, c)
}

func TestOlderEpochIsRefusedAndTouchesNothing(t *testing.T) {
	th := newThing("db")
	path := filepath.Join(t.TempDir(), "journal")
	r := runner(t, path, Options{}, th.resource())
	for _, c := range []struct {
		epoch   carp.Epoch
		refused bool
	}{{7, false}, {7, false}, {6, true}, {0, true}, {8, false}, {7, true}} {
		before := r.o.Journal.Past("db")
		err := r.Run(t.Context(), BeforeUp, withEpoch(c.epoch))
		if Refused(err) != c.refused || (err != nil) != c.refused {
			t.Errorf("epoch %d: %v", c.epoch, err)
		}
		if c.refused {
			if !reflect.DeepEqual(before, r.o.Journal.Past("db")) {
				t.Errorf("epoch %d changed the journal", c.epoch)
			}
			continue
		}
		if err := r.Demote(t.Context(), withEpoch(c.epoch)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.o.Journal.Close(); err != nil {
		t.Fatal(err)
	}
	again := runner(t, path, Options{}, th.resource())
	if err := again.Run(t.Context(), BeforeUp, withEpoch(7)); !Refused(err) {
		t.Errorf("after a restart: %v", err)
	}
	if st := again.Status()[0]; st.Epoch != 8 {
		t.Errorf("the status says epoch %d, want 8", st.Epoch)
	}
}

// Without a journal nothing is promoted, at whichever record the disk fills up; what is
// promoted is demoted, and waits for the disk once.
func TestFullDiskRefusesPromotionAndLetsGoAllTheSame(t *testing.T) {
	for after := range 20 {
		th := newThing("db")
		r := runner(t, filepath.Join(t.TempDir(), "journal"), Options{}, th.resource())
		good := r.o.Journal.file
		d := &filling{disk: good, room: after}
		r.o.Journal.file = d
		promoted := r.Run(t.Context(), BeforeUp, withEpoch(1))
		if full := d.room < 0; promoted == nil && full && d.missed > 1 {
			t.Errorf("promoted with %d records missing", d.missed)
		}
		began := r.o.Journal.Past("db").Promoted
		if !began && th.world.written() != "" {
			t.Error("something was done, and the journal does not say that it began")
		}
		d.room = -1
		switch err := r.Demote(t.Context(), withEpoch(1)); {
		case err == nil:
			mustBe(t, RoleDemoted, th)
		case recallable(r):
			t.Errorf("after %d records: %v", after, err)
		}
		if w := r.Status()[0]; w.Wished != RoleDemoted || !w.Apart.IsZero() {
			t.Errorf("after %d records: it should be %v, and is apart since %v", after, w.Wished, w.Apart)
		}
		r.o.Journal.file = good
		if err := r.Demote(t.Context(), withEpoch(1)); err != nil || r.o.Journal.Past("db").Promoted {
			t.Errorf("after %d records, with room again: %v", after, err)
		}
	}
}

// recallable reports whether what a promotion destroyed was remembered.
func recallable(r *Runner) bool { return r.o.Journal.recall("db", "source") != "" }

// filling is a disk with room for some more records.
type filling struct {
	disk
	room, missed int
}

func (f *filling) WriteAt(b []byte, at int64) (int, error) {
	if f.room--; f.room < 0 {
		f.missed++
		return 0, errors.New("no space left on device")
	}
	return f.disk.WriteAt(b, at)
}

func TestHangingDiskDelaysADemotionOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		th := newThing("db")
		r := runner(t, path, Options{}, th.resource())
		if err := r.Run(t.Context(), BeforeUp, withEpoch(1)); err != nil {
			t.Fatal(err)
		}
		free := make(chan struct{})
		r.o.Journal.file = hanging{r.o.Journal.file, free}
		start := time.Now()
		if err := r.Demote(t.Context(), withEpoch(1)); err != nil || time.Since(start) > journalTime {
			t.Errorf("demoted in %v: %v", time.Since(start), err)
		}
		mustBe(t, RoleDemoted, th)
		start = time.Now()
		if err := r.Run(t.Context(), BeforeUp, withEpoch(2)); !errors.Is(err, errLate) {
			t.Errorf("promoted without a journal in %v: %v", time.Since(start), err)
		}
		mustBe(t, RoleDemoted, th)
		close(free)
		synctest.Wait()
		if err := errors.Join(r.Run(t.Context(), BeforeUp, withEpoch(3)), r.Demote(t.Context(), withEpoch(3))); err != nil {
			t.Error(err)
		}
	})
}

// Wherever in the plan a newer transition comes, the running call ends before its opposite
// begins, and that finds its way from there.
func TestOppositeTransitionAtEachStep(t *testing.T) {
	ups, downs := []string{"fence", "reset", "open", "serve"}, []string{"stop", "close", "rejoin", "unfence"}
	for i, step := range slices.Concat(ups, downs) {
		for _, slow := range []time.Duration{0, 3 * time.Second, 12 * time.Second} { // how long it ignores that
			t.Run(fmt.Sprint(step, " ", slow), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "journal")
				synctest.Test(t, func(t *testing.T) {
					th := newThing("db")
					r := runner(t, path, Options{}, th.resource())
					if i >= len(ups) {
						if err := r.Run(t.Context(), BeforeUp, withEpoch(1)); err != nil {
							t.Fatal(err)
						}
					}
					reached := make(chan struct{})
					hung := false
					th.step = func(ctx context.Context, _, at string) error {
						if at != step || hung {
							return nil
						}
						hung = true
						close(reached)
						<-ctx.Done()
						late := time.NewTimer(slow)
						<-late.C
						return nil // and takes the step all the same
					}
					ctx, cancel := context.WithCancel(t.Context())
					ended := make(chan error)
					go func() {
						if i < len(ups) {
							ended <- r.Run(ctx, BeforeUp, withEpoch(1))
						} else {
							ended <- r.Demote(ctx, withEpoch(1))
						}
					}()
					<-reached
					cancel()
					opposite := make(chan error)
					go func() { // at once: it waits for its turn
						if i < len(ups) {
							opposite <- r.Demote(t.Context(), withEpoch(1))
						} else {
							opposite <- r.Run(t.Context(), BeforeUp, withEpoch(2))
						}
					}()
					var failed *StepError
					if err := <-ended; !errors.Is(err, context.Canceled) || errors.As(err, &failed) {
						t.Errorf("the cancelled call returned %v", err)
					}
					if err := <-opposite; err != nil {
						t.Error(err)
					}
					mustBe(t, map[bool]Role{true: RoleDemoted, false: RolePromoted}[i < len(ups)], th)
					past := r.o.Journal.Past("db")
					if past.Promoted != (i >= len(ups)) || past.Unfinished {
						t.Errorf("the journal knows %+v", past)
					}
				})
			})
		}
	}
}

// A cancelled demotion that claims to be done was not looked at: it is not believed.
func TestCancelledDemotionIsNotBelieved(t *testing.T) {
	th := newThing("db")
	r := runner(t, filepath.Join(t.TempDir(), "journal"), Options{}, th.resource())
	if err := r.Run(t.Context(), BeforeUp, withEpoch(1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	th.step = func(_ context.Context, _, step string) error {
		if step == "unfence" {
			cancel()
			return errLie
		}
		return nil
	}
	if err := r.Demote(ctx, withEpoch(1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if p := r.o.Journal.Past("db"); !p.Promoted || p.Last.State != Cancelled {
		t.Errorf("the journal knows %+v, want that it may be promoted", p)
	}
	th.step = nil
	if err := r.Demote(t.Context(), withEpoch(1)); err != nil {
		t.Error(err)
	}
	mustBe(t, RoleDemoted, th)
}

// A call that hangs for good is left behind. No other call of that resource begins while
// it lives, of this Runner or of the one after a reload.
func TestCallThatIsLeftBehindKeepsAllOthersOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		th := newThing("db")
		free := make(chan struct{})
		th.step = func(_ context.Context, call, step string) error {
			if call == "promote" && step == "open" {
				<-free
			}
			return nil
		}
		s := th.resource()
		r := runner(t, path, Options{}, s)
		start := time.Now()
		err := r.Run(t.Context(), BeforeUp, withEpoch(1))
		if want := s.Timeout + CancelGrace; err == nil || time.Since(start) != want {
			t.Errorf("in %v, want %v: %v", time.Since(start), want, err)
		}
		again := runner(t, path, Options{Journal: r.o.Journal}, s)
		for _, r := range []*Runner{r, again} {
			start = time.Now()
			if err := r.Demote(t.Context(), withEpoch(1)); !errors.Is(err, errLeftBehind) || time.Since(start) > s.Release {
				t.Errorf("in %v: %v", time.Since(start), err)
			}
			if err := r.Settle(t.Context(), withEpoch(1)); !errors.Is(err, errLeftBehind) {
				t.Error(err)
			}
		}
		if !strings.Contains(th.world.String(), "serves false") || r.Status()[0].Blind == "" {
			t.Errorf("%v; %+v", th.world, r.Status()[0])
		}
		time.AfterFunc(10*time.Second, func() { close(free) }) // a demotion waits for that
		if err := again.Demote(t.Context(), withEpoch(1)); err != nil {
			t.Error(err)
		}
		mustBe(t, RoleDemoted, th)
	})
}

// Settle leaves everything demoted, whatever there is and whatever the journal knows.
func TestSettleDemotesWhateverIsThere(t *testing.T) {
	for bits := range 16 {
		for _, promoted := range []bool{false, true} {
			th := newThing("db")
			r := runner(t, filepath.Join(t.TempDir(), "journal"), Options{}, th.resource())
			addAll(t, r.o.Journal, Entry{Resource: "db", State: Remembered, Key: "source", Value: origin})
			if promoted {
				addAll(t, r.o.Journal, Entry{Resource: "db", Action: Promotion, State: Done, Epoch: 4})
			}
			w := th.world
			w.fenced, w.opened, w.serves = bits&1 != 0, bits&2 != 0, bits&4 != 0
			if bits&8 != 0 {
				w.source = ""
			}
			if err := r.Settle(t.Context(), withEpoch(0)); err != nil {
				t.Fatal(err)
			}
			mustBe(t, RoleDemoted, th)
			if p := r.o.Journal.Past("db"); p.Promoted || p.Unfinished {
				t.Errorf("the journal knows %+v", p)
			}
			if st := r.Status()[0]; st.Wished != RoleDemoted || !st.Apart.IsZero() {
				t.Errorf("the status says %+v", st)
			}
		}
	}
}

func TestSettleFailsUntilAllIsDemotedAndEndsWithItsContext(t *testing.T) {
	a, b := newThing("a"), newThing("b")
	a.look = func(context.Context) (Report, error) { return Report{}, errors.New("no answer") }
	r := runner(t, filepath.Join(t.TempDir(), "journal"), Options{}, a.resource(), b.resource())
	for range 3 {
		if err := r.Settle(t.Context(), withEpoch(0)); err == nil || !strings.Contains(err.Error(), "a (thing)") || strings.Contains(err.Error(), "b (thing)") {
			t.Errorf("got %v, want that a is not settled", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Settle(ctx, withEpoch(0)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	a.look = nil
	if err := r.Settle(t.Context(), withEpoch(0)); err != nil {
		t.Error(err)
	}
}

// What a journal said that cannot be read is not known: until an operator has looked,
// nothing is touched, and then whatever is there is let go.
func TestSettleTouchesNothingUntilTheJournalCanBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	write(t, path, []byte("this is no record\nnor is this\n"))
	j, th := NewJournal(path, "boot-1"), newThing("db")
	defer j.Close()
	th.world.fenced, th.world.opened, th.world.source = true, true, ""
	r, err := NewRunner([]Step{th.resource()}, Options{Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Settle(t.Context(), withEpoch(0)); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move the file away") {
			t.Errorf("got %v, want the name of the file and what to do", err)
		}
		if err := r.Run(t.Context(), BeforeUp, withEpoch(9)); err == nil {
			t.Error("it was promoted without a journal")
		}
		if err := r.Demote(t.Context(), withEpoch(9)); err != nil || len(th.world.diary) > 0 {
			t.Fatalf("%v, and %v was done", err, th.world.diary)
		}
	}
	if err := os.Rename(path, path+".damaged"); err != nil {
		t.Fatal(err)
	}
	addAll(t, openJournal(t, path+".before"), Entry{Resource: "db", State: Remembered, Key: "source", Value: origin},
		Entry{Resource: "db", Action: Promotion, State: Done, Epoch: 7})
	write(t, path, read(t, path+".before"))
	if err := r.Settle(t.Context(), withEpoch(0)); err != nil {
		t.Fatal(err)
	}
	mustBe(t, RoleDemoted, th)
	if st := r.Status()[0]; st.Epoch != 7 {
		t.Errorf("the status says %+v", st)
	}
}
