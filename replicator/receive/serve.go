package receive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpd/carpd/replicator"
)

// DefaultIdle is Receiver.Idle where that is 0.
const DefaultIdle = 2 * time.Minute

// DefaultMaxSize is Receiver.MaxSize where that is 0, in bytes.
const DefaultMaxSize = 1 << 30

// workingEvery is how often a receiver that has something to do says that it lives.
const workingEvery = time.Second

// heldIdle is how long nothing may come while a snapshot is put together: one receiver
// does that at a time, and a sender that is gone without a word must not keep the next
// master waiting.
const heldIdle = 15 * time.Second

// incomingWait is how long it waits for another receiver of the same directory.
const incomingWait = heldIdle + 5*time.Second

// slackData is how much more may come for a snapshot than it is large, in bytes: what
// cannot be compressed grows a little, and there is the plan.
const slackData = maxPlan + 1<<20

// ErrIdle is the error of a receiver that heard nothing for long.
var ErrIdle = errors.New("receive: nothing came for too long")

// Store is where snapshots are received: replicator/dir has one.
type Store interface {
	replicator.Store
	// Path returns where the data of a snapshot lies.
	Path(v replicator.Version) string
	// Incoming returns a file in which a snapshot is put together, with what an attempt
	// that was cut off has left in it. It is this caller's alone until it is closed.
	Incoming(ctx context.Context) (*os.File, error)
}

// Receiver is the peer's end.
type Receiver struct {
	Store Store
	// Verify judges the file of a snapshot before it is published, its digest included.
	Verify  func(ctx context.Context, path string, m replicator.Manifest) replicator.Verdict
	MaxSize int64           // bytes; larger snapshots are refused. 0: DefaultMaxSize
	Idle    time.Duration   // how long nothing may come, or be taken; 0: DefaultIdle
	Keep    replicator.Keep // what is left of the snapshots after one was published; the zero value: all
}

// Serve answers until in ends, and returns nil then, or until ctx ends or nothing moves
// for Idle. In the last two cases a goroutine is left that ends with in and out.
func (r Receiver) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.MaxSize == 0 {
		r.MaxSize = DefaultMaxSize
	}
	if r.Idle == 0 {
		r.Idle = DefaultIdle
	}
	idle := time.NewTimer(r.Idle)
	defer idle.Stop()
	s := &serving{Receiver: r, in: in, out: out, timer: idle}
	s.limit.Store(int64(r.Idle))
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-idle.C:
		return ErrIdle
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// serving is one sender that is served.
type serving struct {
	Receiver
	in    io.Reader
	timer *time.Timer  // ends it
	limit atomic.Int64 // how long nothing may move now

	mu  sync.Mutex // around out
	out io.Writer
}

// fault is what the sender is told. ends: data may be on its way, so this is the last.
type fault struct {
	code code
	err  error
	ends bool
}

// Error implements error.
func (f fault) Error() string { return f.err.Error() }

// Unwrap returns the cause.
func (f fault) Unwrap() error { return f.err }

// moved says that the other side lives.
func (s *serving) moved() { s.timer.Reset(time.Duration(s.limit.Load())) }

// hold has the other side move within a time from now on, and returns what takes that back.
func (s *serving) hold(d time.Duration) (release func()) {
	s.limit.Store(int64(min(d, s.Idle)))
	s.moved()
	return func() {
		s.limit.Store(int64(s.Idle))
		s.moved()
	}
}

// read returns the next frame that is no sign of life.
func (s *serving) read() (frame, error) {
	for {
		f, err := readFrame(s.in)
		s.moved()
		if err != nil || f.kind != frameWorking {
			return f, err
		}
	}
}

// tell sends a frame.
func (s *serving) tell(send func(io.Writer) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := send(s.out)
	s.moved()
	return err
}

func (s *serving) run(ctx context.Context) error {
	if err := s.tell(func(w io.Writer) error { return writeJSON(w, frameHello, hello{protocol}) }); err != nil {
		return err
	}
	for {
		f, err := s.read()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = s.answer(ctx, f)
		}
		var known fault
		if err != nil && !errors.As(err, &known) {
			known = fault{codeOther, err, true}
		}
		if err != nil {
			text := err.Error()
			told := s.tell(func(w io.Writer) error {
				return writeJSON(w, frameError, failure{known.code, text[:min(len(text), maxText)]})
			})
			if known.ends || told != nil {
				return err
			}
		}
	}
}

func (s *serving) answer(ctx context.Context, f frame) error {
	switch f.kind {
	case frameNewest:
		return s.newest(ctx)
	case frameShip:
		var offer ship
		if err := f.decode(&offer); err != nil {
			return err
		}
		return s.receive(ctx, offer)
	}
	return fmt.Errorf("%w: %q is out of order", errNoFrame, f.kind)
}

func (s *serving) newest(ctx context.Context) error {
	all, err := s.Store.List(ctx)
	if err != nil {
		return fault{codeOther, err, false}
	}
	if len(all) == 0 {
		return s.tell(func(w io.Writer) error { return writeFrame(w, frameNothing, nil) })
	}
	text, err := all[0].Encode()
	if err != nil {
		return fault{codeOther, err, false}
	}
	return s.tell(func(w io.Writer) error { return writeFrame(w, frameManifest, text) })
}

// receive takes one snapshot.
func (s *serving) receive(ctx context.Context, offer ship) error {
	m, base, err := s.consider(ctx, offer)
	if err != nil {
		return err
	}
	if base != nil {
		defer base.file.Close()
	}
	var file *os.File
	err = s.busy(func() (err error) {
		limited, cancel := context.WithTimeoutCause(ctx, incomingWait, errors.New("another receives into this directory"))
		defer cancel()
		file, err = s.Store.Incoming(limited)
		return err
	})
	if err != nil {
		return fault{codeOther, err, false}
	}
	defer s.hold(heldIdle)()
	defer file.Close()
	if err := s.fill(file, m, base); err != nil {
		return err
	}
	return s.judge(ctx, file, m)
}

// based is the snapshot that only the difference to is sent.
type based struct {
	file  *os.File
	pages int64
}

// consider refuses what need not be sent, and opens the base.
func (s *serving) consider(ctx context.Context, offer ship) (m replicator.Manifest, base *based, err error) {
	m, err = replicator.DecodeManifest(offer.Manifest)
	if err != nil {
		return m, nil, fault{codeOther, err, false}
	}
	if m.Size > s.MaxSize {
		return m, nil, fault{codeRefused, fmt.Errorf("%s: %d bytes, and the limit is %d", replicator.TooLarge, m.Size, s.MaxSize), false}
	}
	if m.PageSize > 64<<10 || m.PageSize < 512 {
		return m, nil, fault{codeRefused, fmt.Errorf("%s: pages of %d bytes", replicator.BadHeader, m.PageSize), false}
	}
	all, err := s.Store.List(ctx)
	if err != nil {
		return m, nil, fault{codeOther, err, false}
	}
	if len(all) > 0 && m.Version.Compare(all[0].Version) < 0 {
		return m, nil, fault{codeOlder, fmt.Errorf("%v is there", all[0].Version), false}
	}
	if offer.Base == nil {
		return m, nil, nil
	}
	for _, have := range all {
		if have.Version == *offer.Base && have.PageSize == m.PageSize {
			f, err := os.Open(s.Store.Path(have.Version))
			if err != nil {
				return m, nil, fault{codeBase, err, false}
			}
			return m, &based{f, have.Pages}, nil
		}
	}
	return m, nil, fault{codeBase, fmt.Errorf("%v is not there", *offer.Base), false}
}

// busy does what takes its time, while the sender hears that it is being done.
func (s *serving) busy(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	tick := time.NewTicker(workingEvery)
	defer tick.Stop()
	var told error
	for {
		select {
		case err := <-done:
			return errors.Join(err, told)
		case <-tick.C:
			if told == nil {
				told = s.tell(func(w io.Writer) error { return writeFrame(w, frameWorking, nil) })
			}
		}
	}
}

// fill puts the snapshot together in file. What came before the line was cut stays in
// it; after another failure it is empty.
func (s *serving) fill(file *os.File, m replicator.Manifest, base *based) error {
	have, err := s.left(file, m)
	if err == nil {
		err = s.tell(func(w io.Writer) error { return writeJSON(w, frameReady, have) })
	}
	var f frame
	if err == nil {
		f, err = s.read()
	}
	var begin start
	if err == nil {
		err = f.decode(&begin)
	}
	if err != nil || f.kind != frameGo || begin.From != 0 && begin.From != have.Have {
		return errors.Join(fmt.Errorf("%w: %q is out of order", errNoFrame, f.kind), err)
	}
	if err := file.Truncate(begin.From); err != nil {
		return err
	}
	if _, err := file.Seek(begin.From, io.SeekStart); err != nil {
		return err
	}
	in := &incoming{s: s, left: m.Size + m.Size/64 + slackData}
	r := receiving{m: m}
	if base != nil {
		r.base, r.have = base.file, base.pages
	}
	err = r.apply(in, file, begin.From)
	switch {
	case in.cut != nil:
		return fmt.Errorf("cut off: %w", in.cut) // and the rest stays
	case err != nil:
		err = errors.Join(err, file.Truncate(0))
		if errors.Is(err, errBase) && in.drain() == nil {
			return fault{codeBase, err, false}
		}
		return err
	}
	return in.drain()
}

// left says what an attempt that was cut off has left.
func (s *serving) left(file *os.File, m replicator.Manifest) (ready, error) {
	info, err := file.Stat()
	if err != nil {
		return ready{}, err
	}
	n := min(info.Size(), m.Size)
	n -= n % m.PageSize
	if n == 0 {
		return ready{}, nil
	}
	h := sha256.New()
	err = s.busy(func() error {
		_, err := io.Copy(h, io.NewSectionReader(file, 0, n))
		return err
	})
	return ready{n, hex.EncodeToString(h.Sum(nil))}, err
}

// judge verifies what was put together, and publishes it.
func (s *serving) judge(ctx context.Context, file *os.File, m replicator.Manifest) error {
	err := s.busy(func() error {
		if v := s.Verify(ctx, file.Name(), m); !v.Sound() {
			c := codeRefused
			if v.Has(replicator.Digest) {
				c = codeDamaged
			}
			return fault{c, errors.New(v.String()), false}
		}
		err := s.Store.Publish(ctx, m, io.NewSectionReader(file, 0, m.Size))
		switch {
		case errors.Is(err, replicator.ErrOlder):
			return fault{codeOlder, err, false}
		case errors.Is(err, replicator.ErrDamaged):
			return fault{codeDamaged, err, false}
		case err != nil:
			return fault{codeOther, err, false}
		}
		if s.Keep != (replicator.Keep{}) {
			if _, err := s.Store.Prune(ctx, s.Keep, time.Now()); err != nil {
				return fault{codeOther, fmt.Errorf("published, but not pruned: %w", err), false}
			}
		}
		return nil
	})
	if empty := file.Truncate(0); err == nil {
		err = empty
	}
	if err != nil {
		return err
	}
	return s.tell(func(w io.Writer) error { return writeFrame(w, frameDone, nil) })
}

// incoming is the data that the sender sends.
type incoming struct {
	s    *serving
	left int64 // bytes that may come
	rest []byte
	end  bool
	cut  error // why nothing more comes
}

// Read implements io.Reader.
func (in *incoming) Read(b []byte) (int, error) {
	for len(in.rest) == 0 {
		if in.end {
			return 0, io.EOF
		}
		if in.cut != nil {
			return 0, in.cut
		}
		f, err := in.s.read()
		switch {
		case err == io.EOF:
			in.cut = io.ErrUnexpectedEOF
		case err != nil:
			in.cut = err
		case f.kind == frameData && int64(len(f.body)) > in.left:
			in.cut = fmt.Errorf("%w: more data than a snapshot of this size has", errNoFrame)
		case f.kind == frameData:
			in.rest, in.left = f.body, in.left-int64(len(f.body))
		case f.kind == frameEnd:
			in.end = true
		default:
			in.cut = fmt.Errorf("%w: %q among data", errNoFrame, f.kind)
		}
	}
	n := copy(b, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

// drain reads to the end, so that the next frame is the next question.
func (in *incoming) drain() error {
	_, err := io.Copy(io.Discard, in)
	return err
}
