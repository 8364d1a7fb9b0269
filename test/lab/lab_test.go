package lab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

var (
	addrB  = netip.MustParseAddr("192.0.2.2")
	addrB6 = netip.MustParseAddr("2001:db8::2")
)

func pair(t *testing.T, opts ...Option) (lan *LAN, a, b *Host) {
	lan = New(t, opts...)
	return lan, lan.Host("a", "192.0.2.1/24", "2001:db8::1/64"), lan.Host("b", "192.0.2.2/24", "2001:db8::2/64")
}

func awaitAnswer(t *testing.T, p *Prober, what string) {
	t.Helper()
	mark := p.Mark()
	Eventually(t, 5*time.Second, what, func() bool { return p.Answering(mark) })
}

// awaitSilence waits until nothing has been answered for 50 probes.
func awaitSilence(t *testing.T, p *Prober, what string) {
	t.Helper()
	Eventually(t, 5*time.Second, what, func() bool {
		return !p.Answering(time.Now().Add(-50 * time.Millisecond))
	})
}

// onAllKinds runs a test on a bridge of the kernel and on our switch.
func onAllKinds(t *testing.T, test func(t *testing.T, opts ...Option)) {
	t.Run("bridge", func(t *testing.T) { test(t) })
	t.Run("switched", func(t *testing.T) { test(t, Switched(1)) })
	t.Run("tap", func(t *testing.T) {
		if tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
			t.Skip(err) // in a user namespace, most often
		} else {
			_ = tun.Close()
		}
		test(t, Switched(1), Tap())
	})
}

func TestLabHostsAnswerEachOtherOnBothFamilies(t *testing.T) { onAllKinds(t, answerEachOther) }

func answerEachOther(t *testing.T, opts ...Option) {
	_, a, _ := pair(t, opts...)
	for _, dst := range []netip.Addr{addrB, addrB6} {
		p := a.Probe(dst)
		Eventually(t, 5*time.Second, "100 answers from "+dst.String(), func() bool {
			_, answered := p.Counts()
			return answered >= 100
		})
		p.Stop()
	}
}

func TestLabCaptureSeesEachFrameOnceWithItsSender(t *testing.T) { onAllKinds(t, captureSees) }

func captureSees(t *testing.T, opts ...Option) {
	lan, a, b := pair(t, opts...)
	c := lan.Capture()
	begin := time.Now()
	p := a.Probe(addrB)
	awaitAnswer(t, p, "an answer")
	p.Stop()
	reply := func(f Frame) bool {
		return len(f.Data) > 34 && f.Data[12] == 8 && f.Data[13] == 0 && f.Data[23] == 1 && f.Data[34] == 0
	}
	f, ok := c.WaitFor(time.Second, reply)
	if !ok || f.Host != b.Name {
		t.Fatalf("echo reply: found %v, from %q; want it from %q", ok, f.Host, b.Name)
	}
	if f.Time.Before(begin.Add(-time.Millisecond)) || f.Time.After(time.Now().Add(time.Millisecond)) {
		t.Errorf("stamped %v, outside of the test's time", f.Time)
	}
	seen := map[string]bool{}
	for _, f := range c.Packets() {
		if reply(f) {
			key := string(f.Data[38:42]) // id and sequence number
			if seen[key] {
				t.Fatalf("captured reply %x twice", key)
			}
			seen[key] = true
		}
	}
	path := filepath.Join(t.TempDir(), "x.pcapng")
	if err := c.Write(path); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() < 500 {
		t.Errorf("pcapng: %v, %v", st, err)
	}
}

func TestLabGratuitousARPIsRecognised(t *testing.T) {
	frame := make([]byte, 42)
	copy(frame[12:], []byte{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1})
	copy(frame[28:], addrB.AsSlice())
	match := GratuitousARP(addrB)
	if match(Frame{Data: frame}) {
		t.Error("an ordinary request counts as gratuitous")
	}
	copy(frame[38:], addrB.AsSlice())
	if !match(Frame{Data: frame}) {
		t.Error("a gratuitous request is not recognised")
	}
	if match(Frame{Data: frame[:41]}) {
		t.Error("a short frame is taken")
	}
}

func TestLabFaultsBreakAndHeal(t *testing.T) { onAllKinds(t, breakAndHeal) }

func breakAndHeal(t *testing.T, opts ...Option) {
	lan, a, b := pair(t, opts...)
	client := lan.Host("client", "192.0.2.9/24")
	toB, fromClient := a.Probe(addrB), client.Probe(addrB)
	faults := []struct {
		name       string
		on, off    func()
		clientToo  bool
		carrierOff bool
	}{
		{"unplug", b.Unplug, b.Plug, true, true},
		{"link down", func() { b.SetLink(false) }, func() { b.SetLink(true) }, true, true},
		{"isolate", func() { b.Isolate(true) }, func() { b.Isolate(false) }, true, false},
		{"partition", func() { lan.Partition(a, b) }, lan.Heal, false, false},
		{"delete link", b.DeleteLink, b.RecreateLink, true, true},
	}
	for _, f := range faults {
		awaitAnswer(t, toB, "an answer before "+f.name)
		f.on()
		awaitSilence(t, toB, "silence after "+f.name)
		if f.clientToo {
			awaitSilence(t, fromClient, "the client's silence after "+f.name)
		} else {
			awaitAnswer(t, fromClient, "the client's answer during "+f.name)
		}
		if !f.carrierOff {
			if out := b.Run("ip", "-o", "link", "show", "eth0"); !strings.Contains(out, "LOWER_UP") {
				t.Errorf("%s: eth0 lost its carrier: %s", f.name, out)
			}
		}
		f.off()
		awaitAnswer(t, toB, "an answer after the end of "+f.name)
		awaitAnswer(t, fromClient, "the client's answer after the end of "+f.name)
	}
}

func TestLabProberMeasuresAnOutage(t *testing.T) {
	_, a, b := pair(t)
	p := a.Probe(addrB)
	awaitAnswer(t, p, "an answer")
	mark := p.Mark()
	b.Isolate(true)
	cut := time.Now()
	Eventually(t, 5*time.Second, "300 ms of outage", func() bool { return time.Since(cut) > 300*time.Millisecond })
	b.Isolate(false)
	awaitAnswer(t, p, "an answer afterwards")
	whole := time.Since(cut)
	got, began := p.Longest(mark)
	if got < 300*time.Millisecond || got > whole+100*time.Millisecond {
		t.Errorf("longest outage %v, want 300 ms to %v", got, whole)
	}
	if d := began.Sub(cut).Abs(); d > 100*time.Millisecond {
		t.Errorf("the outage began %v away from the cut", d)
	}
}

func TestLongestGap(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(ms ...int) (times []time.Time) {
		for _, m := range ms {
			times = append(times, t0.Add(time.Duration(m)*time.Millisecond))
		}
		return times
	}
	for _, c := range []struct {
		name         string
		answers      []int
		from, to     int
		longest, beg int
	}{
		{"none", nil, 0, 50, 50, 0},
		{"in the middle", []int{1, 2, 30, 31}, 0, 32, 28, 2},
		{"at the end", []int{1, 2}, 0, 32, 30, 2},
		{"at the start", []int{20, 21}, 0, 22, 20, 0},
		{"before the mark", []int{1, 90, 91, 93}, 90, 94, 2, 91},
	} {
		got, beg := longest(at(c.answers...), at(c.from)[0], at(c.to)[0])
		if got != time.Duration(c.longest)*time.Millisecond || !beg.Equal(at(c.beg)[0]) {
			t.Errorf("%s: %v from %v, want %d ms from %d", c.name, got, beg.Sub(t0), c.longest, c.beg)
		}
	}
}

func TestLabAddressesAreSeen(t *testing.T) {
	_, a, _ := pair(t)
	own := netip.MustParsePrefix("192.0.2.1/24")
	found := false
	for _, p := range a.Addrs("eth0") {
		found = found || p == own
	}
	if !found || !a.HasAddr(own.Addr()) || a.HasAddr(addrB) || a.Addrs("eth7") != nil {
		t.Errorf("Addrs(eth0) = %v, HasAddr wrong, or a link that does not exist has addresses", a.Addrs("eth0"))
	}
	a.Run("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
	if a.HasAddr(own.Addr()) {
		t.Error("a deleted address is still reported")
	}
}

func TestLabProcessesAreControlled(t *testing.T) {
	_, a, _ := pair(t)
	p := a.Start(exec.Command("sh", "-c", "ip -o addr show eth0; exec sleep 1000"))
	Eventually(t, 5*time.Second, "output", func() bool { return strings.Contains(p.Output(), "192.0.2.1") })
	if err := p.Wait(time.Millisecond); err != ErrRunning {
		t.Errorf("Wait = %v, want ErrRunning", err)
	}
	p.Signal(syscall.SIGTERM)
	if err := p.Wait(5 * time.Second); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("Wait = %v, want terminated", err)
	}
	p.Kill() // harmless
	if out, err := a.RunErr("sh", "-c", "echo no; exit 3"); err == nil || out != "no\n" {
		t.Errorf("RunErr = %q, %v", out, err)
	}
}

// A daemon's child may leave its process group and session; KillAll finds it.
func TestLabKillAllFindsWhoLeftTheGroup(t *testing.T) {
	_, a, _ := pair(t)
	p := a.Start(exec.Command("sh", "-c", "setsid sleep 1000 & echo child $!; wait"))
	var child int
	Eventually(t, 5*time.Second, "the child's pid", func() bool {
		_, err := fmt.Sscanf(p.Output(), "child %d", &child)
		return err == nil
	})
	a.KillAll()
	if pids := a.ns.pids(); len(pids) != 0 {
		t.Errorf("still there: %v", pids)
	}
	if err := p.Wait(time.Second); err == nil {
		t.Error("the process ended well, want killed")
	}
}

func TestLabCleanupLeavesNothing(t *testing.T) { onAllKinds(t, leaveNothing) }

func leaveNothing(t *testing.T, opts ...Option) {
	var inodes []uint64
	var pid int
	t.Run("inner", func(t *testing.T) {
		lan, a, b := pair(t, opts...)
		lan.Capture()
		a.Probe(addrB)
		pid = a.Start(exec.Command("sleep", "1000")).Pid
		inodes = []uint64{lan.ns.inode, a.ns.inode, b.ns.inode}
	})
	if inodes == nil {
		t.SkipNow() // the inner test was skipped
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the process is still there: %v", err)
	}
	held := func() string {
		names, _ := filepath.Glob("/proc/self/task/*/ns/net")
		fds, _ := filepath.Glob("/proc/self/fd/*")
		for _, name := range append(names, fds...) {
			var st unix.Stat_t
			if unix.Stat(name, &st) != nil {
				continue
			}
			for _, i := range inodes {
				if st.Ino == i {
					return name
				}
			}
		}
		return ""
	}
	Eventually(t, 5*time.Second, "the namespaces to be let go", func() bool { return held() == "" })
}

// A second self: makes a LAN and a process, prints the process's id, waits.
func TestLabVictim(t *testing.T) {
	if os.Getenv("CARPD_LAB_VICTIM") == "" {
		t.Skip("only run by TestLabSignalsLeaveNothing")
	}
	p := New(t).Host("a").Start(exec.Command("sh", "-c", "trap '' TERM INT; setsid sleep 1000 & echo $!; wait"))
	Eventually(t, 5*time.Second, "the child's pid", func() bool { return strings.HasSuffix(p.Output(), "\n") })
	fmt.Printf("pids %d %s", p.Pid, p.Output())
	<-p.Done()
	select {} // until the signal handler has ended this process
}

func TestLabSignalsLeaveNothing(t *testing.T) {
	New(t) // skips where there are no namespaces
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestLabVictim$")
		cmd.Env = append(os.Environ(), "CARPD_LAB_VICTIM=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var shell, child int
		if _, err := fmt.Fscanf(out, "pids %d %d", &shell, &child); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Signal(sig)
		_ = cmd.Wait()
		if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != sig {
			t.Errorf("after %v: %v, want ended by it", sig, cmd.ProcessState)
		}
		for _, pid := range []int{shell, child} {
			Eventually(t, 5*time.Second, fmt.Sprintf("process %d to be gone after %v", pid, sig), func() bool {
				stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				return err != nil || strings.Contains(string(stat), ") Z ")
			})
		}
	}
}
