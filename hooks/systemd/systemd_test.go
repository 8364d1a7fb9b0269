package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
)

const web = "web.service"

// of returns a hook and a resource of the stand-in.
func (s *standIn) of(t testing.TB, a Action) (hook, *resource) {
	t.Helper()
	m, err := machine{booted: true, address: s.address}.choose("web", Auto, Programs{}, a)
	if err != nil {
		t.Fatal(err)
	}
	return hook{m, a}, &resource{manager: m, unit: web}
}

func event() hooks.Event { return hookstest.SampleEvent(hooks.AfterUp) }

func TestConformance(t *testing.T) {
	s := newStandIn(t)
	s.set(web, unit{active: "inactive"})
	hookstest.Conformance(t, func() hooks.Hook {
		h, _ := s.of(t, Restart)
		return h
	})
}

func TestResourceKeepsTheContract(t *testing.T) {
	s := newStandIn(t)
	hookstest.Resources(t, hookstest.World{
		Open: func() hooks.Resource {
			_, r := s.of(t, Start)
			return r
		},
		Reset: func(testing.TB) { s.set(web, unit{active: "inactive", takes: 10 * time.Millisecond}) },
		Check: func(role hooks.Role) error {
			if got := s.get(web).active; (got == "active") != (role == hooks.RolePromoted) {
				return errors.New(got)
			}
			return nil
		},
	})
}

func TestActionIsOverWhenItsJobIs(t *testing.T) {
	s := newStandIn(t)
	for _, a := range actions() {
		s.set(web, unit{active: "inactive", takes: 200 * time.Millisecond})
		h, _ := s.of(t, a)
		began := time.Now()
		if err := h.Run(t.Context(), event()); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		if took := time.Since(began); took < 200*time.Millisecond {
			t.Errorf("%s: was over after %v, before its job", a, took)
		}
		if said := s.said(); !slices.Equal(said, []string{string(a) + " " + web}) {
			t.Errorf("%s: asked for %v", a, said)
		}
	}
}

func TestJobThatEndsOtherwiseIsAFailureThatSaysWhereToLook(t *testing.T) {
	s := newStandIn(t)
	for _, result := range []string{"failed", "timeout", "dependency", "canceled", "skipped"} {
		s.set(web, unit{active: "inactive", ends: result})
		h, _ := s.of(t, Start)
		err := h.Run(t.Context(), event())
		if err == nil || result != "canceled" && !strings.Contains(err.Error(), "journalctl -u web.service") {
			t.Errorf("%s: %v", result, err)
		}
	}
}

func TestUnitThatDoesNotLiveThoughItsJobIsDoneIsAFailure(t *testing.T) {
	s := newStandIn(t)
	for _, becomes := range []string{"failed", "inactive"} {
		s.set(web, unit{active: "inactive", becomes: becomes})
		h, r := s.of(t, Start)
		if err := r.Promote(t.Context(), event()); err == nil || !strings.Contains(err.Error(), becomes) {
			t.Errorf("becomes %s: promoted, %v", becomes, err)
		}
		s.set(web, unit{active: "inactive", becomes: becomes})
		// A notification may start what runs once and ends; it must not have failed.
		if err := h.Run(t.Context(), event()); (err == nil) != (becomes == "inactive") {
			t.Errorf("becomes %s: started, %v", becomes, err)
		}
	}
}

func TestUnitThatFailedTooOftenIsResetBeforeItIsStarted(t *testing.T) {
	s := newStandIn(t)
	s.set(web, unit{active: "failed", limited: true})
	_, r := s.of(t, Start)
	if err := r.Promote(t.Context(), event()); err != nil {
		t.Error(err)
	}
	if said := s.said(); !slices.Equal(said, []string{"reset " + web, "start " + web}) {
		t.Errorf("asked for %v", said)
	}
}

func TestUnitThatIsNotThereIsRefusedAndCountsAsStopped(t *testing.T) {
	s := newStandIn(t)
	for _, load := range []string{"not-found", "masked"} {
		s.set(web, unit{load: load, active: "inactive"})
		h, r := s.of(t, Start)
		if err := r.Promote(t.Context(), event()); !hooks.Refused(err) || !strings.Contains(err.Error(), "install or unmask") {
			t.Errorf("%s: promotion says %v", load, err)
		}
		if err := h.Run(t.Context(), event()); !hooks.Refused(err) {
			t.Errorf("%s: start says %v", load, err)
		}
		if err := r.Demote(t.Context(), event()); err != nil {
			t.Errorf("%s: demotion says %v", load, err)
		}
		if report, err := r.Monitor(t.Context()); err != nil || report.Role != hooks.RoleDemoted || report.Health != hooks.Unfit {
			t.Errorf("%s: monitor says %+v, %v", load, report, err)
		}
	}
}

func TestCancelledStartTakesItsJobBackAndACancelledStopGoesOn(t *testing.T) {
	s := newStandIn(t)
	for _, a := range []Action{Start, Stop} {
		s.set(web, unit{active: map[Action]string{Start: "inactive", Stop: "active"}[a], takes: time.Second})
		h, _ := s.of(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx, event()) }()
		hookstest.Within(t, "the job", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.jobs) > 0
		})
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", a, err)
		}
		if said := s.said(); slices.Contains(said, "cancel") != (a == Start) {
			t.Errorf("%s: asked for %v", a, said)
		}
		if a == Stop {
			hookstest.Within(t, "the stop to go on", func() bool { return s.get(web).active == "inactive" })
		}
	}
}

func TestBusThatGoesAwayWhileAJobRunsIsAnError(t *testing.T) {
	s := newStandIn(t)
	s.set(web, unit{active: "inactive", takes: time.Minute})
	h, r := s.of(t, Start)
	done := make(chan error, 1)
	go func() { done <- h.Run(t.Context(), event()) }()
	hookstest.Within(t, "the job", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.jobs) > 0
	})
	s.stop()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "the bus is gone") {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for ever")
	}
	if report, err := r.Monitor(t.Context()); err == nil {
		t.Errorf("without a bus it says %+v", report)
	}
}

func TestPromotedUnitThatFailsMakesItsNodeUnfitAndOneThatFailedBeforeDegrades(t *testing.T) {
	s := newStandIn(t)
	s.set(web, unit{active: "failed", result: "exit-code"})
	_, r := s.of(t, Start)
	sees := func(role hooks.Role, health hooks.Health, text string) {
		t.Helper()
		got, err := r.Monitor(t.Context())
		if want := (hooks.Report{Role: role, Health: health, Text: text}); err != nil || got != want {
			t.Errorf("says %+v, %v; want %+v", got, err, want)
		}
	}
	sees(hooks.RoleDemoted, hooks.Degraded, "failed, result exit-code")
	if err := r.Promote(t.Context(), event()); err != nil {
		t.Fatal(err)
	}
	sees(hooks.RolePromoted, hooks.Healthy, "active (running)")
	s.set(web, unit{active: "failed", result: "signal"})
	sees(hooks.RoleDemoted, hooks.Unfit, "failed, result signal")
	if err := r.Demote(t.Context(), event()); err != nil {
		t.Fatal(err)
	}
	sees(hooks.RoleDemoted, hooks.Healthy, "inactive (dead), result signal")
}

func TestWhatAStateMeans(t *testing.T) {
	const unknown, down, up = hooks.RoleUnknown, hooks.RoleDemoted, hooks.RolePromoted
	for _, tc := range []struct {
		s      state
		role   hooks.Role
		health hooks.Health
	}{
		{state{active: "active"}, up, hooks.Healthy},
		{state{load: "loaded", active: "active", sub: "exited"}, up, hooks.Healthy},
		{state{active: "reloading"}, up, hooks.Healthy},
		{state{active: "refreshing"}, up, hooks.Healthy},
		{state{active: "inactive"}, down, hooks.Healthy},
		{state{active: "failed"}, down, hooks.Degraded},
		{state{active: "activating", sub: "start-pre"}, unknown, hooks.Degraded},
		{state{active: "activating", sub: "auto-restart"}, unknown, hooks.Unfit},
		{state{active: "deactivating"}, unknown, hooks.Degraded},
		{state{active: "maintenance"}, unknown, hooks.Unfit},
		{state{load: "masked", active: "inactive"}, down, hooks.Unfit},
		{state{load: "not-found", active: "inactive"}, down, hooks.Unfit},
	} {
		if got := tc.s.report(false); got.Role != tc.role || got.Health != tc.health {
			t.Errorf("%+v: %+v", tc.s, got)
		}
	}
	if got := (state{active: "inactive", file: "enabled"}).report(false); !strings.Contains(got.Text, "systemctl disable") {
		t.Errorf("a unit that is started at boot: %+v", got)
	}
}

// daemonScript is a service without systemd: a process with a file that says its number.
// Where process 1 does not reap, a dead one stays a zombie.
const daemonScript = `
running() { [ -e pid ] && [ -e "/proc/$(cat pid)" ] && [ "$(cut -d' ' -f3 "/proc/$(cat pid)/stat")" != Z ]; }
[ "$1" = web ] && shift
case $1 in
start) running || { setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >pid; } ;;
stop) running && kill "$(cat pid)"; n=0; while running && [ $n -lt 100 ]; do sleep 0.05; n=$((n+1)); done; rm -f pid ;;
reload) running && echo reloaded >>log ;;
restart) "$0" stop && "$0" start ;;
status) running && exit 0; [ -e pid ] && exit 1; exit 3 ;;
missing) exit 5 ;;
esac`

func endDaemon(t testing.TB, script string) {
	t.Helper()
	_ = os.Remove(filepath.Join(filepath.Dir(script), "log"))
	m := ofService(script, "web")
	if err := m.do(context.Background(), Stop); err != nil {
		t.Error(err)
	}
}

func TestWithoutSystemdTheScriptsOfTheServiceKeepTheContract(t *testing.T) {
	script := hookstest.Script(t, daemonScript)
	t.Cleanup(func() { endDaemon(t, script) })
	for name, choose := range map[string]func() (manager, error){
		"sysv": func() (manager, error) {
			m := machine{service: script, script: func(name string) bool { return name == "web" }}
			return m.choose("web.service", Auto, Programs{}, Start, Stop)
		},
		"commands": func() (manager, error) {
			one := func(a string) []string { return []string{script, a} }
			return machine{script: func(string) bool { return false }}.choose("web", Auto,
				Programs{Start: one("start"), Stop: one("stop"), Status: one("status")}, Start, Stop)
		},
	} {
		t.Run(name, func(t *testing.T) {
			hookstest.Resources(t, hookstest.World{
				Open: func() hooks.Resource {
					m, err := choose()
					if err != nil {
						t.Fatal(err)
					}
					return &resource{manager: m, unit: "web"}
				},
				Reset: func(t testing.TB) { endDaemon(t, script) },
			})
		})
	}
}

func TestProgramsDoEachActionOrSayThatTheyCannot(t *testing.T) {
	p := programs{name: "web", argv: map[Action][]string{Start: {"start"}, Stop: {"stop"}}}
	full := ofService("service", "web")
	for _, tc := range []struct {
		p       programs
		a       Action
		running bool
		want    string
	}{
		{p, Start, false, "[[start]]"},
		{p, Restart, true, "[[stop] [start]]"},
		{p, TryRestart, true, "[[stop] [start]]"},
		{p, TryRestart, false, "[]"},
		{p, ReloadOrRestart, true, "[[stop] [start]]"},
		{p, Reload, true, "there is no program for that"},
		{full, ReloadOrRestart, true, "[[service web reload]]"},
		{full, ReloadOrRestart, false, "[[service web restart]]"},
		{full, TryRestart, true, "[[service web restart]]"},
		{full, Reload, true, "[[service web reload]]"},
	} {
		now := state{active: "inactive"}
		if tc.running {
			now.active = "active"
		}
		got, err := tc.p.steps(tc.a, now)
		if said := fmt.Sprint(got); said != tc.want && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s of %s, running %v: %s, %v; want %s", tc.a, tc.p.name, tc.running, said, err, tc.want)
		}
	}
}

func TestStatusScriptSaysWhatTheStandardBaseHas(t *testing.T) {
	for code, want := range map[int]string{0: "active", 1: "failed", 2: "failed", 3: "inactive", 7: "inactive", 4: "", 77: ""} {
		p := programs{status: []string{hookstest.Script(t, fmt.Sprintf("exit %d", code))}}
		if s, err := p.state(t.Context()); s.active != want || (err == nil) != (want != "") {
			t.Errorf("exit %d: %+v, %v", code, s, err)
		}
	}
	missing := programs{argv: map[Action][]string{Start: {hookstest.Script(t, daemonScript), "missing"}}}
	if err := missing.do(t.Context(), Start); !hooks.Refused(err) {
		t.Errorf("a program that is not installed: %v", err)
	}
}

func TestManagerIsTheOneThatTheMachineHas(t *testing.T) {
	with := func(booted bool, script bool) machine {
		m := machine{booted: booted, script: func(string) bool { return script }}
		if script {
			m.service = "/bin/true"
		}
		return m
	}
	given := Programs{Start: []string{"/bin/true"}, Stop: []string{"/bin/true"}, Status: []string{"/bin/true"}}
	for _, tc := range []struct {
		m     machine
		which Manager
		given Programs
		want  string
	}{
		{with(true, true), Auto, given, "systemd.bus"},
		{with(false, true), "", given, "systemd.programs"},
		{with(false, false), "", given, "systemd.programs"},
		{with(false, false), "", Programs{}, "not booted with systemd"},
		{with(false, false), Systemd, Programs{}, "systemd.bus"},
		{with(true, false), SysV, Programs{}, "there is no program service"},
		{with(true, false), Commands, Programs{Start: []string{"x"}}, "no absolute path"},
		{with(true, false), Commands, Programs{Status: []string{"/bin/true"}}, "commands: none for start"},
		{with(true, false), Commands, Programs{}, "commands: status is missing"},
		{with(true, false), "openrc", Programs{}, "use auto, systemd, sysv or commands"},
	} {
		m, err := tc.m.choose("web", tc.which, tc.given, Start, Stop)
		if said := fmt.Sprintf("%T", m); err != nil && !strings.Contains(err.Error(), tc.want) || err == nil && said != tc.want {
			t.Errorf("%s: %s, %v; want %s", tc.which, said, err, tc.want)
		}
	}
	for _, unit := range []string{"", "a/b", "-x", "a b", "..", strings.Repeat("x", 256)} {
		if err := checkUnit(unit); err == nil && unit != ".." {
			t.Errorf("unit %q is accepted", unit)
		}
	}
	if _, err := New(Config{Unit: "a b", Do: "begin"}); err == nil || !strings.Contains(err.Error(), "no name of a unit") || !strings.Contains(err.Error(), `do "begin"`) {
		t.Errorf("got %v", err)
	}
}
