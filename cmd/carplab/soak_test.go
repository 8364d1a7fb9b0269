package main

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/test/sim"
)

func TestSoakSaysHowMuchItPlayed(t *testing.T) {
	code, stdout, stderr := carplab("soak", "--seeds", "2", "--first", "5", "--verbose")
	if code != exitPassed && !strings.Contains(stdout, "repeat: carplab soak --first ") {
		t.Fatalf("exit %d:\n%s%s", code, stdout, stderr)
	}
	if !regexp.MustCompile(`\d seeds, [0-9.]+ simulated hours, \d+ faults in .*: \d+ simulated hours a minute\n$`).MatchString(stdout) {
		t.Errorf("%s", stdout)
	}
}

func TestSoakPrintsTheSeedThatFailedAndHowToRepeatIt(t *testing.T) {
	var total soakTotal
	total.add(&sim.Report{Seed: 9, Err: errors.New("two holders"), Simulated: time.Hour, Faults: 7})
	total.add(&sim.Report{Seed: 4, Err: errors.New("no holder"), Simulated: time.Hour, Faults: 7})
	total.add(&sim.Report{Seed: 3, Simulated: time.Hour, Faults: 7})
	var out bytes.Buffer
	if err := total.tell(&out, time.Minute); !errors.Is(err, errFailed) {
		t.Errorf("error %v", err)
	}
	want := "seed 4: no holder\nrepeat: carplab soak --first 4 --seeds 1\n3 seeds, 3.0 simulated hours, 21 faults in 1m0s: 3 simulated hours a minute\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestSoakEndsInTime(t *testing.T) {
	start := time.Now()
	code, stdout, _ := carplab("soak", "--minutes", "0.005")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if code == exitUsage || !strings.Contains(stdout, "simulated hours") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	if code, _, _ := carplab("soak", "--seeds", "-1"); code != exitUsage {
		t.Errorf("exit %d for a negative number of seeds", code)
	}
}
