package guardian

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
)

const (
	checkEach    = time.Second      // looks at the guardian
	silentAfter  = 3 * time.Second  // alarm
	silentMost   = 10 * time.Second // it is killed
	readyMost    = 10 * time.Second // until it guards
	goodbyeMost  = 2 * time.Second  // until it has ended
	backOffFirst = 100 * time.Millisecond
	backOffMost  = 10 * time.Second
	backOffReset = time.Minute // of life
	socketBuffer = 4 << 20     // bytes: all instances at once
)

// State is what the guardian is at. Its text is part of the interface.
type State string

// The states.
const (
	Off        State = "off"
	Starting   State = "starting"
	Guarding   State = "guarding"
	Silent     State = "silent"     // it does not look at the page: stopped, or it hangs
	Restarting State = "restarting" // it has ended, and is started again soon
)

// Options of a Keeper.
type Options struct {
	Log  *slog.Logger // required
	JSON bool         // the log's lines are JSON: the guardian's last words too
	// Hooks is the directory of the cgroup that the daemon's hooks are in, "" if there
	// is none.
	Hooks string
	// Alarm is called while nobody guards the daemon, with what is wrong, and with an
	// empty text when that is over. Required.
	Alarm func(text string)
}

// Status is what operators see.
type Status struct {
	PID      int // 0: there is none at the moment
	State    State
	Restarts uint64 // after the first start
}

// Keeper starts the guardian of this process, feeds it, and starts it again when it
// ends. Open makes one, Run keeps the guardian, Close releases the rest when Run is
// over. All methods may be called at the same time. Those of a nil Keeper do nothing.
type Keeper struct {
	o    Options
	page *page
	file *os.File // of the page

	mu     sync.Mutex       // guards what follows; held across sends, which do not block
	socket int              // to the guardian there is; -1: none
	news   map[topic][]byte // the newest message of each
	owed   map[topic]bool   // those whose news the guardian has not been sent
	hello  []byte
	used   int   // slots that were ever used
	free   []int // of them
	status Status
}

// topic is what a message is about; a newer one takes its place.
type topic struct {
	slot int
	kind kind
}

// Open makes the shared page. It starts nothing.
func Open(o Options) (*Keeper, error) {
	p, f, err := newPage()
	if err != nil {
		return nil, err
	}
	m := message{kind: kindHello, text: o.Hooks}
	hello, err := m.encode()
	if err != nil {
		return nil, err
	}
	return &Keeper{o: o, page: p, file: f, socket: -1, news: map[topic][]byte{}, owed: map[topic]bool{}, hello: hello, status: Status{State: Starting}}, nil
}

// Status returns the state of the guardian.
func (k *Keeper) Status() Status {
	if k == nil {
		return Status{State: Off}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// Turned notes that the daemon's loop lives. It is a store to memory.
func (k *Keeper) Turned(now carp.Instant) {
	if k != nil {
		k.page.word(wordTurn).Store(int64(now))
	}
}

// Close releases the page. No Ward may be used any more.
func (k *Keeper) Close() {
	if k != nil {
		k.file.Close()
		k.page.close()
	}
}

// Run keeps a guardian until ctx ends, then says goodbye and waits for its end.
func (k *Keeper) Run(ctx context.Context) {
	wait := backOffFirst
	for n := 0; ; n++ {
		began := link.Now()
		err := k.shift(ctx)
		if ctx.Err() != nil {
			return
		}
		if link.Now().Sub(began) > backOffReset {
			wait = backOffFirst
		}
		k.set(func(s *Status) { s.PID, s.State = 0, Restarting; s.Restarts++ })
		k.o.Alarm(fmt.Sprintf("nobody guards this daemon: %v. It is started again in %v; until then a crash costs a master-down time, and the addresses go by their lease.", err, wait))
		k.o.Log.Warn("the guardian has ended and is started again", "error", err, "in", wait)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		wait = min(2*wait, backOffMost)
	}
}

func (k *Keeper) set(change func(*Status)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.status)
}

// shift is the life of one guardian. It returns why that ended; the guardian is gone
// then.
func (k *Keeper) shift(ctx context.Context) error {
	k.page.word(wordPulse).Store(0)
	child, ours, err := k.start()
	if err != nil {
		return fmt.Errorf("guardian: start: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	said := make(chan message)
	conn := os.NewFile(uintptr(ours), "guardian") // non-blocking: the poller waits for it
	var reading sync.WaitGroup
	over := make(chan struct{})
	reading.Go(func() { hear(conn, said, over) })
	defer func() {
		k.mu.Lock()
		k.socket = -1
		k.mu.Unlock()
		conn.Close()
		close(over)
		reading.Wait()
	}()
	k.begin(ours, child.Process.Pid)
	check := time.NewTicker(checkEach)
	defer check.Stop()
	began, last, quiet := link.Now(), "", 0
	for {
		select {
		case <-ctx.Done():
			k.page.word(wordGoodbye).Store(1)
			_ = unix.Shutdown(ours, unix.SHUT_RDWR) // which ends its waiting
			return k.dismiss(child, ended)
		case err := <-ended:
			if last != "" {
				return errors.New(last)
			}
			return fmt.Errorf("guardian: it ended by itself: %w", errors.Join(err, errors.New(child.ProcessState.String())))
		case m := <-said:
			if m.kind == kindReady {
				k.set(func(s *Status) { s.State = Guarding })
				k.o.Alarm("")
				continue
			}
			last = m.text
			k.o.Log.Warn("the guardian says: " + m.text)
		case <-check.C:
			k.settle()
			if quiet = k.quiet(quiet, began); quiet >= int(silentMost/checkEach) {
				_ = child.Process.Kill()
				<-ended
				return fmt.Errorf("guardian: it had been silent for %v and was killed", silentMost)
			}
		}
	}
}

// quiet counts the looks at which the guardian was silent, in a row.
func (k *Keeper) quiet(count int, began carp.Instant) int {
	pulse := carp.Instant(k.page.word(wordPulse).Load())
	since, most := link.Now().Sub(max(pulse, began)), silentAfter
	if pulse == 0 {
		most = readyMost
	}
	switch {
	case since <= most:
		if count > 0 {
			k.set(func(s *Status) { s.State = Guarding })
			k.o.Alarm("")
		}
		return 0
	case count == 1: // a machine that has slept wakes all of us in any order
		k.set(func(s *Status) { s.State = Silent })
		k.o.Alarm(fmt.Sprintf("the guardian has been silent for %v: it was stopped, or the machine is so busy that not even real time helps. It is replaced if that goes on.", since.Round(time.Second)))
	}
	return count + 1
}

// dismiss waits for a guardian that was told goodbye.
func (k *Keeper) dismiss(child *exec.Cmd, ended <-chan error) error {
	late := time.NewTimer(goodbyeMost)
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
		_ = child.Process.Kill()
		return <-ended
	}
}

// start starts the process and returns our end of the socket.
func (k *Keeper) start() (child *exec.Cmd, ours int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, -1, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer theirs.Close()
	if unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer) != nil {
		_ = unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
	}
	child = &exec.Cmd{
		// The file itself: its name may stand for a newer program by now.
		Path: "/proc/self/exe", Args: []string{"carpd", Command}, Env: []string{"GOMAXPROCS=2"}, Dir: "/",
		Stderr: os.Stderr, ExtraFiles: []*os.File{theirs, k.file},
		// Of the daemon's session it is no part: what ends that must not end it.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if k.o.JSON {
		child.Args = append(child.Args, jsonWord)
	}
	if err := child.Start(); err != nil {
		unix.Close(pair[0])
		return nil, -1, err
	}
	return child, pair[0], nil
}

// hear hands on what the guardian says until its socket is closed.
func hear(from *os.File, said chan<- message, over <-chan struct{}) {
	buf := make([]byte, maxText+64)
	for {
		n, err := from.Read(buf)
		if err != nil || n == 0 {
			return
		}
		m, err := decode(buf[:n])
		if err != nil {
			continue
		}
		select {
		case said <- m:
		case <-over:
			return
		}
	}
}

// begin tells a new guardian all there is.
func (k *Keeper) begin(socket, pid int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.PID, k.status.State = pid, Starting
	k.socket = socket
	_ = k.post(k.hello)
	for t := range k.news {
		_ = k.deliver(t) // an error was told, and will be again
	}
}

// settle sends what was owed because the socket was full.
func (k *Keeper) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for t := range k.owed {
		_ = k.deliver(t)
	}
}

// deliver sends the news of a topic, or notes that they are owed. The error says that
// they can never be sent. k.mu is held.
func (k *Keeper) deliver(t topic) error {
	err := k.post(k.news[t])
	delete(k.owed, t)
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("guardian: tell: %w: raise net.core.wmem_default, or give the daemon CAP_NET_ADMIN", err)
	}
	if err != nil {
		k.owed[t] = true
	}
	return nil
}

// errNobody is why nothing can be told.
var errNobody = errors.New("guardian: there is none at the moment")

// post sends one message now or not at all. k.mu is held.
func (k *Keeper) post(b []byte) error {
	if k.socket < 0 {
		return errNobody
	}
	return unix.Sendto(k.socket, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
}
