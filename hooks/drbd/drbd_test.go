package drbd_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/drbd"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/hooks/volume"
	"github.com/carpd/carpd/test/peers/blockdev"
)

func TestMain(m *testing.M) {
	blockdev.Enter()
	os.Exit(m.Run())
}

// side is one node of a pair: its stand-in of DRBD, and what is configured there.
type side struct {
	*blockdev.Node
	t      testing.TB
	config drbd.Config
	daemon *exec.Cmd
	hooks.Resource
}

// newPair starts two nodes with equal copies of an empty ext4.
func newPair(t testing.TB) (a, b *side) {
	t.Helper()
	if err := blockdev.Possible(); err != nil {
		t.Skip(err)
	}
	var ports [2]string
	var held [2]net.Listener
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		held[i], ports[i] = l, l.Addr().String()
	}
	for _, l := range held { // only now, so that they differ
		must(t, l.Close())
	}
	var both [2]*side
	for i := range both {
		dir := filepath.Join(hookstest.SafeDir(t), "node")
		node, err := blockdev.Install(blockdev.Settings{Kind: "drbd", Dir: dir, Name: "r0", Size: 16 << 20, Listen: ports[i], Remote: ports[1-i], Timeout: 5 * time.Second})
		must(t, err)
		mount := filepath.Join(dir, "mount")
		must(t, os.Mkdir(mount, 0o700))
		s := &side{Node: node, t: t, config: drbd.Config{
			Resource: "r0", Device: node.Device(), Drbdadm: node.Program("drbdadm"), Drbdsetup: node.Program("drbdsetup"),
			RoleTimeout: 10 * time.Second, DrainTimeout: 3 * time.Second, Volume: volume.Config{Mount: mount, Unmount: 3 * time.Second},
		}}
		s.open()
		t.Cleanup(s.crash)
		both[i] = s
	}
	must(t, blockdev.Format(both[0].Node, both[1].Node, "mkfs.ext4", "-q", "-F"))
	both[0].start()
	both[1].start()
	return both[0], both[1]
}

func (s *side) open() hooks.Resource {
	s.t.Helper()
	var err error
	s.Resource, err = drbd.New(s.config)
	must(s.t, err)
	return s.Resource
}

func (s *side) start() {
	s.t.Helper()
	var err error
	s.daemon, err = s.Daemon()
	must(s.t, err)
	s.daemon.Stderr = s.t.Output()
	must(s.t, s.daemon.Start())
	hookstest.Within(s.t, "the stand-in", s.Up)
}

// crash is the end of the node, with its mounts.
func (s *side) crash() {
	if s.daemon != nil {
		_ = s.daemon.Process.Kill()
		_ = s.daemon.Wait()
	}
	s.unmount()
}

func (s *side) unmount() {
	for unix.Unmount(s.config.Volume.Mount, unix.MNT_DETACH) == nil {
	}
}

func (s *side) promote() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 40*time.Second)
	defer cancel()
	ev := hookstest.SampleEvent(hooks.BeforeUp)
	ev.Reason = carp.ReasonTimedOut
	return s.Promote(ctx, ev)
}

func (s *side) demote(r carp.Reason) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 40*time.Second)
	defer cancel()
	ev := hookstest.SampleEvent(hooks.AfterDown)
	ev.Reason = r
	return s.Demote(ctx, ev)
}

func (s *side) mayLeave() error { return s.Resource.(hooks.Leaver).MayLeave(s.t.Context()) }

func (s *side) status() string {
	out, _ := exec.Command(s.Program("drbdsetup"), "status", "r0", "--json").Output()
	return string(out)
}

func (s *side) is(role string) bool { return strings.Contains(s.status(), `"role": "`+role+`"`) }

func (s *side) path(name string) string { return filepath.Join(s.config.Volume.Mount, name) }

func (s *side) mounted() bool {
	table, err := os.ReadFile("/proc/self/mountinfo")
	must(s.t, err)
	return strings.Contains(string(table), " "+s.config.Volume.Mount+" ")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func says(t testing.TB, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%q is missing in: %v", w, err)
		}
	}
}

func TestDataFollowTheRoleAndTheOtherNodeCannotHaveItToo(t *testing.T) {
	a, b := newPair(t)
	must(t, a.promote())
	must(t, os.WriteFile(a.path("one"), []byte("1"), 0o600))
	hookstest.Within(t, "the connection", func() bool { return a.mayLeave() == nil })

	err := b.promote()
	says(t, err, "it is Primary on other")
	if hooks.Refused(err) || b.is("Primary") {
		t.Error("it must be tried again, and the role kept")
	}
	if out, err := exec.Command(b.Program("drbdadm"), "primary", "r0").CombinedOutput(); err == nil {
		t.Errorf("the stand-in allows two: %s", out)
	}

	held, err := os.Open(a.path("one"))
	must(t, err)
	says(t, a.demote(carp.ReasonHandover), "held by", fmt.Sprintf("[%d]", os.Getpid()))
	if !a.is("Primary") || !a.mounted() {
		t.Error("the role was changed under a mount")
	}
	must(t, held.Close())
	must(t, a.demote(carp.ReasonHandover))
	must(t, b.promote())
	if text, err := os.ReadFile(b.path("one")); err != nil || string(text) != "1" {
		t.Errorf("%q, %v", text, err)
	}
	must(t, os.WriteFile(b.path("two"), []byte("2"), 0o600))
	run(t, "sync", "-f", b.config.Volume.Mount)
	hookstest.Within(t, "the connection", func() bool { return b.mayLeave() == nil })
	b.crash()
	must(t, a.promote())
	if text, err := os.ReadFile(a.path("two")); err != nil || string(text) != "2" {
		t.Errorf("after the crash: %q, %v", text, err)
	}
	says(t, a.mayLeave(), "other is Connecting")
	says(t, a.demote(carp.ReasonHandover), "stays Primary")
	must(t, a.demote(carp.ReasonBetterMaster))
}

func TestRefusalsOfDRBDAreUnderstood(t *testing.T) {
	a, _ := newPair(t)
	a.config.RoleTimeout = 3 * time.Second
	a.open()
	for _, tc := range []struct {
		fault, value, want string
		refused            bool
	}{
		{"disk", "Outdated", "Outdated", true},
		{"no-quorum", "yes", "no quorum", false},
		{"exit-primary", "17", "exit code 17", true},
		{"exit-primary", "11", "exit code 11", false},
		{"exit-primary", "20", "exit code 20", false},
		{"role-lies", "yes", "drbdadm has said yes", false},
		{"exit-status", "10", "exit code 10", false},
	} {
		must(t, a.Fault(tc.fault, tc.value))
		err := a.promote()
		says(t, err, tc.want)
		if hooks.Refused(err) != tc.refused || a.mounted() {
			t.Errorf("%s: refused %v, mounted %v: %v", tc.fault, !tc.refused, a.mounted(), err)
		}
		must(t, a.Fault(tc.fault, ""))
	}
	a.config.RoleTimeout = 10 * time.Second
	a.open()
	must(t, a.promote())
}

func TestContractOfAResourceWithACrashBeforeEachStep(t *testing.T) {
	a, _ := newPair(t)
	hookstest.Resources(t, hookstest.World{
		Open: a.open,
		Reset: func(t testing.TB) {
			a.unmount()
			hookstest.Within(t, "it to be Secondary", func() bool { return exec.Command(a.Program("drbdadm"), "secondary", "r0").Run() == nil })
		},
		Check: func(role hooks.Role) error {
			if used := role == hooks.RolePromoted; a.mounted() != used || a.is("Primary") != used {
				return fmt.Errorf("mounted %v: %s", a.mounted(), a.status())
			}
			return nil
		},
		Bound: 40 * time.Second,
	})
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}
