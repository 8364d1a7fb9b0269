package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// privateDir is on the private /run.
const privateDir = "/run/carpd-demo"

// teller tells the story, a line an event, with the time since the beginning.
type teller struct {
	mu    sync.Mutex
	out   io.Writer
	begin time.Time
}

func newTeller(out io.Writer) *teller { return &teller{out: out, begin: time.Now()} }

func (t *teller) chapter(title string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "\n%s\n", title)
}

func (t *teller) line(at time.Time, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "%8.3f s  %s\n", at.Sub(t.begin).Seconds(), fmt.Sprintf(format, args...))
}

func (t *teller) now(format string, args ...any) { t.line(time.Now(), format, args...) }

// stage holds everything that the story needs.
type stage struct {
	options Options
	tell    *teller
	world   *world
	shared  netip.Prefix
	a, b    *node
	client  *host
	prober  *prober
	tap     *tap
	closers []func()
}

// build makes the LAN and writes the configuration files.
func (s *stage) build() error {
	s.shared = netip.MustParsePrefix(sharedPrefix)
	s.tell.chapter("A LAN of network namespaces: nodes a and b, a client, a switch")
	if err := furnish(); err != nil {
		return err
	}
	if err := buildSwitch(); err != nil {
		return err
	}
	dir := s.options.Dir
	if dir == "" {
		dir = privateDir
	}
	a, err := newHost(1, "a", prefixA)
	if err != nil {
		return err
	}
	b, err := newHost(2, "b", prefixB)
	if err != nil {
		return err
	}
	if s.client, err = newHost(3, "client", prefixClient); err != nil {
		return err
	}
	file, done, err := watch([]*host{a, b}, s.shared.Addr(), s.noteAddress)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, func() { _ = file.Close(); <-done })
	if s.a, err = newNode(a, s.options.Binary, dir, privateDir, 0); err != nil {
		return err
	}
	if s.b, err = newNode(b, s.options.Binary, dir, privateDir, 100); err != nil {
		return err
	}
	if s.tap, err = newTap(s.options.Pcap, []string{"a", "b", "client"}); err != nil {
		return err
	}
	s.tell.now("a is %s (advskew 0), b is %s (advskew 100), the client is %s", prefixA, prefixB, prefixClient)
	s.tell.now("they share %s by CARP, vhid %d, advbase 1 s", s.shared.Addr(), vhid)
	return nil
}

// noteAddress tells of each change that the kernel of a node reports.
func (s *stage) noteAddress(name string, has bool, at time.Time) {
	if !s.world.hold(name, has, at) {
		return // a renewal of the lease
	}
	if has {
		s.tell.line(at, "%s: has the address %s (says its kernel)", name, s.shared.Addr())
	} else {
		s.tell.line(at, "%s: no longer has the address (says its kernel)", name)
	}
}

// start starts carpd on a node and tells of its transitions.
func (s *stage) start(ctx context.Context, n *node) error {
	s.world.setState(n.name, "")
	if err := n.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	n.unfollow = func() { cancel(); <-done }
	go func() {
		defer close(done)
		n.follow(ctx, func(e api.Event) {
			if e.Kind != "transition" {
				return
			}
			s.world.setState(n.name, e.To)
			s.tell.now("%s: %s", n.name, strings.TrimPrefix(e.Text, e.Instance+": "))
		})
	}()
	return nil
}

// await waits until cond holds. It gives up after limit, and if a daemon that
// should run has ended.
func (s *stage) await(ctx context.Context, limit time.Duration, what string, running []*node, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		for _, n := range running {
			select {
			case err := <-n.done:
				n.done <- err // for others who ask
				return fmt.Errorf("demo: carpd on %s ended while waiting for %s: %v", n.name, what, err)
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("demo: gave up after %v waiting for %s", limit, what)
		case <-tick.C:
		}
	}
	return nil
}

// pass lets time go by while all stays as it is: cond must hold all along.
func (s *stage) pass(ctx context.Context, d time.Duration, what string, cond func() bool) error {
	end := time.Now().Add(d)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(end) {
		if !cond() {
			return fmt.Errorf("demo: %s: it did not stay so for %v", what, d)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("demo: %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// is returns a condition: the node is in the state, and its kernel holds the
// address if and only if that is MASTER.
func (s *stage) is(n *node, state string) func() bool {
	return func() bool {
		return s.world.state(n.name) == state && s.world.holds(n.name) == (state == "MASTER")
	}
}

func both(p, q func() bool) func() bool { return func() bool { return p() && q() } }

// play plays all chapters.
func (s *stage) play(ctx context.Context) error {
	begin := time.Now()
	for _, chapter := range []func(context.Context) error{
		s.election, s.kill, s.comeback, s.handover, s.farewell,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
		if one, other, d := s.world.overlap(time.Now()); d > 0 {
			return fmt.Errorf("demo: %s and %s both held the address for %v", one, other, d)
		}
	}
	sent, answered := s.prober.counts()
	s.prober.close()
	s.prober = nil
	frames, err := s.tap.close()
	s.tap = nil
	if err != nil {
		return err
	}
	s.tell.chapter("Everything happened, and no two nodes ever held the address at once.")
	s.tell.now("the client sent %d requests and got %d answers in %.0f s", sent, answered, time.Since(begin).Seconds())
	s.tell.now("capture: %s (%d frames). Look at it with", s.options.Pcap, frames)
	s.tell.now("  tcpdump -n -T carp -r %s not icmp", s.options.Pcap)
	s.tell.now("  tshark -d ip.proto==112,carp -r %s -Y 'carp or arp'", s.options.Pcap)
	return nil
}

func (s *stage) election(ctx context.Context) error {
	s.tell.chapter("1. Election: both start, the one with the smaller advskew wins")
	for _, n := range []*node{s.a, s.b} {
		if err := s.start(ctx, n); err != nil {
			return err
		}
	}
	var err error
	if s.prober, err = newProber(s.client, s.shared.Addr()); err != nil {
		return err
	}
	s.tell.now("the client asks %s every millisecond", s.shared.Addr())
	nodes := []*node{s.a, s.b}
	if err := s.await(ctx, 12*time.Second, "a to become MASTER and b BACKUP", nodes, both(s.is(s.a, "MASTER"), s.is(s.b, "BACKUP"))); err != nil {
		return err
	}
	mark := time.Now()
	if err := s.await(ctx, 3*time.Second, "the client to reach the address", nodes, func() bool { return s.prober.answeredSince(mark) }); err != nil {
		return err
	}
	s.tell.now("client: reaches the address")
	if err := s.agree(ctx); err != nil {
		return err
	}
	mark = time.Now()
	if err := s.pass(ctx, time.Second, "a is MASTER", both(s.is(s.a, "MASTER"), s.is(s.b, "BACKUP"))); err != nil {
		return err
	}
	s.outage("in a second of peace", mark)
	return nil
}

// agree compares what the nodes say on their control sockets with the kernel.
func (s *stage) agree(ctx context.Context) error {
	for _, n := range []*node{s.a, s.b} {
		i, err := n.status(ctx)
		if err != nil {
			return err
		}
		present := len(i.Addresses) == 1 && i.Addresses[0].Present
		if i.State != s.world.state(n.name) || present != s.world.holds(n.name) {
			return fmt.Errorf("demo: %s says %s, address present %v; its kernel says %v", n.name, i.State, present, s.world.holds(n.name))
		}
	}
	return nil
}

// outage tells the client's longest wait since mark.
func (s *stage) outage(when string, mark time.Time) {
	s.tell.now("client: longest time without an answer %s: %s", when, round(s.prober.longest(mark)))
}

// round shows a time in milliseconds.
func round(d time.Duration) string {
	if d < time.Millisecond {
		return "less than 1 ms"
	}
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}

func (s *stage) kill(ctx context.Context) error {
	s.tell.chapter("2. kill -9 of every process of the master: nobody says goodbye")
	mark := time.Now()
	count, err := s.a.killAll()
	if err != nil {
		return err
	}
	s.a.unfollow() // before it is started again, with events numbered anew
	s.tell.line(mark, "a: %d process(es) killed; its kernel still answers for the address", count)
	if err := s.await(ctx, 12*time.Second, "b to take over and the address to leave the dead node", []*node{s.b}, both(s.is(s.b, "MASTER"), func() bool { return !s.world.holds("a") })); err != nil {
		return err
	}
	if err := s.awaitClient(ctx); err != nil {
		return err
	}
	gone, _ := s.world.last("a")
	taken, _ := s.world.last("b")
	if taken.begin.Before(gone.end) {
		return fmt.Errorf("demo: the dead node had the address until %v after the backup took it", gone.end.Sub(taken.begin))
	}
	s.tell.now("the address left the dead node %s after the kill, and %s before b took it",
		round(gone.end.Sub(mark)), round(taken.begin.Sub(gone.end)))
	s.outage("when the master was killed", mark)
	return nil
}

// awaitClient waits until the client is answered again.
func (s *stage) awaitClient(ctx context.Context) error {
	mark := time.Now()
	return s.await(ctx, 5*time.Second, "the client to reach the address again", nil, func() bool { return s.prober.answeredSince(mark) })
}

func (s *stage) comeback(ctx context.Context) error {
	s.tell.chapter("3. The old master returns and, without preempt, stays BACKUP")
	mark := time.Now()
	if err := s.start(ctx, s.a); err != nil {
		return err
	}
	still := both(s.is(s.a, "BACKUP"), s.is(s.b, "MASTER"))
	if err := s.await(ctx, 10*time.Second, "a to be BACKUP", []*node{s.a, s.b}, still); err != nil {
		return err
	}
	// Longer than its master-down time of 3 s: it hears b, or it would not stay.
	if err := s.pass(ctx, 4*time.Second, "a is BACKUP and b is MASTER", still); err != nil {
		return err
	}
	s.tell.now("a: has been BACKUP for 4 s, longer than its master-down time")
	s.outage("while the old master came back", mark)
	return s.agree(ctx)
}

func (s *stage) handover(ctx context.Context) error {
	s.tell.chapter("4. A planned handover: b lets go first, then tells a (carpctl handover)")
	mark := time.Now()
	var result api.Result
	ask, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := s.b.call(ask, "/v1/handover", api.NameRequest{}, &result); err != nil {
		return err
	}
	s.tell.now("b: %s", strings.TrimSpace(result.Text))
	nodes := []*node{s.a, s.b}
	if err := s.await(ctx, 5*time.Second, "a to be MASTER and b BACKUP", nodes, both(s.is(s.a, "MASTER"), s.is(s.b, "BACKUP"))); err != nil {
		return err
	}
	if err := s.awaitClient(ctx); err != nil {
		return err
	}
	gone, _ := s.world.last("b")
	taken, _ := s.world.last("a")
	s.tell.now("the address left b %s before a took it", round(taken.begin.Sub(gone.end)))
	s.outage("at the handover", mark)
	return s.b.call(ctx, "/v1/resume", api.NameRequest{}, &result)
}

func (s *stage) farewell(ctx context.Context) error {
	s.tell.chapter("5. Both stop: the addresses go first")
	for _, n := range []*node{s.b, s.a} {
		d, err := n.stop(5 * time.Second)
		if err != nil {
			return err
		}
		s.tell.now("%s: ended %s after SIGTERM", n.name, round(d))
	}
	return s.await(ctx, time.Second, "the last address to go", nil, func() bool { return !s.world.holds("a") && !s.world.holds("b") })
}

// logs returns the end of the nodes' logs, for an error message.
func (s *stage) logs() string {
	var b strings.Builder
	for _, n := range []*node{s.a, s.b} {
		if text := n.tail(15); text != "" {
			fmt.Fprintf(&b, "\nlog of %s:\n%s", n.name, text)
		}
	}
	return b.String()
}

// close ends what still runs; the namespaces go with this process.
func (s *stage) close() error {
	var errs []error
	for _, n := range []*node{s.a, s.b} {
		if n != nil {
			_, err := n.killAll()
			errs = append(errs, err)
			if n.unfollow != nil {
				n.unfollow()
			}
		}
	}
	if s.prober != nil {
		s.prober.close()
	}
	for _, c := range s.closers {
		c()
	}
	if s.tap != nil {
		_, err := s.tap.close()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
