package main_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// crashTakeover is what a crash of the daemon alone may cost. Measured are 3 to 10 ms
// (carplab bench guardian), and 50 promised; the rest is for a busy machine. No
// protocol timer is that short here.
const crashTakeover = 500 * time.Millisecond

// crash ends the daemon alone by SIGKILL and returns when.
func (n *node) crash() time.Time {
	n.t.Helper()
	n.guardian()
	done := make(chan time.Time)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its priority
		_ = link.RealTime()    // else what lies between the two may be long
		at := time.Now()
		n.proc.Signal(syscall.SIGKILL)
		done <- at
	}()
	return <-done
}

// guardian waits until the node has a guardian that guards, and returns it.
func (n *node) guardian() api.Guardian {
	n.t.Helper()
	var g *api.Guardian
	lab.Eventually(n.t, takeover, "the guardian of "+n.Name+" to guard", func() bool {
		g = n.status().Guardian
		return g != nil && g.State == "guarding"
	})
	return *g
}

// lives reports whether there is a process with that id that is no zombie.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// groups are such in which a backup would wait for seconds.
func groups() map[string]func(p *pair) {
	group := func(base string) func(*pair) {
		return func(p *pair) {
			for _, n := range []*node{p.a, p.b} {
				n.start(settings{more: []string{base}})
			}
			p.a.promote()
			p.b.follows(p.a)
		}
	}
	return map[string]func(p *pair){
		"advbase 1":  group("advbase: 1"),
		"advbase 10": group("advbase: 10"),
		"VRRP 1 s": func(p *pair) {
			r := router{interval: time.Second, more: []string{"preempt: false"}}
			p.route(r.with(200), r.with(254)) // who waits 8 ms after a master that leaves; with 100, 0.6 s
		},
		"unicast": func(p *pair) {
			p.a.start(settings{more: []string{"peers: [192.0.2.2]"}})
			p.b.start(settings{more: []string{"peers: [192.0.2.1]"}})
			p.a.promote()
			p.b.follows(p.a)
		},
		"virtual MAC": group("mac: virtual"),
	}
}

func TestCrashedDaemonHandsOverInMilliseconds(t *testing.T) {
	for name, elect := range groups() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			elect(p)
			asking := p.reaches(shared4)
			mark, at := p.wire.Len(), p.a.crash()
			said, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4))
			if !ok {
				t.Fatal("b never took over")
			}
			t.Logf("announced by b after %v", said.Time.Sub(at))
			if took := said.Time.Sub(at); took > crashTakeover {
				t.Errorf("b announced the address %v after the crash", took)
			}
			if i := p.b.await("MASTER"); i.Reason != "bow-out" {
				t.Errorf("b is master because of %s", i.Reason)
			}
			p.reached(asking)
			oneSpeaker(t, p.wire, shared4)
			lab.Eventually(t, soon, "the guardian's last words", func() bool {
				return strings.Contains(p.a.proc.Output(), "carpd guardian: the daemon is gone without a goodbye")
			})
			if p.a.HasAddr(shared4) || p.a.HasAddr(shared6) {
				t.Error("an address is left on the dead node")
			}
		})
	}
}

// A receiver that refuses whatever is old takes the bow-out, which was made ready before
// the crash, and then what the node says when it is back.
func TestCrashedNodeOfASealedGroupIsBelievedAndComesBack(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	sealed := func(id int) settings {
		return settings{top: []string{fmt.Sprintf("node_id: %d", id)}, more: []string{"replay: sealed"}}
	}
	p.elect(sealed(1), sealed(2))
	mark, at := p.wire.Len(), p.a.crash()
	said, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4))
	if !ok || said.Time.Sub(at) > crashTakeover {
		t.Fatalf("b announced %v after the crash", said.Time.Sub(at))
	}
	if i := p.b.await("MASTER"); i.Reason != "bow-out" {
		t.Errorf("b is master because of %s", i.Reason)
	}
	<-p.a.proc.Done()
	p.a.start(sealed(1))
	p.a.follows(p.b)
	p.b.post("/v1/handover", map[string]string{}, nil)
	p.a.await("MASTER")
	p.b.follows(p.a)
	if drops := p.b.instance().Drops; drops["old"]+drops["replay"]+drops["ahead"] > 0 {
		t.Errorf("b has refused %v", drops)
	}
	p.oneHolder(shared4)
}

// BenchmarkCrashMaster is the series of which the promise is made: -benchtime 30x. Each
// run is an election and a kill -9 of the master's daemon alone, at a random phase. It
// reports, in milliseconds from the kill, when the backup said by an advert that it is
// master, and when it announced the address. On a busy machine the first is the
// guardian's time: all that it depends on runs in real time, and the second does not. A
// run in which both spoke for the address fails.
func BenchmarkCrashMaster(b *testing.B) {
	const maxRuns = 100
	for _, name := range []string{"advbase 1", "advbase 10", "VRRP 1 s"} {
		b.Run(name, func(b *testing.B) {
			var masters, announced []time.Duration
			for range min(b.N, maxRuns) {
				master, said := crashMaster(b, name)
				masters, announced = append(masters, master), append(announced, said)
			}
			for what, all := range map[string][]time.Duration{"master": masters, "announced": announced} {
				slices.Sort(all)
				for which, took := range map[string]time.Duration{"min": all[0], "median": all[len(all)/2], "max": all[len(all)-1]} {
					b.ReportMetric(float64(took.Microseconds())/1000, what+"_ms/"+which)
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// crashMaster makes one run on a LAN of its own.
func crashMaster(b *testing.B, group string) (master, announced time.Duration) {
	p := newPair(b)
	groups()[group](p)
	asking := p.reaches(shared4)
	<-time.After(rand.N(time.Second)) // not synchronisation: the phase of the death
	mark, at := p.wire.Len(), p.a.crash()
	said, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4))
	if !ok {
		b.Fatal("b never took over")
	}
	first, ok := p.wire.WaitAfter(mark, takeover, func(f lab.Frame) bool {
		var packet carp.Packet
		return f.Host == "b" && carp.DecodeFrame(f.Data, &packet) == carp.Accepted
	})
	if !ok {
		b.Fatal("b never advertised")
	}
	p.reached(asking)
	oneSpeaker(b, p.wire, shared4)
	p.a.KillAll()
	p.b.KillAll()
	return first.Time.Sub(at), said.Time.Sub(at)
}

// What hooks have started is not left to work on beside the next master's.
func TestCrashedDaemonLeavesNoHookBehind(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	// One in its session, and one that has left it.
	script := p.a.file("hook.sh", "#!/bin/sh\nsleep 1000 &\necho $! >"+p.a.dir+"/child\nsetsid sleep 1000 >/dev/null 2>&1 &\necho $! >"+p.a.dir+"/left\nwait\n", 0o755)
	p.a.start(settings{more: []string{"hooks:", hook("after-up", script)}})
	if !p.a.guardian().KillsHooks {
		t.Skip("no cgroups of version 2 can be made here")
	}
	p.a.promote()
	pid := func(file string) (n int) {
		lab.Eventually(t, soon, file+" of the hook", func() bool {
			text, err := os.ReadFile(p.a.dir + "/" + file)
			if err != nil {
				return false
			}
			n, err = strconv.Atoi(strings.TrimSpace(string(text)))
			return err == nil && lives(n)
		})
		return n
	}
	child, left := pid("child"), pid("left")
	group := cgroupOf(t, child)
	p.a.crash()
	lab.Eventually(t, soon, "the hook's children to be gone", func() bool { return !lives(child) && !lives(left) })
	lab.Eventually(t, soon, "their cgroup to be gone", func() bool { return !strings.Contains(cgroups(t), group) })
}

// cgroupOf returns the last part of a process's cgroup.
func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if at := strings.LastIndex(line, "/"); strings.HasPrefix(line, "0::") && strings.Contains(line, "carpd-hooks-") {
			return strings.TrimSpace(line[at+1:])
		}
	}
	t.Fatalf("the hook is in %s", text)
	return ""
}

// cgroups lists those beside which the tests run.
func cgroups(t *testing.T) string {
	t.Helper()
	var all []string
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		entries, err := os.ReadDir(root)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Name())
		}
	}
	return strings.Join(all, " ")
}

// A daemon that is stopped holds no address past its permit, and nobody waits for the
// backup's own timer. When it goes on, all is as it should be, and guarded again.
func TestStoppedDaemonIsRelievedAndComesBackInOrder(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	lease := settings{more: []string{"lease: off"}} // the guardian alone
	p.elect(lease, lease)
	before := p.a.guardian()
	seq, mark, at := p.a.seq(), p.wire.Len(), time.Now()
	p.a.proc.Signal(syscall.SIGSTOP)
	said, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4))
	if !ok {
		t.Fatal("b never took over")
	}
	gone := p.a.addrs.await(t, at, shared4, false, soon)
	if !gone.At.Before(said.Time) {
		t.Error("the address was still on the stopped node when b announced it")
	}
	if i := p.b.await("MASTER"); i.Reason != "bow-out" {
		t.Errorf("b is master because of %s, not because of the guardian's word", i.Reason)
	}
	p.a.proc.Signal(syscall.SIGCONT)
	if e := p.a.awaitEvent(seq, "transition", "stalled"); e.To != "BACKUP" {
		t.Errorf("a went to %s", e.To)
	}
	p.a.follows(p.b)
	if p.a.HasAddr(shared4) {
		t.Error("the address came back")
	}
	if p.b.instance().State != "MASTER" {
		t.Error("b has lost the role")
	}
	if g := p.a.guardian(); g.PID != before.PID {
		t.Errorf("guardian %d, and %d before", g.PID, before.PID)
	}
	p.oneHolder(shared4)

	p.b.post("/v1/handover", map[string]string{}, nil)
	p.a.await("MASTER")
	p.b.post("/v1/resume", map[string]string{}, nil)
	p.b.follows(p.a)
	mark = p.wire.Len()
	crashed := p.a.crash()
	if said, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4)); !ok || said.Time.Sub(crashed) > crashTakeover {
		t.Errorf("the second mastership was not guarded: b announced after %v", said.Time.Sub(crashed))
	}
	p.oneHolder(shared4)
}

func TestKilledGuardianIsReplacedAndNobodyNotices(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{})
	began, seq := time.Now(), p.a.seq()
	for n := range 2 {
		pid := p.a.guardian().PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.a.awaitEvent(seq, "alarm", "guardian")
		p.a.awaitEvent(seq, "alarm-end", "guardian")
		if g := p.a.guardian(); g.PID == pid || g.Restarts != uint64(n+1) {
			t.Errorf("%+v after number %d was killed", g, pid)
		}
		seq = p.a.seq()
	}
	lab.Eventually(t, takeover, "adverts of a", func() bool { return len(adverts(p.wire, "a", 9, began)) > 3 })
	if gap := longestGap(adverts(p.wire, "a", 9, began)); gap > lateAdvert {
		t.Errorf("%v between two adverts", gap)
	}
	if lost := p.a.addrs.all(began, shared4); anyOff(lost) {
		t.Errorf("the address went: %+v", lost)
	}
	// The new one knows all that the old one knew.
	mark, at := p.wire.Len(), p.a.crash()
	if said, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4)); !ok || said.Time.Sub(at) > crashTakeover {
		t.Errorf("b announced %v after the crash", said.Time.Sub(at))
	}
}

func anyOff(all []addrEvent) bool {
	for _, e := range all {
		if !e.On {
			return true
		}
	}
	return false
}

// A guardian that reads nothing holds nobody up. It is named, and replaced.
func TestStoppedGuardianHoldsNothingUp(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{})
	seq, began, pid := p.a.seq(), time.Now(), p.a.guardian().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if e := p.a.awaitEvent(seq, "alarm", "guardian"); !strings.Contains(e.Text, "silent") {
		t.Errorf("the alarm: %s", e.Text)
	}
	lab.Eventually(t, 2*takeover, "another guardian", func() bool {
		g := p.a.status().Guardian
		return g.State == "guarding" && g.PID != pid
	})
	if gap := longestGap(adverts(p.wire, "a", 9, began)); gap > lateAdvert {
		t.Errorf("%v between two adverts", gap)
	}
	if p.a.instance().State != "MASTER" || anyOff(p.a.addrs.all(began, shared4)) {
		t.Error("a lost role or address")
	}
}

// At a clean stop the daemon says itself what is to be said, and once.
func TestGuardianDoesNothingAtACleanStopNorAtAReload(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{})
	pid, seq := p.a.guardian().PID, p.a.seq()
	p.a.configure(settings{advskew: 1, others: []string{"vhid: 10\ninterface: eth0\npassphrase: x\naddresses: [192.0.2.60/24]"}})
	p.a.post("/v1/reload", api.ReloadRequest{}, nil)
	p.a.awaitNamed("10@eth0", "BACKUP")
	p.a.configure(settings{})
	p.a.post("/v1/reload", api.ReloadRequest{}, nil)
	if moved := p.a.transitions(seq); len(moved) > 2 || p.a.instance().State != "MASTER" { // those of vhid 10
		t.Errorf("the reloads moved: %+v", moved)
	}
	if g := p.a.guardian(); g.PID != pid || g.Restarts != 0 {
		t.Errorf("the guardian after the reloads: %+v", g)
	}

	// systemd tells all processes of a unit: the guardian does not listen to that.
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	mark := p.wire.Len()
	p.a.stop()
	if lives(pid) {
		t.Error("the guardian outlives a clean stop")
	}
	p.b.await("MASTER")
	bows := 0
	for _, f := range p.wire.Packets()[mark:] {
		if a, ok := decodeAdvert(f, "a"); ok && a.BowOut() && a.src.Is4() {
			bows++
		}
	}
	if bows != 1 {
		t.Errorf("%d bow-outs over IPv4, want the daemon's one", bows)
	}
	if strings.Contains(p.a.proc.Output(), "guardian") {
		t.Errorf("somebody spoke of a guardian:\n%s", p.a.proc.Output())
	}
	p.oneHolder(shared4)
}

func TestCrashedBackupSaysNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{})
	pid, mark := p.b.guardian().PID, p.wire.Len()
	p.b.crash()
	lab.Eventually(t, soon, "the guardian to end", func() bool { return !lives(pid) })
	lab.Eventually(t, takeover, "adverts of a", func() bool { return len(adverts(p.wire, "a", 9, time.Time{})) > 3 })
	for _, f := range p.wire.Packets()[mark:] {
		if _, ok := decodeAdvert(f, "b"); ok {
			t.Error("an advert was sent for a backup")
		}
	}
	if p.a.instance().State != "MASTER" {
		t.Error("a has lost the role")
	}
}

// Both at once: the lease is what is left.
func TestGuardianCanBeLeftOut(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	off := settings{top: []string{"guardian: off"}}
	p.elect(off, off)
	if g := p.a.status().Guardian; g == nil || g.State != "off" || g.PID != 0 {
		t.Errorf("%+v", g)
	}
	mark, at := p.wire.Len(), time.Now()
	p.a.proc.Signal(syscall.SIGKILL)
	said, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4))
	if !ok || said.Time.Sub(at) < masterDown-time.Second {
		t.Errorf("b announced %v after the crash: who told it?", said.Time.Sub(at))
	}
	p.oneHolder(shared4)
}

// The page that a daemon shares with its guardian: guardian.page has its layout.
const (
	pageLine  = 64
	pageTaken = ^uint64(0)
)

// page maps what the daemon shares with its guardian.
func (n *node) page() []byte {
	n.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", n.proc.Pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(dir + "/" + fd.Name()); !strings.HasPrefix(to, "/memfd:carpd-guardian") {
			continue
		}
		f, err := os.OpenFile(dir+"/"+fd.Name(), os.O_RDWR, 0)
		if err != nil {
			n.t.Fatal(err)
		}
		defer f.Close()
		mem, err := syscall.Mmap(int(f.Fd()), 0, 4*pageLine, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { syscall.Munmap(mem) })
		return mem
	}
	n.t.Fatal("the daemon has no page")
	return nil
}

// The loop was late by a hair: the guardian has taken the permit, and the loop comes
// by to renew it. There is no way back: the addresses are off, and others were told.
func TestLoopThatFindsItsPermitTakenLeavesTheRole(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{})
	p.a.guardian()
	seq := p.a.seq()
	until := (*atomic.Uint64)(unsafe.Pointer(&p.a.page()[pageLine])) // of the first instance
	if v := until.Load(); v == 0 || v == pageTaken {
		t.Fatalf("the master's permit ends at %d", v)
	}
	until.Store(pageTaken)
	e := p.a.awaitEvent(seq, "transition", "stalled")
	if e.From != "MASTER" || e.To != "RELEASING" {
		t.Errorf("a went from %s to %s", e.From, e.To)
	}
	p.b.await("MASTER")
	p.a.follows(p.b)
	if v := until.Load(); v != 0 {
		t.Errorf("the permit of a backup ends at %d", v)
	}
	p.oneHolder(shared4)
	p.b.stop()
	p.a.await("MASTER")
	if v := until.Load(); v == 0 || v == pageTaken {
		t.Errorf("the next mastership has a permit until %d", v)
	}
}

// A thousand addresses go in one batch, before the bow-out is sent.
func TestCrashedDaemonOfAThousandAddressesHandsThemOver(t *testing.T) {
	t.Parallel()
	const count = 1000
	many := []string{"192.0.2.50/24"}
	for i := range count - 1 {
		many = append(many, fmt.Sprintf("10.1.%d.%d/16", (i+1)>>8, (i+1)&255))
	}
	p := newPair(t)
	p.elect(settings{addresses: many}, settings{addresses: many})
	last := netip.MustParsePrefix(many[count-1]).Addr()
	mark, at := p.wire.Len(), p.a.crash()
	said, ok := p.wire.WaitAfter(mark, takeover, announces("b", last))
	if !ok {
		t.Fatal("b never took over")
	}
	t.Logf("the last of %d announced after %v", count, said.Time.Sub(at))
	if took := said.Time.Sub(at); took > masterDown { // the kernel changes addresses for one at a time on the whole machine
		t.Errorf("the last of %d addresses was announced %v after the crash", count, took)
	}
	for _, addr := range []netip.Addr{shared4, last} {
		if p.a.HasAddr(addr) {
			t.Errorf("%v is left on the dead node", addr)
		}
		neverBoth(t, p.a.addrs, p.b.addrs, addr)
	}
}

// A session with the address ends with the daemon: the server that outlives it is told,
// and so is the client.
func TestCrashedDaemonEndsTheSessionsOfItsAddresses(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{})
	var listener net.Listener
	var err error
	if p.a.Do(func() { listener, err = net.Listen("tcp", ":7") }); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dial := func(to netip.Addr) (server, client net.Conn) {
		if p.client.Do(func() { client, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, 7).String(), soon) }); err != nil {
			t.Fatal(err)
		}
		if server, err = listener.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close(); client.Close() })
		return server, client
	}
	own, _ := dial(netip.MustParseAddr("192.0.2.1"))
	server, client := dial(shared4)
	p.a.crash()
	for name, end := range map[string]net.Conn{"server": server, "client": client} {
		_ = end.SetReadDeadline(time.Now().Add(soon))
		if _, err := end.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the %s's end of the session: %v", name, err)
		}
	}
	_ = own.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := own.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a session with the node's own address: %v", err)
	}
}
