package hast_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hast"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/hooks/volume"
	"github.com/carpd/carpd/test/peers/blockdev"
)

func TestMain(m *testing.M) {
	blockdev.Enter()
	os.Exit(m.Run())
}

// side is one node of a pair: its stand-in of hastd, and what is configured there.
type side struct {
	*blockdev.Node
	t        testing.TB
	config   hast.Config
	daemon   *exec.Cmd
	resource hooks.Resource
}

// newPair starts two nodes with equal copies of an empty ext4.
func newPair(t testing.TB) (a, b *side) {
	t.Helper()
	if err := blockdev.Possible(); err != nil {
		t.Skip(err)
	}
	ports := freePorts(t, 2)
	a, b = newSide(t, "a", ports[0], ports[1]), newSide(t, "b", ports[1], ports[0])
	must(t, blockdev.Format(a.Node, b.Node, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0"))
	for _, s := range []*side{a, b} {
		s.start()
		s.hastctl("role", "secondary", "test")
	}
	a.config.Peer, b.config.Peer = b.report(), a.report()
	for _, s := range []*side{a, b} {
		s.open()
	}
	return a, b
}

func freePorts(t testing.TB, n int) (all []string) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all
}

func newSide(t testing.TB, name, listen, remote string) *side {
	dir := filepath.Join(hookstest.SafeDir(t), name)
	node, err := blockdev.Install(blockdev.Settings{Kind: "hast", Dir: dir, Name: "test", Size: 16 << 20,
		Listen: listen, Remote: remote, Timeout: 5 * time.Second})
	must(t, err)
	mount := filepath.Join(dir, "mount")
	must(t, os.Mkdir(mount, 0o700))
	s := &side{Node: node, t: t}
	s.config = hast.Config{
		Resource: "test", Hastctl: node.Program("hastctl"), Device: node.Device(), State: filepath.Join(dir, "state.json"),
		PeerTimeout: 10 * time.Second, WorkerTimeout: 10 * time.Second, RoleTimeout: 10 * time.Second, DrainTimeout: 3 * time.Second,
		Volume:   volume.Config{Mount: mount, Options: []string{"noatime"}, Unmount: 3 * time.Second},
		Services: []volume.Service{s.service("service")},
	}
	t.Cleanup(s.clean)
	return s
}

// service is one that has a file of the mount open as long as it runs, and not longer than
// this process does.
func (s *side) service(name string) volume.Service {
	mount, pid := filepath.Join(s.Dir, "mount"), filepath.Join(s.Dir, name+".pid")
	return volume.Service{
		Name: name,
		Start: []string{hookstest.Script(s.t, fmt.Sprintf(`exec 9>>%s/%s.open
setsid sh -c 'echo $$ >%s; exec tail --pid=%d -f /dev/null' </dev/null >/dev/null 2>&1 &
while ! [ -s %[3]s ]; do :; done`, mount, name, pid, os.Getpid()))},
		Stop:    []string{hookstest.Script(s.t, fmt.Sprintf(`[ -s %[1]s ] || exit 0; kill $(cat %[1]s) 2>/dev/null; rm -f %[1]s`, pid))},
		Probe:   []string{hookstest.Script(s.t, fmt.Sprintf(`kill -0 $(cat %s)`, pid))},
		PIDFile: pid, StartTimeout: 10 * time.Second, StopTimeout: 3 * time.Second,
	}
}

// report is the command by which the other node asks this one.
func (s *side) report() []string {
	return []string{hookstest.Script(s.t, fmt.Sprintf("[ ! -e %[1]s/cut ] && %[1]s/hastctl list test && %[1]s/hastctl dump test", s.Dir))}
}

func (s *side) start() {
	s.t.Helper()
	var err error
	s.daemon, err = s.Daemon()
	must(s.t, err)
	s.daemon.Stderr = s.t.Output()
	must(s.t, s.daemon.Start())
	hookstest.Within(s.t, "hastd of "+s.Dir, s.Up)
}

// kill is the death of hastd; the device is dead with it.
func (s *side) kill() {
	_ = s.daemon.Process.Kill()
	_ = s.daemon.Wait()
}

// crash is the death of the node: everything on it ends, and its mount.
func (s *side) crash() {
	s.kill()
	s.sweep()
	_ = os.Remove(s.Device())
}

// sweep ends the services and takes the mount off by force.
func (s *side) sweep() {
	pids, _ := filepath.Glob(filepath.Join(s.Dir, "*.pid"))
	for _, file := range pids {
		text, _ := os.ReadFile(file)
		var pid int
		if _, err := fmt.Sscan(string(text), &pid); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = os.Remove(file)
	}
	for unix.Unmount(s.config.Volume.Mount, unix.MNT_DETACH) == nil {
	}
}

func (s *side) clean() {
	s.sweep()
	if s.daemon != nil {
		s.kill()
	}
}

// open makes the resource anew, as a daemon that starts does.
func (s *side) open() hooks.Resource {
	s.t.Helper()
	r, err := hast.New(s.config)
	must(s.t, err)
	s.resource = r
	return r
}

func (s *side) hastctl(args ...string) string {
	s.t.Helper()
	out, err := exec.Command(s.Program("hastctl"), args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("hastctl %v: %v: %s", args, err, out)
	}
	return string(out)
}

func (s *side) is(role string) bool {
	return strings.Contains(s.hastctl("list", "test"), "role: "+role+"\n")
}

// insync reports whether the node is primary and the other one has everything.
func (s *side) insync() bool {
	list := s.hastctl("list", "test")
	return strings.Contains(list, "status: complete") && strings.Contains(list, "dirty: 0 ") && strings.Contains(list, "role: primary")
}

func (s *side) fault(name, value string) {
	s.t.Helper()
	must(s.t, s.Fault(name, value))
}

// mounted reports whether anything is mounted where it belongs.
func (s *side) mounted() bool {
	table, err := os.ReadFile("/proc/self/mountinfo")
	must(s.t, err)
	return strings.Contains(string(table), " "+s.config.Volume.Mount+" ")
}

func (s *side) path(name string) string { return filepath.Join(s.config.Volume.Mount, name) }

// takeover is an event of a node whose master has fallen silent.
func takeover() hooks.Event {
	ev := hookstest.SampleEvent(hooks.BeforeUp)
	ev.Reason = carp.ReasonTimedOut
	return ev
}

// leaving is an event of a node that lets go for a reason.
func leaving(r carp.Reason) hooks.Event {
	ev := hookstest.SampleEvent(hooks.AfterDown)
	ev.Reason = r
	return ev
}

const patience = 40 * time.Second

func (s *side) promote() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return s.resource.Promote(ctx, takeover())
}

func (s *side) demote(r carp.Reason) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return s.resource.Demote(ctx, leaving(r))
}

func (s *side) look() hooks.Report {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	r, err := s.resource.Monitor(ctx)
	if err != nil {
		return hooks.Report{Health: hooks.Unfit, Text: err.Error()}
	}
	return r
}

// becomesWhole waits until a secondary knows that its copy is whole: on a busy machine the
// other node may not answer in time.
func (s *side) becomesWhole() {
	s.t.Helper()
	hookstest.Within(s.t, "the secondary to know that its copy is whole", func() bool {
		r := s.look()
		return r.Role == hooks.RoleDemoted && r.Health == hooks.Healthy
	})
}

// trust says that the copy of a node is the right one, as an operator does at first.
func (s *side) trust() { must(s.t, os.WriteFile(s.config.State+".trust", nil, 0o600)) }

// serving makes a the primary that serves, with b connected and known to be whole.
func serving(t testing.TB) (a, b *side) {
	t.Helper()
	a, b = newPair(t)
	a.trust()
	must(t, a.promote())
	hookstest.Within(t, "both copies to be equal", a.insync)
	b.becomesWhole()
	return a, b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// says checks that an error holds all words.
func says(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is missing in: %v", w, err)
		}
	}
}
