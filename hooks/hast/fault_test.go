package hast_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hast"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/hooks/volume"
)

// runs reports whether the service of a node runs.
func (s *side) runs() bool {
	_, err := os.Stat(s.config.Services[0].PIDFile)
	return err == nil
}

// handed is a pair of which b has just got its copy whole and a has let go in order.
func handed(t *testing.T) (a, b *side) {
	t.Helper()
	a, b = serving(t)
	must(t, a.demote(carp.ReasonHandover))
	return a, b
}

func TestSuccessOfHastctlIsNotBelievedBeforeTheDeviceIsThere(t *testing.T) {
	_, b := handed(t)
	b.fault("device-late", "700ms")
	began := time.Now()
	must(t, b.promote())
	if took := time.Since(began); took < 700*time.Millisecond {
		t.Errorf("promoted after %v, before there was a device", took)
	}
	if !b.mounted() || b.look().Role != hooks.RolePromoted {
		t.Error("it is not in use")
	}
}

func TestWorkerThatFallsBackToInitIsAFailureAndNothingIsMounted(t *testing.T) {
	_, b := handed(t)
	b.fault("worker-fails", "yes")
	says(t, b.promote(), "went back to init")
	if b.mounted() || b.runs() {
		t.Error("something was mounted or started all the same")
	}
	b.fault("worker-fails", "")
	must(t, b.demote(carp.ReasonFailed))
	if r := b.look(); r.Role != hooks.RoleDemoted {
		t.Errorf("after the undoing it is %v: %s", r.Role, r.Text)
	}
	must(t, b.promote())
}

func TestRoleThatIsAnsweredAndNotTakenIsAFailure(t *testing.T) {
	_, b := handed(t)
	b.fault("role-lies", "yes")
	b.config.RoleTimeout = 500 * time.Millisecond
	b.open()
	says(t, b.promote(), "not seen after 500ms", "hastctl has said yes")
	if b.mounted() || b.runs() {
		t.Error("something was mounted or started all the same")
	}
}

func TestWritesUnderWayAreWaitedFor(t *testing.T) {
	a, b := serving(t)
	b.fault("worker-lingers", "900ms")
	a.crash()
	began := time.Now()
	must(t, b.promote())
	if took := time.Since(began); took < 800*time.Millisecond {
		t.Errorf("promoted after %v, while the secondary's worker ran", took)
	}
}

func TestWorkerThatStaysKeepsTheRoleAway(t *testing.T) {
	a, b := serving(t)
	b.fault("worker-lingers", "1m")
	b.config.WorkerTimeout = 500 * time.Millisecond
	b.open()
	a.crash()
	says(t, b.promote(), "worker of the secondary still runs")
	if !b.is("secondary") {
		t.Error("the role was changed")
	}
}

func TestDamagedFileSystemIsNeitherMountedNorServed(t *testing.T) {
	_, b := handed(t)
	// The kernel has noticed: what is marked as clean is not checked.
	run(t, "debugfs", "-w", "-R", "set_super_value state 2", filepath.Join(b.Dir, "disk"))
	disk, err := os.OpenFile(filepath.Join(b.Dir, "disk"), os.O_WRONLY, 0)
	must(t, err)
	for _, at := range []int64{4 << 10, 8 << 20} { // descriptors and what else lies there, not the superblock
		_, err = disk.WriteAt(bytes.Repeat([]byte{0x5a}, 64<<10), at)
		must(t, err)
	}
	must(t, disk.Close())
	err = b.promote()
	says(t, err, "check "+b.Device())
	if b.mounted() || b.runs() {
		t.Error("something was mounted or started all the same")
	}
	b.config.Volume.Repair = true
	b.open()
	must(t, b.promote())
}

func TestMountThatSaysItWorkedIsLookedAt(t *testing.T) {
	_, b := handed(t)
	dir := hookstest.SafeDir(t)
	must(t, os.WriteFile(filepath.Join(dir, "mount"), []byte("#!/bin/sh\nexit 0\n"), 0o755))
	b.config.Volume.Path = []string{dir, "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	b.open()
	says(t, b.promote(), "nothing is mounted on "+b.config.Volume.Mount)
	if b.runs() {
		t.Error("the service was started on the bare directory")
	}
}

func TestReadOnlyMountIsAFailure(t *testing.T) {
	a, _ := serving(t)
	run(t, a.config.Services[0].Stop[0]) // it writes
	hookstest.Within(t, "nobody to write", func() bool {
		return exec.Command("mount", "-o", "remount,ro", a.config.Volume.Mount).Run() == nil
	})
	if r := a.look(); r.Role == hooks.RolePromoted || r.Health != hooks.Unfit || !strings.Contains(r.Text, "read-only") {
		t.Errorf("it is %v, %v: %s", r.Role, r.Health, r.Text)
	}
	says(t, a.promote(), "read-only")
}

func TestServiceOnTheBareDirectoryIsStoppedFirst(t *testing.T) {
	_, b := handed(t)
	run(t, b.config.Services[0].Start[0])
	if r := b.look(); r.Role == hooks.RoleDemoted {
		t.Errorf("demoted, with a service on the bare directory: %s", r.Text)
	}
	must(t, b.promote())
	if _, err := os.Stat(b.path("service.open")); err != nil {
		t.Errorf("the service does not use the mount: %v", err)
	}
}

func TestServiceThatDoesNotAnswerIsAFailureAndUndone(t *testing.T) {
	_, b := handed(t)
	b.config.Services[0].Probe = []string{"/bin/false"}
	b.config.Services[0].StartTimeout = 300 * time.Millisecond
	b.open()
	says(t, b.promote(), "was started and does not answer")
	must(t, b.demote(carp.ReasonFailed))
	if b.mounted() || b.runs() || !b.is("secondary") {
		t.Error("something of it is left")
	}
}

func TestServicesStartInOrderAndStopInReverse(t *testing.T) {
	_, b := handed(t)
	log := filepath.Join(b.Dir, "log")
	second := b.service("second")
	for i, s := range []*volume.Service{&b.config.Services[0], &second} {
		s.Start = []string{hookstest.Script(t, fmt.Sprintf("echo start %d >>%s; exec %s", i, log, s.Start[0]))}
		s.Stop = []string{hookstest.Script(t, fmt.Sprintf("echo stop %d >>%s; exec %s", i, log, s.Stop[0]))}
	}
	b.config.Services = append(b.config.Services, second)
	b.open()
	must(t, b.promote())
	must(t, b.demote(carp.ReasonFailed))
	text, err := os.ReadFile(log)
	must(t, err)
	if want := "start 0\nstart 1\nstop 1\nstop 0\n"; string(text) != want {
		t.Errorf("%q, want %q", text, want)
	}
}

func TestHolderIsNamedAndTheRoleIsKept(t *testing.T) {
	a, _ := serving(t)
	f, err := os.Create(a.path("held"))
	must(t, err)
	defer f.Close()
	err = a.demote(carp.ReasonHandover)
	says(t, err, "held by", fmt.Sprintf("[%d]", os.Getpid()), "open "+f.Name())
	if !a.is("primary") || !a.mounted() {
		t.Fatal("the device was taken away under a mounted file system")
	}
	if _, err := f.WriteString("still alive"); err != nil || f.Sync() != nil {
		t.Errorf("the holder cannot write any more: %v", err)
	}
	must(t, f.Close())
	must(t, a.demote(carp.ReasonHandover))
}

func TestHolderInAnotherMountNamespaceIsNamed(t *testing.T) {
	a, _ := serving(t)
	other := exec.Command("unshare", "--mount", "--propagation", "private", "sleep", "600")
	must(t, other.Start())
	defer func() { _ = other.Wait() }()
	defer func() { _ = other.Process.Kill() }()
	self, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	hookstest.Within(t, "the other namespace", func() bool {
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", other.Process.Pid))
		return err == nil && its != self
	})
	says(t, a.demote(carp.ReasonHandover), "in use", "in a mount namespace of its own")
	if !a.is("primary") {
		t.Error("the device was taken away under a mounted file system")
	}
}

func TestServiceThatDoesNotStopIsKilled(t *testing.T) {
	a, _ := serving(t)
	a.config.Services[0].Stop = []string{"/bin/true"}
	a.config.Services[0].StopTimeout = 300 * time.Millisecond
	a.open()
	must(t, a.demote(carp.ReasonHandover))
	if a.mounted() || !a.is("secondary") {
		t.Error("it is not demoted")
	}
}

func TestProcessOfAStalePidfileIsNotKilled(t *testing.T) {
	a, _ := serving(t)
	bystander := exec.Command("sleep", "600")
	must(t, bystander.Start())
	defer func() { _ = bystander.Wait() }()
	defer func() { _ = bystander.Process.Kill() }()
	pid := a.config.Services[0].PIDFile
	real, err := os.ReadFile(pid)
	must(t, err)
	must(t, os.WriteFile(pid, fmt.Appendln(nil, bystander.Process.Pid), 0o600))
	a.config.Services[0].Stop = []string{"/bin/true"}
	a.config.Services[0].StopTimeout = 300 * time.Millisecond
	a.open()
	says(t, a.demote(carp.ReasonHandover), "has no file of", "is not killed")
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the bystander is dead: %v", err)
	}
	must(t, os.WriteFile(pid, real, 0o600))
}

func TestDeviceThatIsTakenAwayUnderTheMountIsSeenAndClearedUp(t *testing.T) {
	a, _ := serving(t)
	a.hastctl("role", "secondary", "test")
	if r := a.look(); r.Role != hooks.RoleUnknown || r.Health != hooks.Unfit {
		t.Errorf("it is %v, %v: %s", r.Role, r.Health, r.Text)
	}
	must(t, a.demote(carp.ReasonFailed))
	if r := a.look(); r.Role != hooks.RoleDemoted {
		t.Errorf("it is %v: %s", r.Role, r.Text)
	}
}

func TestDeadServiceMakesTheNodeUnfit(t *testing.T) {
	a, _ := serving(t)
	run(t, a.config.Services[0].Stop[0])
	if r := a.look(); r.Role != hooks.RoleUnknown || r.Health != hooks.Unfit {
		t.Errorf("it is %v, %v: %s", r.Role, r.Health, r.Text)
	}
}

func TestHastctlThatHangsIsLeft(t *testing.T) {
	a, _ := serving(t)
	a.fault("hang-list", "1m")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := a.resource.Monitor(ctx); err == nil {
		t.Error("no error")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestExitCodesOfHastctlAreExplained(t *testing.T) {
	a, _ := serving(t)
	for code, want := range map[string]string{"1": "does not know the resource", "71": "cannot be reached", "78": "hast.conf is wrong"} {
		a.fault("exit-list", code)
		_, err := a.resource.Monitor(t.Context())
		says(t, err, "exit code "+code, want)
	}
}

func TestOldHastctlWithoutListIsUnderstood(t *testing.T) {
	a, b := serving(t)
	a.fault("no-list", "yes")
	b.fault("no-list", "yes")
	if r := a.look(); r.Role != hooks.RolePromoted {
		t.Errorf("it is %v: %s", r.Role, r.Text)
	}
	must(t, a.demote(carp.ReasonHandover))
	must(t, b.promote())
}

func TestConfigurationThatCannotWorkIsRefusedWithAllItsFaults(t *testing.T) {
	_, err := hast.New(hast.Config{})
	says(t, err, "resource \"\"", "hastctl", "peer is required", "mount is required")
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}
