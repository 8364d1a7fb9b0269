package sqlite_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/database"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/hooks/sqlite"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
)

func TestContractOfAResourceWithACrashBeforeEachStep(t *testing.T) {
	n := newNode(t)
	hookstest.Resources(t, hookstest.World{
		Open: n.open,
		Reset: func(t testing.TB) {
			n.end()
			for _, name := range []string{"app", "store", "pid"} {
				if err := os.RemoveAll(n.path(name)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(n.path("app"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, n.config.Database, "old")
			n.publish("other", v(7, 1), "new")
		},
		Check: func(role hooks.Role) error {
			value, err := read(n.config.Database)
			if promoted := role == hooks.RolePromoted; err != nil || promoted != (n.pid() > 0) || promoted && value != "new" {
				return fmt.Errorf("process %d, value %q, %w", n.pid(), value, err)
			}
			return nil
		},
	})
}

func TestTheNewestServesWhereverItIs(t *testing.T) {
	n := newNode(t)
	write(t, n.config.Database, "initial")
	r := n.open()
	n.publish("other", v(5, 1), "five")
	n.promote(r, 6, "five")
	// In service it is newer than all snapshots: nothing is put in its place.
	write(t, n.config.Database, "changed")
	n.publish("other", v(5, 2), "five-two")
	n.promote(r, 6, "changed")
	n.promote(r, 7, "changed")
	// Nor after a crash of the daemon: the mastership of this node is the later one.
	n.promote(n.open(), 8, "changed")
	n.demote(r)
	n.promote(r, 9, "changed")
	n.demote(r)
	// Snapshots of this node were taken of this database, which has gone on since.
	n.publish("here", replicator.Version{Epoch: 9, Node: 1, Sequence: 1}, "changed-before")
	n.promote(r, 10, "changed")
	n.demote(r)
	// Another node was master since.
	n.publish("other", v(11, 1), "eleven")
	n.promote(r, 12, "eleven")
	n.demote(r)
	// What is newer cannot be used: the newest snapshot serves.
	if err := os.WriteFile(n.config.Database, []byte("noise"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.serves(r, 13, "eleven", hooks.Degraded)
	n.demote(r)
	n.promote(r, 14, "eleven")
}

func TestAPromotionThatFailedIsNoMastership(t *testing.T) {
	n := newNode(t)
	n.config.Tries, n.config.StartTimeout = 1, 3*time.Second
	r := n.open()
	write(t, n.config.Database, "mine")
	n.promote(r, 3, "mine")
	n.demote(r)
	n.publish("other", v(5, 1), "bad")
	n.refuses(r, 6, "not ready")
	n.publish("other", v(5, 2), "good")
	n.promote(r, 7, "good")
}

func TestTheNextOlderSnapshotServesWhenOneDoesNot(t *testing.T) {
	n := newNode(t)
	n.config.StartTimeout = time.Second
	write(t, n.config.Database, "old")
	n.publish("other", v(5, 1), "good")
	n.publish("other", v(5, 2), "bad")
	r := n.open()
	n.serves(r, 6, "good", hooks.Degraded)
	n.demote(r)
	// That a program does not start need not be the fault of the snapshot.
	s, err := dir.Open(t.Context(), n.config.Store)
	if err != nil {
		t.Fatal(err)
	}
	if q, err := s.Quarantined(t.Context()); err != nil || len(q) > 0 {
		t.Errorf("%v, %v", q, err)
	}
	n.publish("other", v(7, 1), "bad")
	n.publish("other", v(7, 2), "bad")
	n.publish("other", v(7, 3), "bad")
	n.refuses(r, 8, "not ready")
}

func TestASnapshotThatNeverServedHereIsNoPresentDatabaseOfThisNode(t *testing.T) {
	n := newNode(t)
	n.config.StartTimeout = time.Second
	n.publish("other", v(5, 1), "mine")
	check := n.config.Check
	n.config.Check = n.script("never", "exit 1")
	n.refuses(n.open(), 6, "not ready")
	if err := os.RemoveAll(n.config.Store); err != nil {
		t.Fatal(err)
	}
	n.config.Check = check
	n.refuses(n.open(), 7, "no sound snapshot")
}

func TestSnapshotsOfAnotherNodeOfTheSameNameAreNotOfThisOne(t *testing.T) {
	n := newNode(t)
	write(t, n.config.Database, "mine")
	r := n.open()
	n.promote(r, 5, "mine")
	n.demote(r)
	n.publish("here", v(7, 1), "of-the-twin")
	n.promote(r, 8, "of-the-twin")
}

func TestASnapshotOfThisNodeOfALaterMastershipIsNewerThanItsDatabase(t *testing.T) {
	n := newNode(t)
	write(t, n.config.Database, "mine")
	r := n.open()
	n.promote(r, 5, "mine")
	n.demote(r)
	n.publish("here", replicator.Version{Epoch: 7, Node: 1, Sequence: 1}, "later") // of this node, and not in its state
	n.promote(r, 8, "later")
}

func TestADatabaseThatTheProgramMadeAnewIsNotWhatServed(t *testing.T) {
	n := newNode(t)
	write(t, n.config.Database, "mine")
	r := n.open()
	n.publish("other", v(3, 1), "snapshot")
	n.promote(r, 5, "snapshot")
	n.demote(r)
	write(t, n.path("fresh"), "factory") // beside it, so that the number of the file is another
	if err := os.Rename(n.path("fresh"), n.config.Database); err != nil {
		t.Fatal(err)
	}
	n.promote(r, 6, "snapshot")
}

func TestADatabaseThatWasEmptiedIsNotNewerThanItsSnapshot(t *testing.T) {
	n := newNode(t)
	r := n.open()
	n.publish("other", v(3, 1), "snapshot")
	n.promote(r, 5, "snapshot")
	n.demote(r)
	empty(t, n.config.Database)
	n.serves(r, 6, "snapshot", hooks.Degraded)
	if report, err := r.Monitor(t.Context()); err != nil || !strings.Contains(report.Text, "emptied") {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestAClockThatWasLostLosesNoChange(t *testing.T) {
	n := newNode(t)
	r := n.open()
	n.publish("other", v(100, 1), "snapshot")
	n.promote(r, 5, "snapshot")
	write(t, n.config.Database, "changed")
	n.end() // and the daemon, before a snapshot was taken
	n.promote(n.open(), 6, "changed")
}

func TestAMachineThatDoesNotLetTheProgramServeIsNoReasonForAnOlderDatabase(t *testing.T) {
	n := newNode(t)
	n.config.StartTimeout = 3 * time.Second
	n.publish("other", v(2, 1), "older")
	n.publish("other", v(2, 2), "old")
	r := n.open()
	n.promote(r, 5, "old")
	write(t, n.config.Database, "changed")
	n.demote(r)
	// It ends at once, the first time: its port is not free yet.
	start, err := os.ReadFile(n.config.Start[0])
	if err != nil {
		t.Fatal(err)
	}
	n.script("start", "[ ! -e $D/port-taken ] || { rm $D/port-taken; exit 0; }\n"+string(start))
	if err := os.WriteFile(n.path("port-taken"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.promote(r, 6, "changed")
	n.demote(r)
	// It runs and does not serve.
	check := n.config.Check
	n.config.Check = n.script("never", "exit 1")
	n.refuses(n.open(), 7, "not ready")
	n.config.Check = check
	n.promote(n.open(), 8, "changed")
}

func TestWithoutASnapshotThePolicyDecides(t *testing.T) {
	for _, c := range []struct {
		policy, present string
		served          bool // a snapshot was in service here
		want            string
	}{
		{database.First, "mine", false, "mine"},
		{"", "mine", false, "mine"},
		{"", "", false, "the present database is refused: missing"},
		{"", "noise", false, "the present database is refused: not-a-database"},
		{database.First, "mine", true, "theirs"}, // it was in service here last
		{database.Keep, "mine", true, "theirs"},
		{database.Keep, "noise", false, "the present database is refused"},
		{database.Retreat, "mine", false, "no sound snapshot"},
	} {
		t.Run(strings.Join([]string{c.policy, c.present, fmt.Sprint(c.served)}, "-"), func(t *testing.T) {
			n := newNode(t)
			n.config.IfNone = c.policy
			r := n.open()
			switch c.present {
			case "":
			case "noise":
				if err := os.WriteFile(n.config.Database, []byte("noise that is no database"), 0o600); err != nil {
					t.Fatal(err)
				}
			default:
				write(t, n.config.Database, c.present)
			}
			if c.served {
				n.publish("other", v(5, 1), "theirs")
				n.promote(r, 6, "theirs")
				n.demote(r)
				if err := os.RemoveAll(n.config.Store); err != nil {
					t.Fatal(err)
				}
				r = n.open()
			}
			report, err := r.Monitor(t.Context())
			if unfit := c.policy == database.Retreat || c.present == ""; err != nil || unfit != (report.Health == hooks.Unfit) {
				t.Errorf("before: %+v, %v", report, err)
			}
			if strings.Contains(c.want, " ") {
				n.refuses(r, 8, c.want)
			} else {
				n.promote(r, 8, c.want)
			}
		})
	}
}

func TestAStubbornApplicationIsKilledAndNobodyElse(t *testing.T) {
	n := newNode(t)
	n.config.StopTimeout = 200 * time.Millisecond
	write(t, n.config.Database, "stubborn")
	r := n.open()
	n.promote(r, 5, "stubborn")
	bystander := exec.CommandContext(t.Context(), "sleep", "60")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	n.demote(r)
	if err := bystander.Process.Kill(); err != nil {
		t.Error("a bystander was killed:", err)
	}
	_ = bystander.Wait() // killed
}

// TestAUnitIsStartedAndStoppedBySystemctl has a stand-in of systemctl that plays one unit by
// the scripts, and fails like systemd after a crash: until it is told to forget that.
func TestAUnitIsStartedAndStoppedBySystemctl(t *testing.T) {
	n := newNode(t)
	n.script("systemctl", `echo "$@" >>$D/calls
case "$1" in
show) if [ "$3" != app.service ]; then echo LoadState=not-found; elif $D/status; then echo LoadState=loaded; echo ActiveState=active; else echo ActiveState=failed; fi ;;
reset-failed) rm -f $D/failed ;;
start) [ ! -e $D/failed ] || exit 1; touch $D/wanted; while [ -e $D/wanted ]; do sleep 0.02; done ;;
stop) exec $D/stop ;;
kill) kill -9 "$(cat $D/pid)" ;;
esac`)
	// Who starts units is no child of systemctl.
	manager := exec.CommandContext(t.Context(), "/bin/sh", "-c", "while [ -d "+n.dir+" ]; do if [ -e "+n.path("wanted")+" ]; then "+n.path("start")+"; rm "+n.path("wanted")+"; fi; sleep 0.02; done")
	if err := manager.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = manager.Wait() }) // killed with the context of the test
	n.config.Start, n.config.Stop, n.config.Status = nil, nil, nil
	n.config.Unit, n.config.Path = "app.service", []string{n.dir}
	if err := os.WriteFile(n.path("failed"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, n.config.Database, "old")
	n.publish("other", v(5, 1), "new")
	r := n.open()
	n.promote(r, 6, "new")
	n.demote(r)
	n.config.StopTimeout = 200 * time.Millisecond
	n.publish("other", v(7, 1), "stubborn")
	r = n.open()
	n.promote(r, 8, "stubborn")
	n.demote(r)
	if calls, err := os.ReadFile(n.path("calls")); err != nil || !strings.Contains(string(calls), "kill --signal=SIGKILL --kill-whom=all app.service") {
		t.Errorf("%s, %v", calls, err)
	}
	n.config.Unit = "none.service"
	if err := n.open().Promote(t.Context(), n.event(9)); !hooks.Refused(err) || !strings.Contains(err.Error(), "does not know it") {
		t.Error(err)
	}
}

func TestWhatRunsOutOfServiceIsNeitherRole(t *testing.T) {
	n := newNode(t)
	write(t, n.config.Database, "old")
	n.publish("other", v(5, 1), "new")
	if out, err := exec.CommandContext(t.Context(), n.config.Start[0]).CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	r := n.open()
	for until := time.Now().Add(10 * time.Second); n.pid() == 0 && time.Now().Before(until); {
		continue
	}
	if report, err := r.Monitor(t.Context()); err != nil || report.Role != hooks.RoleUnknown {
		t.Errorf("%+v, %v", report, err)
	}
	n.promote(r, 6, "new") // it was stopped before, not served with
}

func TestKeepOnDemotionLeavesTheApplicationAndRestoresAllTheSame(t *testing.T) {
	n := newNode(t)
	n.config.OnDemotion = database.Leave
	write(t, n.config.Database, "mine")
	r := n.open()
	n.promote(r, 5, "mine")
	n.demote(r)
	if report, err := r.Monitor(t.Context()); err != nil || report.Role != hooks.RoleDemoted || n.pid() == 0 {
		t.Errorf("%+v, %v, process %d", report, err, n.pid())
	}
	n.publish("other", v(6, 1), "new")
	n.promote(r, 7, "new")
}

func TestSettingsThatCannotBeAreRefusedAllAtOnce(t *testing.T) {
	_, err := sqlite.New(sqlite.Config{Config: database.Config{Database: "relative", FileMode: "0777", Owner: "no-such-user-here", IfNone: "maybe", OnDemotion: "explode",
		Tries: 99, Keep: -1, StopTimeout: -1, Unit: "-rf", Start: []string{"/bin/true"}, Rows: map[string]int64{"t": -1}}, TCP: "nowhere", Local: []sqlite.Rows{{Table: "t", Column: "c"}}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"database \"relative\"", "store is required", "file_mode \"0777\"", "no such user", "if_none \"maybe\"", "on_demotion \"explode\"", "tries 99", "keep -1",
		"stop_timeout", "exclude each other", "rows: \"t\"", "tcp \"nowhere\"", "local: entry 1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v\ndoes not say %q", err, part)
		}
	}
}
