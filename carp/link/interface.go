package link

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// Limits of watching.
const (
	// retryEvery is the time after which a reading or a membership that failed is
	// tried again.
	retryEvery = time.Second
	// maxNotes bounds how many datagrams of notes one reading answers for.
	maxNotes = 1024
)

// Options of an interface. The zero value is good.
type Options struct {
	Log *slog.Logger // nil: silent
	// Waiter reads the packets, which depend on no other thread then: they arrive
	// while something waits by it, a carp.Loop that is. Nil: a goroutine reads them.
	Waiter *Waiter
}

// Stats counts what did not go to a port, and what did, of what passed the filter of
// the socket: another id or another node's unicast is mostly not among it. All are
// totals.
type Stats struct {
	Received      uint64 // packets handed to ports; one that two ports get counts once
	UnknownVHID   uint64 // packets that no port here is for, by id, version and family
	BadFrames     uint64 // frames that carp.DecodeFrame refused (carp.DropFrame)
	Foreign       uint64 // packets for another address, or of an interface that had the name before
	Lost          uint64 // packets dropped in full inboxes (carp.DropOverflow)
	KernelDropped uint64 // frames that found the socket's buffer full
}

// Interface is one network interface and the sockets on it. It is made by Open
// and ended by Close. All methods are safe for concurrent use.
type Interface struct {
	name   string
	log    *slog.Logger
	wire   *wire
	waiter *Waiter     // reads the wire; nil: a goroutine does
	packet carp.Packet // scratch of deliver, guarded by wire.turn
	reader *reader     // used by refresh only
	notes  *os.File
	noted  syscall.RawConn
	state  atomic.Pointer[state]
	ports  portTable // stored to under mu
	counts counters
	ended  sync.WaitGroup

	mu      sync.Mutex // guards what follows, and the order of events
	groups  *groups
	trouble [2]string          // why a membership is missing, by carp.Family; logged once
	avoid   map[netip.Addr]int // how many ports avoid an address
	closed  bool
}

// Open prepares the interface of that name, which need not exist. It fails if
// the name cannot be one, or with an *OpError if a socket cannot be made: without
// CAP_NET_RAW errors.Is(err, os.ErrPermission) holds.
func Open(name string, options Options) (*Interface, error) {
	fail := func(err error, hint string) (*Interface, error) {
		return nil, &OpError{Op: "open", Object: name, Err: err, Hint: hint}
	}
	if name == "" || name == "." || name == ".." || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/: \t\n\v\f\r\x00") {
		return fail(errors.New("not the name of an interface"), "list them: ip link")
	}
	w, err := openWire(options.Waiter == nil)
	if err != nil {
		return fail(err, rawHint(err))
	}
	i := &Interface{name: name, log: options.Log, wire: w, waiter: options.Waiter, groups: openGroups(), avoid: map[netip.Addr]int{}}
	w.handle, w.full = i.deliver, i.countDropped
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	if err := i.openNotes(); err != nil {
		i.release()
		return fail(fmt.Errorf("watch the interface: %w", err), "")
	}
	if i.reader, err = newReader(); err != nil {
		i.release()
		return fail(fmt.Errorf("watch the interface: %w", err), "")
	}
	i.state.Store(&state{})
	i.refresh(false)
	if i.waiter != nil {
		i.waiter.add(i)
	} else {
		i.ended.Go(i.wire.receive)
	}
	i.ended.Go(i.watch)
	return i, nil
}

// openNotes subscribes to the kernel's notes, before the first reading.
func (i *Interface) openNotes() error {
	fd, err := openNetlink(unix.RTMGRP_LINK|unix.RTMGRP_IPV4_IFADDR|unix.RTMGRP_IPV6_IFADDR, unix.SOCK_NONBLOCK)
	if err != nil {
		return err
	}
	_ = muteShared(fd) // without it more is read than is needed
	i.notes = os.NewFile(uintptr(fd), "netlink")
	i.noted, err = i.notes.SyscallConn()
	return err
}

func rawHint(err error) string {
	if errors.Is(err, os.ErrPermission) {
		return needRaw
	}
	return ""
}

// Name returns the name that the interface is known by.
func (i *Interface) Name() string { return i.name }

// Attach makes the port of one virtual router. It fails with a *BusyError if one
// of the same Kind and id has a port on this interface already, here or in another
// process of the network namespace, and with an *OpError otherwise. The first
// event of the port says whether the link is up. The port's Close, or that of the
// interface, ends it.
func (i *Interface) Attach(config PortConfig) (carp.Link, error) {
	claimed := Claim{Interface: i.name, VHID: config.VHID, Kind: config.Kind()}
	fail := func(err error, hint string) (carp.Link, error) {
		return nil, &OpError{Op: "attach", Object: claimed.object(), Err: err, Hint: hint}
	}
	if hint, err := config.check(); err != nil {
		return fail(err, hint)
	}
	config = config.withDefaults()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return fail(ErrClosed, "")
	}
	held, err := claimed.take()
	if busy := (*BusyError)(nil); errors.As(err, &busy) {
		return nil, err
	}
	if err != nil {
		return fail(fmt.Errorf("claim the %s: %w", claimed.Kind.word(), err), "")
	}
	raw, err := openUnicast(config.Peers, config.TOS)
	if err != nil {
		unix.Close(held)
		return fail(err, rawHint(err))
	}
	p := &port{i: i, config: config, inbox: newInbox(&i.counts.lost), claim: held, raw: raw}
	p.slot().Store(p)
	i.shun(config.Avoid, 1)
	i.republish()
	p.inbox.put(stateEvent(i.state.Load()))
	return p, nil
}

// SetAvoid replaces PortConfig.Avoid of a port that Attach of this interface
// returned. If the own addresses change by it, every port gets an Up event. On a
// port that is closed, or is another's, it does nothing.
func (i *Interface) SetAvoid(link carp.Link, avoid []netip.Addr) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if p, ok := link.(*port); ok && p.i == i && p.slot().Load() == p {
		i.shun(p.config.Avoid, -1)
		p.config.Avoid = slices.Clone(avoid)
		i.shun(p.config.Avoid, 1)
		i.republish()
	}
}

// shun counts addresses in or out of those that are avoided. The caller holds mu.
func (i *Interface) shun(addresses []netip.Addr, by int) {
	for _, a := range addresses {
		a = a.Unmap().WithZone("")
		if i.avoid[a] += by; i.avoid[a] == 0 {
			delete(i.avoid, a)
		}
	}
}

// Stats returns the counters.
func (i *Interface) Stats() Stats {
	i.countDropped()
	return Stats{
		Received:      i.counts.received.Load(),
		UnknownVHID:   i.counts.unknownVHID.Load(),
		BadFrames:     i.counts.badFrames.Load(),
		Foreign:       i.counts.foreign.Load(),
		Lost:          i.counts.lost.Load(),
		KernelDropped: i.counts.kernelDropped.Load(),
	}
}

// Close closes all ports and sockets, and returns when nothing runs any more.
// Calling it twice is harmless.
func (i *Interface) Close() error {
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return nil
	}
	i.closed = true
	for p := range i.ports.all() {
		p.close()
	}
	i.mu.Unlock()
	if i.waiter != nil {
		i.waiter.remove(i)
	}
	i.wire.close()
	i.notes.Close()
	i.ended.Wait()
	i.release()
	return nil
}

// release closes whatever is open.
func (i *Interface) release() {
	i.wire.close()
	i.groups.close()
	if i.notes != nil {
		i.notes.Close()
	}
	if i.reader != nil {
		unix.Close(i.reader.fd)
	}
}

// deliver hands one frame to the ports that it is for. It is called under wire.turn.
func (i *Interface) deliver(index int, frame []byte, at carp.Instant) {
	s := i.state.Load()
	if index != s.index {
		i.counts.foreign.Add(1)
		return
	}
	p := &i.packet
	if len(frame) > maxFrame || carp.DecodeFrame(frame, p) != carp.Accepted {
		i.counts.badFrames.Add(1)
		return
	}
	if !s.forUs(p.Dst) {
		i.counts.foreign.Add(1)
		return
	}
	toCARP, toVRRP := i.ports.takers(p)
	if toCARP == nil && toVRRP == nil {
		i.counts.unknownVHID.Add(1)
		return
	}
	i.counts.received.Add(1)
	p.At = at
	if toCARP != nil {
		toCARP.deliver(p)
	}
	if toVRRP != nil {
		toVRRP.deliver(p)
	}
}

// countDropped takes over the kernel's count of what found the socket full, and
// tells all ports: whose packets they were, nobody knows.
func (i *Interface) countDropped() {
	n := i.wire.dropped()
	if n == 0 {
		return
	}
	i.counts.kernelDropped.Add(n)
	for p := range i.ports.all() {
		p.inbox.put(carp.LinkEvent{Lost: int(n)})
	}
}

// watch reads the interface anew after each note that may concern it, and when
// something is to be tried again, until the notes are closed.
func (i *Interface) watch() {
	buf := make([]byte, netlinkBuffer)
	for {
		deleted, err := i.awaitNote(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return // closed: a RawConn has an error of its own for that, not os.ErrClosed
		}
		i.refresh(deleted)
	}
}

// awaitNote returns when a note concerns the interface, or with the error of the
// read: the deadline, or the end. All notes that wait are taken together. deleted
// says that the interface was deleted, though one of its name may exist again.
func (i *Interface) awaitNote(buf []byte) (deleted bool, err error) {
	concerned, read := false, 0
	err = i.noted.Read(func(fd uintptr) bool {
		for ; read < maxNotes; read++ {
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			if err == unix.EAGAIN {
				read = 0
				return concerned
			}
			if err != nil {
				concerned = true // ENOBUFS: notes were lost
				continue
			}
			messages, err := syscall.ParseNetlinkMessage(buf[:n])
			concerned = concerned || err != nil
			known := i.state.Load()
			for _, m := range messages {
				concerned = concerned || concerns(m, i.name, known)
				deleted = deleted || deletes(m, known)
			}
		}
		return true
	})
	return deleted, err
}

// refresh reads the interface and publishes what it is. If it was deleted since,
// that is published first.
func (i *Interface) refresh(deleted bool) {
	s, err := i.reader.read(i.name)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return
	}
	if deleted {
		i.publish(&state{})
	}
	good := err == nil
	if good {
		good = i.publish(s)
	} else {
		i.log.Warn("link: "+err.Error(), "interface", i.name, "retry", retryEvery)
	}
	i.tryAgain(!good)
}

// republish publishes what is known under changed wishes of the ports. The
// caller holds mu.
func (i *Interface) republish() {
	if i.closed {
		return
	}
	s := *i.state.Load()
	if !i.publish(&s) {
		i.tryAgain(true)
	}
}

// tryAgain makes watch refresh after retryEvery, or no longer.
func (i *Interface) tryAgain(retry bool) {
	var deadline time.Time
	if retry {
		deadline = time.Now().Add(retryEvery)
	}
	_ = i.notes.SetReadDeadline(deadline) // it fails after Close only
}

// publish makes s what is known: it moves socket and memberships to the
// interface, and tells the ports what changed. It reports whether nothing is
// left to be tried again. The caller holds mu.
func (i *Interface) publish(s *state) bool {
	old, good := i.state.Load(), true
	if s.index != 0 {
		// Always: it costs nothing if the socket is bound to that very interface,
		// and the same index may be another interface by now.
		if err := i.wire.bind(s.index); err != nil {
			i.log.Warn("link: bind: "+err.Error(), "interface", i.name, "retry", retryEvery)
			s, good = &state{}, false // gone again, most likely
		}
	}
	s.choose(func(a netip.Addr) bool { return i.avoid[a] > 0 })
	i.state.Store(s)
	good = i.listen(s) && good
	cameUp := s.up && (!old.up || s.index != old.index)
	for _, family := range []carp.Family{carp.IPv4, carp.IPv6} {
		good = i.join(family, s.index, cameUp) && good
	}
	i.tell(old, s)
	return good
}

// listen makes the filter of the socket what ports and addresses ask for. The caller
// holds mu.
func (i *Interface) listen(s *state) bool {
	program, err := i.served(s).filter()
	if err == nil {
		err = i.wire.pass(program)
	}
	if err != nil {
		i.log.Warn("link: set the filter of the socket: "+err.Error(), "interface", i.name, "retry", retryEvery)
	}
	return err == nil
}

// join makes one membership what it should be. Without it adverts still arrive
// where no switch snoops, so its lack is logged, once, and tried again.
func (i *Interface) join(family carp.Family, index int, again bool) bool {
	if !i.needs(family) {
		index = 0
	}
	trouble := ""
	if err := i.groups.set(family, index, again); err != nil {
		trouble = err.Error()
	}
	if trouble != "" && trouble != i.trouble[family] {
		i.log.Warn("link: join the group: "+trouble, "interface", i.name, "family", family.String(), "retry", retryEvery)
	}
	i.trouble[family] = trouble
	return trouble == ""
}

// needs reports whether any port wants the group of family.
func (i *Interface) needs(family carp.Family) bool {
	for p := range i.ports.all() {
		if p.config.needs(family) {
			return true
		}
	}
	return false
}

// tell gives the ports the changes between two states, and logs them.
func (i *Interface) tell(old, s *state) {
	replaced := old.up && s.up && old.index != s.index
	if old.up == s.up && !replaced && (!s.up || old.local == s.local) {
		return
	}
	if old.up != s.up || replaced {
		i.log.Info("link changed", "interface", i.name, "up", s.up, "index", s.index)
	}
	for p := range i.ports.all() {
		if replaced {
			p.inbox.put(carp.LinkEvent{Down: true})
		}
		p.inbox.put(stateEvent(s))
	}
}

// stateEvent is the event that says what s is.
func stateEvent(s *state) carp.LinkEvent {
	if !s.up {
		return carp.LinkEvent{Down: true}
	}
	local := s.local
	return carp.LinkEvent{Up: &local}
}
