package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// level is a set of tests of one package.
type level struct {
	name  string
	pkg   string   // directory
	dirs  []string // the directories whose mutants it is for
	tests string   // pattern of -test.run; "": those of the files chosen by importing
	// importing chooses test files: those which import this package, or with a
	// leading "!" those which do not; "": all.
	importing string
	args      []string
	harness   bool // of the simulator: tried whatever the others say
	clock     bool // in real time: on a busy machine it may fail for nothing, so a failure must be repeatable
	limit     time.Duration
}

const module = "github.com/carpd/carpd"

// allLevels lists the levels, cheapest first.
func allLevels(seeds int) []level {
	protocol := []string{"carp"}
	return []level{
		{name: "unit", pkg: "carp", dirs: protocol, importing: "!testing/synctest"},
		{name: "speaker", pkg: "carp", dirs: protocol, importing: "testing/synctest"},
		{name: "vip", pkg: "vip", dirs: []string{"vip"}, importing: "!" + module + "/test/lab"},
		{name: "link", pkg: "carp/link", dirs: []string{"carp/link"}, importing: "!" + module + "/test/lab"},
		{name: "replication", pkg: "replicator", dirs: []string{"replicator"}},
		{name: "verify", pkg: "replicator/sqlite", dirs: []string{"replicator", "replicator/sqlite"}},
		{name: "store", pkg: "replicator/dir", dirs: []string{"replicator", "replicator/dir"}},
		{name: "sftp", pkg: "replicator/sftp", dirs: []string{"replicator/ssh", "replicator/sftp", "replicator/dir"}},
		{name: "receive", pkg: "replicator/receive", dirs: []string{"replicator/ssh", "replicator/receive"}},
		{name: "psql-source", pkg: "replicator/proxysql", dirs: []string{"replicator/proxysql"}, clock: true},
		{name: "install", pkg: "replicator/install", dirs: []string{"replicator", "replicator/install"}},
		{name: "modules", pkg: "replicator/modules", dirs: []string{"replicator/modules"}, tests: "^Test[^AR]|^TestA[^L]"},
		{name: "restore", pkg: "hooks/sqlite", dirs: []string{"hooks/sqlite", "hooks/database"}, tests: "^Test[^C]"},
		{name: "proxysql", pkg: "hooks/proxysql", dirs: []string{"hooks/proxysql", "hooks/database"}, tests: "^Test[^CE]|^TestCl"},
		{name: "config", pkg: "cmd/daemon/config", dirs: []string{"cmd/daemon/config"}},
		{name: "device", pkg: "hooks/hast", dirs: []string{"hooks/hast", "hooks/volume"}, tests: "^Test[^C]|^TestC[^o]|^TestCo[^n]"},
		{name: "drbd", pkg: "hooks/drbd", dirs: []string{"hooks/drbd"}, tests: "^Test[^C]"},
		{name: "guardian", pkg: "cmd/daemon/guardian", dirs: []string{"cmd/daemon/guardian"}},
		{name: "metrics", pkg: "cmd/daemon/metrics", dirs: []string{"cmd/daemon/metrics"}},
		{name: "daemon", pkg: "cmd/daemon", dirs: []string{"cmd/daemon"}},
		{name: "hooks", pkg: "hooks", dirs: []string{"hooks"}},
		{name: "command", pkg: "hooks/command", dirs: []string{"hooks/command"}, clock: true},
		{name: "exec", pkg: "hooks/exec", dirs: []string{"hooks/exec"}, clock: true},
		{name: "systemd", pkg: "hooks/systemd", dirs: []string{"hooks/systemd"}, clock: true},
		{name: "webhook", pkg: "hooks/webhook", dirs: []string{"hooks/webhook"}},
		{name: "mysql", pkg: "hooks/mysql", dirs: []string{"hooks/mysql"}, importing: "!" + module + "/test/mariadb"},
		{name: "check", pkg: "hooks/check", dirs: []string{"hooks/check"}, clock: true},
		{name: "haproxy", pkg: "hooks/haproxy", dirs: []string{"hooks/haproxy"}, importing: "!" + module + "/test/lab"},
		{name: "galera", pkg: "hooks/galera", dirs: []string{"hooks/galera"}, importing: "!" + module + "/test/lab"},
		{name: "glb", pkg: "hooks/glb", dirs: []string{"hooks/glb"}, importing: "!" + module + "/test/lab"},
		{name: "haproxy-lab", pkg: "hooks/haproxy", dirs: []string{"hooks/haproxy"}, importing: module + "/test/lab", clock: true},
		{name: "glb-lab", pkg: "hooks/glb", dirs: []string{"hooks/glb"}, importing: module + "/test/lab", clock: true},
		{name: "soak", pkg: "test/sim", dirs: protocol, tests: "^TestSoak$", args: []string{fmt.Sprintf("-sim.seeds=%d", seeds)}, harness: true},
		{name: "explore", pkg: "test/sim/explore", dirs: protocol, tests: "^TestNoStateOfASmallWorldBreaksAPromise$", harness: true},
		{name: "kernel", pkg: "vip", dirs: []string{"vip"}, importing: module + "/test/lab", clock: true},
		{name: "wire", pkg: "carp/link", dirs: []string{"carp/link"}, importing: module + "/test/lab", clock: true},
		{name: "mariadb", pkg: "hooks/mysql", dirs: []string{"hooks/mysql"}, tests: "^TestLabMariaDB$", clock: true},
		{name: "lab", pkg: "cmd/carpd", dirs: []string{"carp", "vip", "hooks", "cmd/daemon"}, tests: labTests, clock: true},
	}
}

// labTests are tests of the real daemon that look at the order of things, and
// are quick.
const labTests = "^(TestHooksRunInOrderAroundTheAddresses|TestFailingGateMakesTheOtherNodeMaster|TestHookThatFailsAfterTheAddressesAreUpLeavesNoneBehind|" +
	"TestSlowGateKeepsTheAddressOffAndTheAdvertsGoing|TestStoppedMasterTakesItsAddressesOffBeforeItBowsOut|" +
	"TestManyAddressesAreAllOffBeforeTheBowOut|TestFrozenMasterHoldsNothingAndYieldsAtOnceWhenItWakes|TestHandoverHasNoInstantWithTwoHoldersAndLastsUntilResume|" +
	"TestAResourceMovesBetweenTheAddressesOfOldAndNewMaster|TestTheGiverTakesBackWhatTheTakerCannotPromote|TestNobodyIsCalledInForADeadDaemonThatHeldAResource|TestNoBowOutCallsSomebodyInWhileAFailedPromotionIsNotUndone|TestWhatAKilledRunLeftIsLetGoBeforeTheElection|" +
	"TestAResourceInAnotherRoleThanItsNodeIsAnAlarm|TestInstancesOfAGroupMoveTogether|TestUnfitMasterLetsGoForAFitMember|" +
	"TestNodeStaysInInitUntilEachMonitorHasBeenLookedAt)$"

func levelNames() []string {
	var names []string
	for _, l := range allLevels(0) {
		names = append(names, l.name)
	}
	return names
}

// choose returns the levels of a -level flag.
func choose(flag string, seeds int) ([]level, error) {
	all := allLevels(seeds)
	switch flag {
	case "all":
		return all, nil
	case "tests":
		for i := range all {
			all[i].harness = false // a rung like others: not tried for what was noticed
		}
		return all, nil
	case "sim":
		return slices.DeleteFunc(all, func(l level) bool { return !l.harness }), nil
	}
	wanted := strings.Split(flag, ",")
	for _, name := range wanted {
		if !slices.Contains(levelNames(), name) {
			return nil, fmt.Errorf("there is no level %q: use all, tests, sim or some of %s", name, strings.Join(levelNames(), ","))
		}
	}
	return slices.DeleteFunc(all, func(l level) bool { return !slices.Contains(wanted, l.name) }), nil
}

// meant reports whether the level is for this mutant. The simulator has a loop of
// its own in place of Speaker and Loop.
func (l *level) meant(m *mutant) bool {
	file := m.edits[0].file
	return slices.ContainsFunc(l.dirs, m.of) && !(l.harness && (file == speaker || file == loop))
}

// exists reports whether the level's package is in the tree.
func (l *level) exists(tree string) bool {
	files, err := filepath.Glob(filepath.Join(tree, l.pkg, "*_test.go"))
	return err == nil && len(files) > 0
}

// pattern returns the -test.run of the level.
func (l *level) pattern(tree string) (string, error) {
	if l.tests != "" {
		return l.tests, nil
	}
	files, err := filepath.Glob(filepath.Join(tree, l.pkg, "*_test.go"))
	if err != nil {
		return "", err
	}
	var names []string
	for _, f := range files {
		some, err := l.testsOf(f)
		if err != nil {
			return "", err
		}
		names = append(names, some...)
	}
	if len(names) == 0 {
		return "", fmt.Errorf("level %s: no tests in %s", l.name, l.pkg)
	}
	return "^(" + strings.Join(names, "|") + ")$", nil
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)

// testsOf returns the names of the tests in a file, if the level is for it.
func (l *level) testsOf(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	path, without := strings.CutPrefix(l.importing, "!")
	imports := false
	for _, s := range parsed.Imports {
		imports = imports || s.Path.Value == `"`+path+`"`
	}
	if path != "" && imports == without {
		return nil, nil
	}
	var names []string
	for _, m := range testFunc.FindAllSubmatch(text, -1) {
		if string(m[1]) != "TestMain" {
			names = append(names, string(m[1]))
		}
	}
	return names, nil
}
