package link_test

import (
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/test/lab"
)

// ears holds what an inline port has been given.
type ears struct {
	mu sync.Mutex
	by []byte // the last bytes of the payloads
}

func (h *ears) packet(p *carp.Packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.by = append(h.by, p.Payload[len(p.Payload)-1])
}

func (h *ears) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.by)
}

// openRead opens eth0 of a host so that a waiter reads it, with a port that hands
// its packets over inline.
func openRead(t testing.TB, h *lab.Host) (*link.Waiter, carp.Link, *ears) {
	t.Helper()
	w := openWaiter(t)
	var i *link.Interface
	if err := h.DoErr(func() (err error) {
		i, err = link.Open("eth0", link.Options{Waiter: w})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	port, got := attach(t, h, i, link.PortConfig{VHID: vhid, IPv4: true}), &ears{}
	awaitUp(t, port, func(l carp.Local) bool { return l.IPv4.IsValid() })
	if !port.(carp.Inline).Inline(w, got.packet) {
		t.Fatal("the port is not read by its waiter")
	}
	if port.(carp.Inline).Inline(openWaiter(t), got.packet) {
		t.Fatal("the port is read by another waiter, too")
	}
	return w, port, got
}

// sendMany sends adverts back to back.
func sendMany(t testing.TB, from carp.Link, n int) {
	t.Helper()
	for k := range n {
		send(t, from, group4, byte(k))
	}
}

func TestLabWaiterReadsPacketsWithoutAnotherGoroutine(t *testing.T) {
	_, a, b := hosts(t)
	from := attach(t, a, open(t, a), both)
	awaitUp(t, from, complete)
	w, port, got := openRead(t, b)
	for n := range 20 {
		send(t, from, group4, byte(n))
		for start := w.Now(); got.count() <= n; {
			w.Wait(w.Now().Add(time.Second))
			if w.Now().Sub(start) > wait {
				t.Fatal("no packet")
			}
		}
	}
	for n, by := range got.by {
		if by != byte(n) {
			t.Fatalf("packets in the order %v", got.by)
		}
	}
	select {
	case ev := <-port.Events():
		t.Errorf("an event beside them: %+v", ev)
	default:
	}
	// Without a receiver they go the way of all links.
	port.(carp.Inline).Inline(w, nil)
	send(t, from, group4, 99)
	w.Wait(w.Now().Add(wait))
	if next(t, port, true).Packet.Payload[35] != 99 {
		t.Error("another packet")
	}
}

// The loop fires timers between two waits: one wait must not read for ever, and none
// of the frames may be lost because of that.
func TestLabOneWaitReadsABoundedNumberOfPackets(t *testing.T) {
	_, a, b := hosts(t)
	from := attach(t, a, open(t, a), both)
	awaitUp(t, from, complete)
	w, port, got := openRead(t, b)
	const flood = 1000
	sendMany(t, from, flood)
	most := 0
	for start := w.Now(); got.count() < flood && w.Now().Sub(start) < wait; {
		before := got.count()
		w.Wait(w.Now().Add(time.Millisecond))
		most = max(most, got.count()-before)
	}
	if got.count() != flood || most > 64 {
		t.Errorf("%d of %d packets, up to %d in one wait", got.count(), flood, most)
	}
	sendMany(t, from, 100)
	polled := 0
	for more := true; more; polled++ {
		more = port.(carp.Poller).Poll()
	}
	if got.count() != flood+100 || polled != 4 {
		t.Errorf("%d packets after %d polls, want %d after 4", got.count(), polled, flood+100)
	}
}

// TestLabWaiterDoesNotSpin: a socket whose interface is down or gone has an error
// to report, and a thread in real time that turns round it stops the machine.
func TestLabWaiterDoesNotSpinWhenItsInterfaceGoes(t *testing.T) {
	_, a, b := hosts(t)
	from := attach(t, a, open(t, a), both)
	awaitUp(t, from, complete)
	w, port, got := openRead(t, b)
	turns := func() (n int) {
		for end := w.Now().Add(300 * time.Millisecond); w.Now() < end; n++ {
			w.Wait(end)
		}
		return n
	}
	b.Run("ip", "link", "set", "eth0", "down")
	if n := turns(); n > 60 {
		t.Errorf("%d turns in 0.3 s while the interface was down", n)
	}
	b.Run("ip", "link", "set", "eth0", "up")
	awaitUp(t, port, func(l carp.Local) bool { return l.IPv4.IsValid() })
	for start := w.Now(); got.count() == 0 && w.Now().Sub(start) < wait; {
		send(t, from, group4, 1) // again, for the bridge may not forward yet
		w.Wait(w.Now().Add(50 * time.Millisecond))
	}
	if got.count() == 0 {
		t.Error("nothing is heard after the interface came back")
	}
	b.Run("ip", "link", "del", "eth0")
	if n := turns(); n > 60 {
		t.Errorf("%d turns in 0.3 s after the interface was deleted", n)
	}
}

// TestLabSocketThatRestsIsLookedAtAfterIt: an interface that has just come up has an
// error to report, and the first advert of the other node may already be there.
func TestLabSocketThatRestsIsLookedAtAfterIt(t *testing.T) {
	_, _, b := hosts(t)
	w, _, _ := openRead(t, b)
	early := 0
	for range 5 { // the machine may stand still, or somebody ring, but not each time
		w.Wait(w.Now()) // forgets who rang before
		w.Rest()
		until := w.Now().Add(200 * time.Millisecond)
		w.Wait(until)
		if w.Now() < until {
			early++
		}
	}
	if early < 3 {
		t.Errorf("the waiter slept to the end, deaf, %d times of 5", 5-early)
	}
}

func TestLabInterfacesComeAndGoWhileAWaiterReads(t *testing.T) {
	_, a, b := hosts(t)
	from := attach(t, a, open(t, a), both)
	awaitUp(t, from, complete)
	w := openWaiter(t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				w.Wait(w.Now().Add(time.Millisecond))
			}
		}
	}()
	defer func() { close(stop); <-done }()
	for range 20 {
		var i *link.Interface
		if err := b.DoErr(func() (err error) {
			i, err = link.Open("eth0", link.Options{Waiter: w})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		port, got := attach(t, b, i, link.PortConfig{VHID: vhid, IPv4: true}), &ears{}
		awaitUp(t, port, func(l carp.Local) bool { return l.IPv4.IsValid() })
		port.(carp.Inline).Inline(w, got.packet)
		send(t, from, group4, 7)
		lab.Eventually(t, wait, "a packet", func() bool { return got.count() == 1 })
		send(t, from, group4, 8) // may be on its way while the link closes
		if err := i.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLabReadingDoesNotAllocate(t *testing.T) {
	_, a, b := hosts(t)
	from := attach(t, a, open(t, a), both)
	awaitUp(t, from, complete)
	w, port, _ := openRead(t, b)
	n, f := 0, carp.Frame{VHID: vhid, Dst: group4, Payload: advert(1)}
	port.(carp.Inline).Inline(w, func(*carp.Packet) { n++ })
	allocs := testing.AllocsPerRun(100, func() {
		if err := from.Send(f); err != nil {
			t.Fatal(err)
		}
		w.Wait(w.Now().Add(time.Millisecond))
	})
	if allocs > 0 || n < 100 {
		t.Errorf("%v allocations a packet, %d packets", allocs, n)
	}
}

func TestLabPacketsThatTheKernelDropsAreCountedAtEveryPort(t *testing.T) {
	_, a, b := hosts(t)
	from := attach(t, a, open(t, a), both)
	awaitUp(t, from, complete)
	w, port, got := openRead(t, b)
	const flood = 20_000 // more than a socket holds
	sendMany(t, from, flood)
	for start := w.Now(); w.Now().Sub(start) < wait; {
		before := got.count()
		w.Wait(w.Now().Add(10 * time.Millisecond))
		if got.count() == before {
			break
		}
	}
	lost := 0
	for {
		select {
		case ev := <-port.Events():
			lost += ev.Lost
			continue
		default:
		}
		break
	}
	if lost == 0 || got.count()+lost != flood {
		t.Errorf("%d packets and %d lost of %d", got.count(), lost, flood)
	}
}
