package link_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
)

// paceEnv makes the test binary one node of BenchmarkPace.
const paceEnv = "CARPD_LINK_PACE"

const (
	paceInterval = 10 * time.Millisecond
	paceWarm     = time.Second
	paceFor      = 5 * time.Second
)

// pace is what a node says of itself at its end.
type pace struct {
	Late    []time.Duration // p50, p99, maximum of the adverts' lateness
	Masters int
	CPU     float64 // of one core, in hundredths
}

func init() {
	if spec := os.Getenv(paceEnv); spec != "" {
		if err := paceNode(spec); err != nil {
			fmt.Fprintln(os.Stderr, "pace:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// BenchmarkPace runs many masters in one process and as many backups in another,
// on a pair of veth, at 10 ms: each speaker with a loop of its own, one loop for
// all, that in real time, and one that reads the packets, too. It reports how late the adverts are, idle and with
// every core loaded, what either process costs, and how many backups have taken
// over at the end. It is best run with -benchtime 1x.
func BenchmarkPace(b *testing.B) {
	for _, load := range []string{"idle", "busy"} {
		for _, n := range []int{1, 100, 255} {
			for _, kind := range []string{"own", "shared", "real-time", "reading"} {
				b.Run(fmt.Sprintf("%s/%d/%s", load, n, kind), func(b *testing.B) {
					for b.Loop() {
						benchPace(b, load == "busy", n, kind)
					}
				})
			}
		}
	}
}

func benchPace(b *testing.B, busy bool, n int, kind string) {
	ctx, stop := context.WithTimeout(context.Background(), 2*paceWarm+paceFor+10*time.Second)
	defer stop()
	masters, backups := startPace(ctx, b, "masters", n, kind), startPace(ctx, b, "backups", n, kind)
	out, err := exec.Command("ip", "link", "add", "eth0", "netns", masters.pid(), "type", "veth",
		"peer", "name", "eth0", "netns", backups.pid()).CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	if busy {
		for range runtime.NumCPU() {
			spin(ctx, b)
		}
	}
	m, p := masters.result(b), backups.result(b)
	for i, unit := range []string{"p50-us", "p99-us", "max-us"} {
		b.ReportMetric(float64(m.Late[i].Microseconds()), unit)
	}
	b.ReportMetric(m.CPU, "cpu%-masters")
	b.ReportMetric(p.CPU, "cpu%-backups")
	b.ReportMetric(float64(p.Masters), "takeovers")
	b.ReportMetric(0, "ns/op")
}

// paceProcess is a node of BenchmarkPace in a network namespace of its own.
type paceProcess struct {
	*exec.Cmd
	out bytes.Buffer
}

func startPace(ctx context.Context, b *testing.B, role string, n int, kind string) *paceProcess {
	b.Helper()
	p := &paceProcess{Cmd: exec.CommandContext(ctx, "/proc/self/exe")}
	p.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", paceEnv, role, kind, n))
	p.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	p.Stdout, p.Stderr = &p.out, os.Stderr
	if err := p.Start(); err != nil {
		b.Skip("no network namespace: ", err)
	}
	b.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() }) // both fail if it has ended
	return p
}

func (p *paceProcess) pid() string { return strconv.Itoa(p.Process.Pid) }

func (p *paceProcess) result(b *testing.B) (r pace) {
	b.Helper()
	if err := p.Wait(); err != nil {
		b.Fatal(err)
	}
	if err := json.Unmarshal(p.out.Bytes(), &r); err != nil {
		b.Fatalf("%v: %s", err, p.out.Bytes())
	}
	if len(r.Late) == 0 {
		r.Late = make([]time.Duration, 3) // backups
	}
	return r
}

// spin loads a core until the end of the benchmark, or of ctx.
func spin(ctx context.Context, b *testing.B) {
	c := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
}

// paced notes how late each advert of a link is after the one before.
type paced struct {
	carp.Link
	mu   sync.Mutex
	last carp.Instant
	late []time.Duration
}

// Inline implements carp.Inline as the port does.
func (p *paced) Inline(w carp.Waiter, f func(*carp.Packet)) bool {
	return p.Link.(carp.Inline).Inline(w, f)
}

// Poll implements carp.Poller as the port does.
func (p *paced) Poll() (more bool) { return p.Link.(carp.Poller).Poll() }

func (p *paced) Send(f carp.Frame) error {
	now := p.Now()
	p.mu.Lock()
	if p.last != 0 && len(p.late) < cap(p.late) {
		p.late = append(p.late, now.Sub(p.last)-paceInterval)
	}
	p.last = now
	p.mu.Unlock()
	return p.Link.Send(f)
}

func paceNode(spec string) error {
	var role, kind string
	var n int
	if _, err := fmt.Sscan(spec, &role, &kind, &n); err != nil {
		return err
	}
	config := carp.Config{Protocol: carp.VRRP3, Priority: 200, Interval: paceInterval}
	addr := "192.0.2.1/24"
	if role == "backups" {
		config.Priority, config.StartupDelay, addr = 100, 200*time.Millisecond, "192.0.2.2/24"
	}
	if err := paceAddress(addr); err != nil {
		return err
	}
	loop, waiter, endLoop, err := paceLoop(kind)
	if err != nil {
		return err
	}
	defer endLoop()
	if kind != "reading" {
		waiter = nil
	}
	i, err := link.Open("eth0", link.Options{Waiter: waiter})
	if err != nil {
		return err
	}
	defer i.Close()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	ports, speakers := make([]*paced, n), make([]*carp.Speaker, n)
	for v := range n {
		config.VHID, config.Addresses = uint8(v+1), []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(v + 1)})}
		port, err := i.Attach(link.PortConfig{Protocol: config.Protocol, VHID: config.VHID, IPv4: true})
		if err != nil {
			return err
		}
		ports[v] = &paced{Link: port, late: make([]time.Duration, 0, 2*paceFor/paceInterval)}
		if speakers[v], err = carp.NewSpeaker(config, ports[v], nil); err != nil {
			return err
		}
		speakers[v].Loop = loop
		running.Go(func() { _ = speakers[v].Run(ctx) })
	}
	<-time.After(paceWarm)
	r := paceMeasure(ports)
	for _, s := range speakers {
		if st, _ := s.Status(); st.State == carp.Master {
			r.Masters++
		}
	}
	if role == "masters" {
		<-time.After(paceWarm) // the backups began later
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// paceAddress waits for eth0, which comes from outside, and brings it up.
func paceAddress(addr string) error {
	for deadline := time.Now().Add(5 * time.Second); ; <-time.After(10 * time.Millisecond) {
		out, err := exec.Command("ip", "addr", "add", addr, "dev", "eth0").CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "eth0", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// paceLoop runs a loop of a kind of BenchmarkPace; nil means one for each speaker.
func paceLoop(kind string) (l *carp.Loop, w *link.Waiter, end func(), err error) {
	if kind == "own" {
		return nil, nil, func() {}, nil
	}
	w, err = link.OpenWaiter()
	if err != nil {
		return nil, nil, nil, err
	}
	l = carp.NewLoop(w)
	ctx, stop := context.WithCancel(context.Background())
	done, ready := make(chan struct{}), make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if kind == "real-time" || kind == "reading" {
			ready <- link.RealTime()
		} else {
			ready <- nil
		}
		l.Run(ctx)
	}()
	return l, w, func() { stop(); <-done }, <-ready
}

func paceMeasure(ports []*paced) (r pace) {
	for _, p := range ports {
		p.mu.Lock()
		p.late = p.late[:0]
		p.mu.Unlock()
	}
	cpu, start := used(), time.Now()
	<-time.After(paceFor)
	r.CPU = 100 * float64(used()-cpu) / float64(time.Since(start))
	var late []time.Duration
	for _, p := range ports {
		p.mu.Lock()
		late = append(late, p.late...)
		p.mu.Unlock()
	}
	slices.Sort(late)
	if n := len(late); n > 0 {
		r.Late = []time.Duration{late[n/2], late[n*99/100], late[n-1]}
	}
	return r
}

func used() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
