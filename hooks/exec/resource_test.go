package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
)

// agent promotes in two steps and says what is in between.
const agent = `
case $1 in
promote) : >opened; : >mounted ;;
demote) rm -f mounted; rm -f opened ;;
monitor)
	[ -e opened ] || { echo closed; exit 7; }
	[ -e mounted ] || { echo opened, not mounted; exit 1; }
	echo mounted; exit 8 ;;
esac`

func ofAgent(path string) ResourceConfig {
	return ResourceConfig{
		Promote: []string{path, "promote"}, Demote: []string{path, "demote"}, Monitor: []string{path, "monitor"},
	}
}

func openResource(t testing.TB, c ResourceConfig) hooks.Resource {
	t.Helper()
	r, err := NewResource(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResourceKeepsTheContract(t *testing.T) {
	path := hookstest.Script(t, agent)
	hookstest.Resources(t, hookstest.World{
		Open: func() hooks.Resource { return openResource(t, ofAgent(path)) },
		Reset: func(t testing.TB) {
			for _, name := range []string{"opened", "mounted"} {
				if err := os.Remove(filepath.Join(filepath.Dir(path), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
		},
		Check: func(role hooks.Role) error {
			_, err := os.Stat(filepath.Join(filepath.Dir(path), "opened"))
			if there := err == nil; there != (role == hooks.RolePromoted) {
				return fmt.Errorf("opened: %v", there)
			}
			return nil
		},
	})
}

func TestExitCodesOfAResource(t *testing.T) {
	for _, tc := range []struct {
		code    int
		tries   int
		refused bool
		hint    string
	}{
		{code: 75, tries: 2}, // and then it works
		{code: 78, tries: 1, refused: true, hint: "exit code 78"},
		{code: 77, tries: 1, hint: "it has not the rights"},
		{code: 124, tries: 1, hint: "a time limit within it was reached"},
		{code: 137, tries: 1, hint: "was killed"},
		{code: 1, tries: 1, hint: "exit code 1"},
		{code: 7, tries: 1, hint: "exit code 7"},
		{code: 8, tries: 1, hint: "exit code 8"},
	} {
		path := hookstest.Script(t, `
case $1 in
promote) echo x >>tries; [ $(wc -l <tries) -ge 2 ] || exit $2 ;;
monitor) [ -e tries ] && [ $(wc -l <tries) -ge 2 ] && exit 8; exit 7 ;;
esac`)
		c := ofAgent(path)
		c.Promote = append(c.Promote, fmt.Sprint(tc.code))
		err := promote(t, openResource(t, c))
		if (err == nil) != (tc.hint == "") || hooks.Refused(err) != tc.refused || !contains(err, tc.hint) {
			t.Errorf("code %d: %v", tc.code, err)
		}
		if got := strings.Count(hookstest.Read(t, path, "tries"), "x"); got != tc.tries {
			t.Errorf("code %d: tried %d times, want %d", tc.code, got, tc.tries)
		}
	}
}

func contains(err error, hint string) bool {
	return hint == "" || err != nil && strings.Contains(err.Error(), hint)
}

// promote has a runner do it, which tries again what asks for that.
func promote(t *testing.T, r hooks.Resource) error {
	t.Helper()
	j, err := hooks.OpenJournal(filepath.Join(t.TempDir(), "journal"), "boot")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	runner, err := hooks.NewRunner([]hooks.Step{{Name: "r", Kind: "exec", Timeout: time.Minute, Resource: r}}, hooks.Options{Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	return runner.Run(t.Context(), hooks.BeforeUp, hookstest.SampleEvent(hooks.BeforeUp))
}

func TestWhatTheProgramThatLooksMeans(t *testing.T) {
	const unknown, down, up = hooks.RoleUnknown, hooks.RoleDemoted, hooks.RolePromoted
	for _, tc := range []struct {
		code            int
		promotable      hooks.Report
		service         hooks.Report
		noAnswerAtAll   bool
		plain, nagios   hooks.Health
		nagiosNoIdeaYet bool
	}{
		{code: 0, promotable: hooks.Report{Role: down}, service: hooks.Report{Role: up}},
		{code: 1, promotable: unfit(unknown), service: unfit(unknown), plain: hooks.Unfit, nagios: hooks.Degraded},
		{code: 2, promotable: unfit(unknown), service: unfit(unknown), plain: hooks.Unfit, nagios: hooks.Unfit},
		{code: 3, promotable: unfit(unknown), service: hooks.Report{Role: down}, plain: hooks.Unfit, nagiosNoIdeaYet: true},
		{code: 7, promotable: hooks.Report{Role: down}, service: hooks.Report{Role: down}, plain: hooks.Unfit, nagiosNoIdeaYet: true},
		{code: 8, promotable: hooks.Report{Role: up}, service: unfit(unknown), plain: hooks.Unfit, nagiosNoIdeaYet: true},
		{code: 9, promotable: unfit(up), service: unfit(unknown), plain: hooks.Unfit, nagiosNoIdeaYet: true},
		{code: 75, promotable: hooks.Report{Health: hooks.Degraded}, service: hooks.Report{Health: hooks.Degraded}, plain: hooks.Unfit, nagiosNoIdeaYet: true},
		{code: 190, promotable: hooks.Report{Role: down, Health: hooks.Degraded}, service: hooks.Report{Role: up, Health: hooks.Degraded}, plain: hooks.Degraded, nagiosNoIdeaYet: true},
		{code: 191, promotable: hooks.Report{Role: up, Health: hooks.Degraded}, service: unfit(unknown), plain: hooks.Unfit, nagiosNoIdeaYet: true},
		{code: 77, noAnswerAtAll: true},
		{code: 124, noAnswerAtAll: true},
		{code: 137, noAnswerAtAll: true},
	} {
		look := hookstest.Script(t, fmt.Sprintf("echo; echo '  a line\x1b[1m'; echo more; exit %d", tc.code))
		for codes, want := range map[Codes]hooks.Report{Promotable: tc.promotable, "": tc.promotable, Service: tc.service} {
			c := ofAgent(look)
			c.Codes = codes
			says(t, fmt.Sprintf("%s %d", codes, tc.code), openResource(t, c), want, tc.noAnswerAtAll)
		}
		for codes, want := range map[Codes]hooks.Health{Plain: tc.plain, "": tc.plain, Nagios: tc.nagios} {
			m, err := NewMonitor(MonitorConfig{Command: []string{look}, Codes: codes})
			if err != nil {
				t.Fatal(err)
			}
			says(t, fmt.Sprintf("%s %d", codes, tc.code), m, hooks.Report{Health: want}, tc.noAnswerAtAll || codes == Nagios && tc.nagiosNoIdeaYet)
		}
	}
}

func unfit(role hooks.Role) hooks.Report { return hooks.Report{Role: role, Health: hooks.Unfit} }

func says(t *testing.T, what string, m hooks.Monitor, want hooks.Report, none bool) {
	t.Helper()
	want.Text = "a line[1m"
	switch got, err := m.Monitor(t.Context()); {
	case none && err == nil:
		t.Errorf("%s: says %+v, and should say that it does not know", what, got)
	case !none && (err != nil || got != want):
		t.Errorf("%s: says %+v, %v, want %+v", what, got, err, want)
	}
}

func TestMonitorThatHangsHasNoAnswerAndLeavesNothing(t *testing.T) {
	path := hookstest.Script(t, "echo $$ >self; exec sleep 100")
	m, err := NewMonitor(MonitorConfig{Command: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		got, err := m.Monitor(ctx)
		if err != nil && got.Health != hooks.Unfit {
			err = fmt.Errorf("says %+v", got)
		}
		done <- err
	}()
	hookstest.Within(t, "the program to run", func() bool {
		b, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "self"))
		return strings.HasSuffix(string(b), "\n")
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	pid := strings.TrimSpace(hookstest.Read(t, path, "self"))
	if _, err := os.Stat("/proc/" + pid); err == nil {
		t.Error("the program lives")
	}
}

func TestFailureWithoutAnAnswerShowsTheErrorsOfTheProgram(t *testing.T) {
	m, err := NewMonitor(MonitorConfig{Command: []string{hookstest.Script(t, "echo no such table >&2; exit 1")}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Monitor(t.Context()); err != nil || got.Text != "exit code 1, last output: no such table" {
		t.Errorf("says %+v, %v", got, err)
	}
}

func TestProgramThatOnlySaysThatItIsDoneIsNotBelieved(t *testing.T) {
	look := hookstest.Script(t, "echo is stopped; exit 7")
	r := openResource(t, ResourceConfig{Promote: []string{"/bin/true"}, Demote: []string{"/bin/true"}, Monitor: []string{look}})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err := r.Promote(ctx, hookstest.SampleEvent(hooks.BeforeUp))
	if !errors.Is(err, context.DeadlineExceeded) || !contains(err, "says demoted, not promoted: is stopped") {
		t.Errorf("got %v", err)
	}
}

func TestWhatTakesLongerThanItsProgramIsWaitedFor(t *testing.T) {
	path := hookstest.Script(t, `
case $1 in
promote) : >begun ;;
monitor) [ -e begun ] || exit 7; echo x >>looks; [ $(wc -l <looks) -ge 3 ] || exit 75; exit 8 ;;
esac`)
	if err := openResource(t, ofAgent(path)).Promote(t.Context(), hookstest.SampleEvent(hooks.BeforeUp)); err != nil {
		t.Error(err)
	}
}

func TestProgramsOfAResourceGetTheEventAndWhatIsAskedOfThem(t *testing.T) {
	path := hookstest.Script(t, `echo "$CARP_ACTION $CARP_EPOCH $CARP_REASON" >>asked; cat >>input
[ "$CARP_ACTION" = monitor ] && { [ -e input ] && grep -q epoch input && exit 8; exit 7; }; exit 0`)
	r := openResource(t, ofAgent(path))
	if err := r.Promote(t.Context(), hookstest.SampleEvent(hooks.BeforeUp)); err != nil {
		t.Fatal(err)
	}
	if got, want := hookstest.Read(t, path, "asked"), "monitor  \npromote 41 master-timed-out\nmonitor  \n"; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
	if got := hookstest.Read(t, path, "input"); !strings.Contains(got, `"epoch":41`) {
		t.Errorf("input %q", got)
	}
}

func TestResourceAndMonitorThatCannotWorkAreRefusedWithAllTheirFaults(t *testing.T) {
	_, err := NewResource(ResourceConfig{Promote: []string{"up"}, Monitor: []string{"/no/such"}, Codes: "lsb", User: "no-such-user-here"})
	for _, want := range []string{`promote: "up" is no absolute path`, "demote: required", "monitor: command: check /no/such", `codes "lsb": unknown: use promotable or service`, "no such user"} {
		if !contains(err, want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	_, err = NewMonitor(MonitorConfig{Codes: "lsb"})
	for _, want := range []string{"command: required", "use plain or nagios"} {
		if !contains(err, want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}
