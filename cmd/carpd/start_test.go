package main_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// fails runs a command that must end by itself with a code, and checks that its
// output has all these words. It returns the output.
func (n *node) fails(cmd *exec.Cmd, code int, words ...string) string {
	n.t.Helper()
	proc := n.Start(cmd)
	err := proc.Wait(takeover)
	if got := exitCode(n.t, err); got != code {
		n.t.Errorf("%v: exit code %d, want %d\n%s", cmd.Args[1:], got, code, proc.Output())
	}
	for _, w := range words {
		if !strings.Contains(proc.Output(), w) {
			n.t.Errorf("%v: does not say %q:\n%s", cmd.Args[1:], w, proc.Output())
		}
	}
	return proc.Output()
}

// other writes a second configuration for the node, with files of its own, and
// returns its path.
func (n *node) other(replace ...string) string {
	n.t.Helper()
	text, err := os.ReadFile(n.config())
	if err != nil {
		n.t.Fatal(err)
	}
	replace = append(replace, filepath.Join(n.dir, "state"), filepath.Join(n.dir, "state2"))
	return n.file("other.yaml", strings.NewReplacer(replace...).Replace(string(text)), 0o644)
}

func TestSecondDaemonOnTheSameVHIDIsRefusedAndDisturbsNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{advskew: 100})
	seqA, seqB := p.a.seq(), p.b.seq()
	at := time.Now()
	other := p.a.other(p.a.socket(), p.a.socket()+"2")
	p.a.fails(p.a.command("run", "--config", other), 1,
		"vhid 9 on eth0", "process "+strconv.Itoa(p.a.proc.Pid), "stop it, or use another vhid")
	if _, err := os.Stat(p.a.socket() + "2"); err == nil {
		t.Error("the refused daemon left its control socket")
	}
	p.undisturbed(at, seqA, seqB)
}

func TestSecondDaemonOnTheSameSocketIsRefusedAndDisturbsNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{advskew: 100})
	seqA, seqB := p.a.seq(), p.b.seq()
	at := time.Now()
	other := p.a.other("vhid: 9", "vhid: 10", "192.0.2.50", "192.0.2.60", "2001:db8::50", "2001:db8::60")
	p.a.fails(p.a.command("run", "--config", other), 1, p.a.socket(), "another carpd is running", "`control`")
	p.undisturbed(at, seqA, seqB)
}

// undisturbed checks that nothing happened to either node: the role and the
// addresses stayed, and no advert was late.
func (p *pair) undisturbed(since time.Time, seqA, seqB uint64) {
	t := p.a.t
	t.Helper()
	now := time.Now()
	lab.Eventually(t, takeover, "two adverts of a", func() bool { return len(adverts(p.wire, "a", 9, now)) >= 2 })
	for n, seq := range map[*node]uint64{p.a: seqA, p.b: seqB} {
		if moved := n.transitions(seq); len(moved) > 0 {
			t.Errorf("%s moved: %+v", n.Name, moved)
		}
	}
	if gone := p.a.addrs.all(since, shared4); len(gone) > 0 && !p.a.HasAddr(shared4) {
		t.Errorf("the address went: %+v", gone)
	}
	if gap := longestGap(adverts(p.wire, "a", 9, since)); gap > lateAdvert {
		t.Errorf("%v between two adverts of a", gap)
	}
	p.a.await("MASTER")
}

// as runs a command as nobody, with these capabilities and no others.
func (n *node) as(program string, caps []uintptr, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: caps,
	}
	return cmd
}

const nobody = 65534

// ownedByNobody gives the node's directory to nobody. It skips the test where
// this system lets nobody be anybody else.
func (n *node) ownedByNobody() {
	n.t.Helper()
	for _, path := range []string{n.dir, filepath.Join(n.dir, "pass"), filepath.Join(n.dir, "carpd.yaml")} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			n.t.Skipf("this needs root, not a user namespace: %v", err)
		}
	}
}

func TestMissingCapabilityIsNamedAndNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.configure(settings{})
	p.a.ownedByNobody()
	program := publicProgram(t)
	for name, c := range map[string]struct {
		caps    []uintptr
		missing string
	}{
		"none":          {nil, "CAP_NET_RAW"},
		"CAP_NET_ADMIN": {[]uintptr{unix.CAP_NET_ADMIN}, "CAP_NET_RAW"},
		"CAP_NET_RAW":   {[]uintptr{unix.CAP_NET_RAW}, "CAP_NET_ADMIN"},
	} {
		t.Run("with "+name, func(t *testing.T) {
			out := p.a.fails(p.a.as(program, c.caps, "run", "--config", p.a.config()), 1,
				"needs "+c.missing, "run carpd as root", "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW")
			if n := strings.Count(out, "\n"); n > 2 {
				t.Errorf("%d lines for one cause:\n%s", n, out)
			}
			if p.a.HasAddr(shared4) {
				t.Error("an address is on")
			}
			if _, err := os.Stat(p.a.socket()); err == nil {
				t.Error("the control socket is there")
			}
			p.a.fails(p.a.as(program, c.caps, "cleanup"), 1, "needs "+c.missing)
		})
	}
	if n := len(adverts(p.wire, "a", 9, time.Time{})); n > 0 {
		t.Errorf("%d adverts were sent", n)
	}
}

func TestTwoCapabilitiesAreEnough(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.configure(settings{})
	p.a.ownedByNobody()
	p.a.startWith(p.a.as(publicProgram(t), []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}, "run", "--config", p.a.config()))
	p.a.promote()
	asking := p.client.Probe(shared4)
	lab.Eventually(t, soon, "the client to reach the address", func() bool { return asking.Answering(time.Time{}) })
	p.a.endedBy(syscall.SIGTERM)
	if p.a.HasAddr(shared4) || p.a.HasAddr(shared6) {
		t.Error("an address was left behind")
	}
}

func TestPassphraseFileMustBePresentAndSecret(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.configure(settings{})
	pass := filepath.Join(p.a.dir, "pass")
	refused := func(words ...string) {
		t.Helper()
		for _, command := range []string{"run", "check"} {
			p.a.fails(p.a.command(command, "--config", p.a.config()), 1, append(words, "carpd.yaml:7:")...)
		}
	}
	if err := os.Chmod(pass, 0o644); err != nil {
		t.Fatal(err)
	}
	refused("others on this machine", "chmod 600 ")
	if err := os.Remove(pass); err != nil {
		t.Fatal(err)
	}
	refused("passphrase_file", "no such file")
	if n := len(adverts(p.wire, "a", 9, time.Time{})); n > 0 {
		t.Errorf("%d adverts were sent", n)
	}
}

func TestCheckTouchesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{advskew: 100})
	seqA, seqB := p.a.seq(), p.b.seq()
	at := time.Now()
	before := listing(t, p.a.dir)

	if out, code := p.a.run("check", "--config", p.a.config()); code != 0 || !strings.Contains(out, "sound") {
		t.Errorf("check of a good file beside a running daemon: %d %s", code, out)
	}
	if out, code := p.a.run("check", "--config", p.a.other("advskew", "advskwe")); code != 1 ||
		!strings.Contains(out, "other.yaml:8:5") || !strings.Contains(out, `did you mean "advskew"`) {
		t.Errorf("check of a file with a typo: %d %s", code, out)
	}
	os.Remove(filepath.Join(p.a.dir, "other.yaml"))
	if out, code := p.a.run("check", "--no-such-flag"); code != 2 {
		t.Errorf("check with an unknown flag: %d %s", code, out)
	}
	if after := listing(t, p.a.dir); after != before {
		t.Errorf("files changed:\n%s\nbefore:\n%s", after, before)
	}
	p.undisturbed(at, seqA, seqB)
}

func listing(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, e.Name(), info.Mode(), info.ModTime().Format(time.StampNano))
	}
	return b.String()
}

// abandon lets a daemon die that gave its addresses no lifetime.
func (n *node) abandon() {
	n.t.Helper()
	n.start(settings{more: []string{"lease: off"}})
	n.promote()
	n.KillAll()
	if !n.HasAddr(shared4) || !n.HasAddr(shared6) {
		n.t.Fatal("the addresses did not outlive a daemon without a lease")
	}
}

func TestCleanupRemovesWhatADeadDaemonLeftAndNothingElse(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.abandon()
	p.a.Run("ip", "addr", "add", "192.0.2.70/24", "dev", "eth0") // somebody else's
	if out, code := p.a.run("cleanup"); code != 0 || !strings.Contains(out, "192.0.2.50") || !strings.Contains(out, "2001:db8::50") {
		t.Errorf("cleanup: %d %s", code, out)
	}
	if got, want := fmt.Sprint(ipv4(p.a)), "[192.0.2.1/24 192.0.2.70/24]"; got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
	if p.a.HasAddr(shared6) {
		t.Error("the IPv6 address is still there")
	}
	if out, code := p.a.run("cleanup"); code != 0 || out != "" {
		t.Errorf("a second cleanup: %d %s", code, out)
	}
}

func ipv4(n *node) []string {
	var found []string
	for _, p := range n.Addrs("eth0") {
		if p.Addr().Is4() {
			found = append(found, p.String())
		}
	}
	return found
}

func TestCleanupRefusesWhileADaemonRuns(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{advskew: 100})
	seqA, seqB := p.a.seq(), p.b.seq()
	at := time.Now()
	p.a.fails(p.a.command("cleanup"), 1, "a daemon is running", "eth0/9", "stop it first")
	p.undisturbed(at, seqA, seqB)
}

func TestStaleAddressesGoAtStart(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.abandon()
	at := time.Now()
	p.a.start(settings{more: []string{"lease: off"}})
	for _, addr := range []netip.Addr{shared4, shared6} {
		if p.a.HasAddr(addr) { // asked of the kernel: the watch may not have read it yet
			t.Errorf("%v was still there when the daemon answered", addr)
		}
		p.a.addrs.await(t, at, addr, false, soon)
	}
	p.a.awaitLog("earlier run left")
	p.a.await("MASTER")
}
