package guardian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/vip"
)

// Command is the argument by which the program becomes a guardian. It is the
// daemon's own affair and in no manual.
const Command = "guardian"

// What a guardian is started with.
const (
	socketFD = 3
	pageFD   = 4
	jsonWord = "json" // argument after Command: how its last words are written
)

const (
	goneMost   = 5 * time.Second  // from the death of the daemon's loop to that of its last thread
	readMost   = 256              // messages that are read between two looks
	wordsMost  = time.Second      // what the last words may take: nobody may be reading them
	memoryMost = 24 << 20         // bytes of heap that the collector keeps to if it can
	heapGrowth = 50               // per cent, see debug.SetGCPercent
	rmdirEach  = time.Millisecond // between two attempts to remove the hooks' cgroup,
	rmdirMost  = 200              // of which there are as many
)

// guardian is the process.
type guardian struct {
	socket, timer int
	death         int // an eventfd, rung when the daemon's loop has died
	page          *page
	outlet        *link.Outlet
	remover       *vip.Remover
	hooks         cgroup
	wards         map[int]*ward
	buf           []byte
}

// ward is one instance, made ready.
type ward struct {
	generation int64
	about      About // its zero value until it is told
	removal    vip.Removal
}

// Main is the guardian: args are those after Command. It returns the exit code when
// the daemon is gone, by a goodbye or not.
func Main(args []string, stderr io.Writer) int {
	// What ends the daemon must not end it: systemd tells all processes of a unit.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2)
	if kind, err := unix.GetsockoptInt(socketFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		fmt.Fprintln(stderr, "carpd: the guardian is started by carpd run, not by hand")
		return 2
	}
	runtime.LockOSThread() // for ever: its priority is that of this thread
	debug.SetGCPercent(heapGrowth)
	debug.SetMemoryLimit(memoryMost)
	_ = link.RealTime() // the daemon's log says what is missing
	// Not what comes later: without the right to lock all, that would fail.
	_ = unix.Mlockall(unix.MCL_CURRENT | mclOnFault)
	g, err := open()
	if err != nil {
		g.send(message{kind: kindReport, text: err.Error()})
		return 1
	}
	go g.attend()
	g.send(message{kind: kindReady})
	if text := g.guard(); text != "" {
		lastWords(stderr, len(args) > 0 && args[0] == jsonWord, text)
	}
	return 0
}

// mclOnFault is MCL_ONFAULT: what is never used takes no memory.
const mclOnFault = 4

// open opens all that acting needs. On an error the guardian can speak all the same.
func open() (*guardian, error) {
	g := &guardian{socket: socketFD, wards: map[int]*ward{}, buf: make([]byte, maxMessage)}
	unix.CloseOnExec(socketFD)
	unix.CloseOnExec(pageFD)
	var err error
	if g.page, err = mapPage(pageFD); err != nil {
		return g, err
	}
	if g.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return g, fmt.Errorf("guardian: make a timer: %w", err)
	}
	if g.death, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return g, fmt.Errorf("guardian: make an event: %w", err)
	}
	if g.outlet, err = link.OpenOutlet(); err != nil {
		return g, err
	}
	if g.remover, err = vip.OpenRemover(); err != nil {
		return g, err
	}
	return g, nil
}

// attend rings when the daemon's loop has died. It has a thread of its own.
func (g *guardian) attend() {
	runtime.LockOSThread()
	_ = link.RealTime()
	g.page.awaitDeath()
	_, _ = unix.Write(g.death, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // not zero, in either order
}

// guard returns when the daemon is gone, with what was done about it.
func (g *guardian) guard() string {
	for {
		gone, err := g.listen()
		dead := gone || g.page.died()
		if dead && g.page.word(wordGoodbye).Load() != 0 {
			return ""
		}
		now := link.Now()
		g.page.word(wordPulse).Store(int64(now))
		slots, sights := g.look()
		did := g.act(now, dead, slots, sights)
		if dead {
			g.finish(now, gone)
			return did.words("the daemon is gone without a goodbye")
		}
		if err != nil {
			did.failed = errors.Join(did.failed, err)
		}
		if text := did.words("the permit to act as master has lapsed"); text != "" {
			g.send(message{kind: kindReport, text: text})
		}
		if len(did.names) > 0 {
			_, sights = g.look()
		}
		g.wait(next(now, sights))
	}
}

// finish waits until the daemon is gone to its last thread: one of them may have put
// an address on in its last moment, after the guardian had taken it off.
func (g *guardian) finish(now carp.Instant, gone bool) {
	for end := now.Add(goneMost); !gone && link.Now() < end; {
		if gone, _ = g.listen(); !gone {
			g.poll(end, g.socket)
		}
	}
	slots, sights := g.look()
	g.act(now, true, slots, sights)
	g.hooks.remove()
}

// listen takes what the daemon has to say, and reports whether it is gone.
func (g *guardian) listen() (gone bool, err error) {
	for range readMost {
		n, _, flags, _, readErr := unix.Recvmsg(g.socket, g.buf, nil, unix.MSG_DONTWAIT)
		switch {
		case readErr == unix.EINTR:
		case readErr == unix.EAGAIN:
			return false, err
		case readErr != nil || n == 0:
			return true, err // ECONNRESET: it had not read all that it was told
		case flags&unix.MSG_TRUNC != 0:
			err = errMessage
		default:
			if m, wrong := decode(g.buf[:n]); wrong == nil {
				g.heed(m)
			} else {
				err = wrong
			}
		}
	}
	return false, err
}

// heed takes one message and makes ready what it needs.
func (g *guardian) heed(m message) {
	switch m.kind {
	case kindHello:
		g.hooks.close()
		g.hooks = openCgroup(m.text)
	case kindForget:
		if w := g.wards[m.slot]; w != nil && w.generation == m.generation {
			delete(g.wards, m.slot)
		}
	case kindWard:
		g.ward(m).about = m.about
	case kindPlace:
		g.ward(m).removal = vip.NewRemoval(m.place.index, m.place.prefixes)
	}
}

// ward is the one that a message is about: another generation is another instance.
func (g *guardian) ward(m message) *ward {
	w := g.wards[m.slot]
	if w == nil || w.generation != m.generation {
		w = &ward{generation: m.generation}
		g.wards[m.slot] = w
	}
	return w
}

// look reads the page for every instance that is known.
func (g *guardian) look() (slots []int, sights []sight) {
	for slot, w := range g.wards {
		s := sight{permit: w.about.Permit, margin: w.about.Margin}
		if g.page.generation(slot).Load() == w.generation {
			s.until = carp.Instant(g.page.until(slot).Load())
		}
		slots, sights = append(slots, slot), append(sights, s)
	}
	return slots, sights
}

// wait returns at the given instant, or when the daemon says something or ends.
func (g *guardian) wait(until carp.Instant) { g.poll(until, g.socket, g.death) }

// poll returns at the given instant, or when one of the files has something.
func (g *guardian) poll(until carp.Instant, files ...int) {
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(until))}
	if err := unix.TimerfdSettime(g.timer, unix.TFD_TIMER_ABSTIME, &at, nil); err != nil {
		panic("guardian: set the timer: " + err.Error()) // a wrong instant: a fault of ours
	}
	fds := []unix.PollFd{{Fd: int32(g.timer), Events: unix.POLLIN}}
	for _, fd := range files {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if _, err := unix.Ppoll(fds, nil, nil); err == nil && fds[0].Revents != 0 {
		var rang [8]byte
		_, _ = unix.Read(g.timer, rang[:])
	}
}

// send tells the daemon something, if it listens.
func (g *guardian) send(m message) {
	if b, err := m.encode(); err == nil {
		_ = unix.Sendto(g.socket, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	}
}

// lastWords writes one line where the daemon has written its log, and does not wait
// for a reader that is gone with it.
func lastWords(to io.Writer, json bool, text string) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		var h slog.Handler = slog.NewTextHandler(to, nil)
		if json {
			h = slog.NewJSONHandler(to, nil)
		}
		slog.New(h).Log(context.Background(), slog.LevelWarn, "carpd guardian: "+text)
	}()
	select {
	case <-said:
	case <-time.After(wordsMost):
	}
}
