package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

// written waits for a write of clocks to end.
func written(t *testing.T, done <-chan struct{}) {
	t.Helper()
	if done == nil {
		t.Fatal("nothing was written")
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the write does not end")
	}
}

func TestClocksAreReservedAheadAndFoundAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	c, err := readClocks(dir)
	if err != nil || c.of("9@eth0") != 0 {
		t.Fatalf("without a file: %v, %d", err, c.of("9@eth0"))
	}
	const clock, reserve, left = 217_000_000_000, 60_000, 30_000
	written(t, c.keep(map[string]uint64{"9@eth0": clock, "a name": clock + 5}))
	if c.of("9@eth0") != clock+reserve || c.trouble() != nil {
		t.Errorf("reserved until %d, %v", c.of("9@eth0")-clock, c.trouble())
	}
	if c.keep(map[string]uint64{"9@eth0": clock + left}) != nil {
		t.Error("written though half of the reserve is left")
	}
	written(t, c.keep(map[string]uint64{"9@eth0": clock + left + 1}))
	again, err := readClocks(dir)
	if err != nil || again.of("9@eth0") != clock+left+1+reserve || again.of("a name") != clock+5+reserve {
		t.Errorf("read again: %v, %v", again.reserved, err)
	}
	// A clock that a member has stepped is reserved at once, and nothing is taken back.
	written(t, again.keep(map[string]uint64{"9@eth0": clock + 3600_000}))
	written(t, again.keep(map[string]uint64{"10@eth0": 1}))
	if again.of("9@eth0") != clock+3660_000 || again.of("10@eth0") != 60_001 {
		t.Errorf("reserved %v", again.reserved)
	}
	again.forget("9@eth0")
	if again.of("9@eth0") != 0 {
		t.Error("not forgotten")
	}
}

func TestWhatIsNoClockInTheFileIsSaidAndNotUsed(t *testing.T) {
	dir := t.TempDir()
	bad := "217000000000 9@eth0\nx 10@eth0\n5\n-1 11@eth0\n2000000000000 12@eth0\n7 in two words\n"
	if err := os.WriteFile(filepath.Join(dir, "clock"), []byte(bad), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := readClocks(dir)
	if err == nil || !strings.Contains(err.Error(), `"x 10@eth0"`) {
		t.Errorf("error %v", err)
	}
	if len(c.reserved) != 2 || c.of("9@eth0") != 217_000_000_000 || c.of("in two words") != 7 {
		t.Errorf("read %v", c.reserved)
	}
}

func TestDiskThatTakesNoClockIsToldAndTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(dir, nil, 0o644); err != nil { // where the directory should be
		t.Fatal(err)
	}
	c := &clocks{dir: dir, reserved: map[string]uint64{}}
	written(t, c.keep(map[string]uint64{"9@eth0": 1}))
	if c.trouble() == nil || c.of("9@eth0") != 0 {
		t.Errorf("reserved %d, %v", c.of("9@eth0"), c.trouble())
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	written(t, c.keep(map[string]uint64{"9@eth0": 1}))
	if c.trouble() != nil || c.of("9@eth0") == 0 {
		t.Errorf("later: reserved %d, %v", c.of("9@eth0"), c.trouble())
	}
}

func TestDiskThatHangsKeepsNobodyWaitingAndIsTold(t *testing.T) {
	c := &clocks{dir: t.TempDir(), reserved: map[string]uint64{}}
	fifo := c.file() + ".tmp"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil { // whose opening hangs until somebody reads
		t.Fatal(err)
	}
	done := c.keep(map[string]uint64{"9@eth0": 1})
	if done == nil || c.keep(map[string]uint64{"9@eth0": 1}) != nil {
		t.Fatal("not one write is under way")
	}
	c.mu.Lock()
	c.writing = c.writing.Add(-clockPatience)
	c.mu.Unlock()
	if err := c.trouble(); err == nil || !strings.Contains(err.Error(), "has not answered") {
		t.Errorf("trouble %v", err)
	}
	r, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	written(t, done) // a pipe cannot be synced: an error
	if err := c.trouble(); err == nil || strings.Contains(err.Error(), "has not answered") {
		t.Errorf("trouble %v", err)
	}
}

func TestAlarmsOfClocksAndRecordings(t *testing.T) {
	p := planned(t, oneInstance)
	const now = carp.Instant(1000 * time.Second)
	other := netip.MustParseAddr("192.0.2.3")
	seen := func(d carp.Drop, ago time.Duration) func(*carp.Status) {
		return func(st *carp.Status) {
			st.Refused[d] = carp.Sighting{Address: other, At: now.Add(-ago)}
			st.Drops[d] = 3
		}
	}
	for _, tt := range []struct {
		name string // of the alarm, and of nothing else
		set  func(*carp.Status)
		says string
	}{
		{"", func(*carp.Status) {}, ""},
		{"", seen(carp.DropReplay, 0), ""},
		{"", seen(carp.DropRepeat, 0), ""},
		{"", seen(carp.DropOld, 0), ""},
		{"rewritten", seen(carp.DropTiming, 9*time.Second), "192.0.2.3 have another advbase"},
		{"", seen(carp.DropTiming, 10*time.Second), ""},
		{"unsealed-peer", seen(carp.DropUnsealed, 0), "`node_id`"},
		{"node-id-conflict", func(st *carp.Status) { st.Seal.Twin, st.Seal.TwinAt = other, now }, "192.0.2.3 sends with this node's id"},
		{"clock-ahead", func(st *carp.Status) {
			st.Seal.Ahead, st.Seal.AheadBy = carp.Sighting{Address: other, NodeID: 7, At: now}, 3*time.Hour
		}, "node 7 at 192.0.2.3 is ahead of this one's by 3h0m0s"},
		{"constant-counter", func(st *carp.Status) { st.Seal.Constant = []netip.Addr{other} }, "counter of 192.0.2.3 never changes"},
	} {
		st := carp.Status{Refused: map[carp.Drop]carp.Sighting{}, Drops: map[carp.Drop]uint64{}}
		tt.set(&st)
		got := ""
		for _, a := range sealAlarms(p, st, now) {
			if a.text != "" {
				got += a.name
				if !strings.Contains(a.text, tt.says) {
					t.Errorf("%s: %s", a.name, a.text)
				}
			}
		}
		if got != tt.name {
			t.Errorf("alarms %q, want %q", got, tt.name)
		}
	}
}

func TestExplainSaysWhyAPeerIsRefused(t *testing.T) {
	const now = carp.Instant(1000 * time.Second)
	var text string
	say := func(format string, a ...any) { text += fmt.Sprintf(format, a...) + "\n" }
	explainSeal(say, planned(t, oneInstance), carp.Status{
		Seal:    carp.SealStatus{Replay: carp.ReplaySealed, Window: 30 * time.Second, Probes: 4},
		Refused: map[carp.Drop]carp.Sighting{carp.DropOld: {Address: netip.MustParseAddr("192.0.2.3"), NodeID: 7, At: now.Add(-time.Second)}},
	}, now)
	for _, want := range []string{"none older than 30s", "192.0.2.3 (node id 7, if it is carpd) was refused 1s ago (old): the clock in its adverts is too far behind", "asked 4 times"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestPlanOfASealedGroup(t *testing.T) {
	_, plans, err := load(write(t, "node_id: 7\n"+oneInstance+"    replay: sealed\n    window: 5s\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c := plans[0].carp; c.Replay != carp.ReplaySealed || c.Window != 5*time.Second || c.NodeID != 7 {
		t.Errorf("plan %+v", c)
	}
	if _, _, err := load(write(t, oneInstance+"    replay: sealed\n")); err == nil || errors.Is(err, carp.ErrConfig) {
		t.Errorf("without node_id: %v, want the fault of the file", err)
	}
}
