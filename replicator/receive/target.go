package receive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/ssh"
)

// ErrRefused is the error of a snapshot that the peer does not find sound.
var ErrRefused = errors.New("receive: the peer refuses the snapshot")

// Command is what a Target asks the peer to run, where no forced command is.
const Command = "carpd receive"

// Target is the store of a peer that runs `carpd receive`. Make one with New. It
// connects when it is used, and stays connected until Close or until a call fails.
type Target struct {
	config ssh.Config
	link   *link // nil: not connected
}

var _ replicator.Target = (*Target)(nil)

// New returns a target that is not connected yet.
func New(c ssh.Config) (*Target, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Target{config: c}, nil
}

// Newest implements replicator.Target.
func (t *Target) Newest(ctx context.Context) (m replicator.Manifest, err error) {
	_, err = t.use(ctx, func(l *link) (err error) {
		m, err = l.newest(ctx)
		return err
	})
	if err != nil {
		return m, fmt.Errorf("receive: newest of %s: %w", t.config.Address, err)
	}
	return m, nil
}

// Ship implements replicator.Target. If the newest snapshot that is there is in from, too,
// only what differs from it is sent. ErrRefused says that the peer has judged it.
func (t *Target) Ship(ctx context.Context, m replicator.Manifest, from replicator.Store) (sent int64, err error) {
	sent, err = t.use(ctx, func(l *link) error { return l.ship(ctx, m, from) })
	if err != nil {
		return sent, fmt.Errorf("receive: ship %v to %s: %w", m.Version, t.config.Address, err)
	}
	return sent, nil
}

// Close implements io.Closer.
func (t *Target) Close() error {
	if t.link == nil {
		return nil
	}
	l := t.link
	t.link = nil
	return l.client.Close()
}

// use connects if need be. What fails in between ends the connection: the next call
// begins anew.
func (t *Target) use(ctx context.Context, f func(*link) error) (sent int64, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if t.link != nil && !t.link.alive(ctx) {
		_ = t.Close() // it is dead already
	}
	before := int64(0)
	if t.link == nil {
		if t.link, err = connect(ctx, t.config); err != nil {
			return 0, err
		}
	} else {
		before = t.link.client.Sent()
	}
	l := t.link
	err = f(l)
	if l.broken {
		if said := l.session.Said(); err != nil && said != "" {
			err = fmt.Errorf("%w (the peer says: %q)", err, said)
		}
		_ = t.Close()
	}
	return l.client.Sent() - before, err
}

// link is a receiver while there is a connection.
type link struct {
	client  *ssh.Client
	session *ssh.Session
	broken  bool // nobody knows what the other side reads or writes next
}

func connect(ctx context.Context, c ssh.Config) (*link, error) {
	client, err := ssh.Dial(ctx, c)
	if err != nil {
		return nil, err
	}
	session, err := client.Command(ctx, Command)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	l := &link{client: client, session: session}
	var h hello
	f, err := l.read(ctx)
	if err == nil && f.kind != frameHello {
		err = errNoFrame
	}
	if err == nil {
		err = f.decode(&h)
	}
	if err == nil && h.Protocol != protocol {
		err = fmt.Errorf("it speaks protocol %d, and we %d: install the same carpd on both", h.Protocol, protocol)
	}
	if err != nil {
		said := session.Said()
		return nil, errors.Join(fmt.Errorf("the peer does not begin as carpd receive does: %w: authorized_keys there needs command=\"carpd receive --dir DIRECTORY\" before the key (it says: %q)", err, said), client.Close())
	}
	return l, nil
}

// alive reports whether the receiver is still there: it ends when it has heard nothing for
// long.
func (l *link) alive(ctx context.Context) bool {
	if !l.client.Alive() {
		return false
	}
	_, err := l.newest(ctx)
	return err == nil || errors.Is(err, replicator.ErrNotFound)
}

// read returns the next frame that is no sign of life.
func (l *link) read(ctx context.Context) (f frame, err error) {
	for {
		err = l.client.Within(ctx, func() (err error) {
			f, err = readFrame(l.session.Out)
			return err
		})
		if err != nil {
			l.broken = true
			return f, err
		}
		if f.kind != frameWorking {
			return f, nil
		}
	}
}

// write sends a frame.
func (l *link) write(ctx context.Context, send func(io.Writer) error) error {
	err := l.client.Within(ctx, func() error { return send(l.session.In) })
	if err != nil {
		l.broken = true
	}
	return err
}

// expect reads a frame that is one of these kinds; an error of the receiver is one.
func (l *link) expect(ctx context.Context, kinds string) (frame, error) {
	f, err := l.read(ctx)
	switch {
	case err != nil:
		return f, err
	case f.kind == frameError:
		return f, l.failed(f)
	case !strings.ContainsRune(kinds, rune(f.kind)):
		l.broken = true
		return f, fmt.Errorf("%w: %q is out of order", errNoFrame, f.kind)
	}
	return f, nil
}

// errNoBase says to send everything.
var errNoBase = errors.New("the base is not what it was")

// failed returns the error that the receiver means.
func (l *link) failed(f frame) error {
	var x failure
	if err := f.decode(&x); err != nil {
		l.broken = true
		return err
	}
	text := printable(x.Text)
	switch x.Code {
	case codeOlder:
		return fmt.Errorf("%w: %s", replicator.ErrOlder, text)
	case codeDamaged:
		return fmt.Errorf("%w: %s", replicator.ErrDamaged, text)
	case codeRefused:
		return fmt.Errorf("%w: %s", ErrRefused, text)
	case codeBase:
		return fmt.Errorf("%w: %s", errNoBase, text)
	}
	l.broken = true
	return fmt.Errorf("the peer says: %s", text)
}

// printable bounds what the other side says, and leaves out what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s[:min(len(s), maxText)])
}

// newest asks what is there.
func (l *link) newest(ctx context.Context) (m replicator.Manifest, err error) {
	if err := l.write(ctx, func(w io.Writer) error { return writeFrame(w, frameNewest, nil) }); err != nil {
		return m, err
	}
	f, err := l.expect(ctx, "M0")
	if err != nil {
		return m, err
	}
	if f.kind == frameNothing {
		return m, replicator.ErrNotFound
	}
	if m, err = replicator.DecodeManifest(f.body); err != nil {
		l.broken = true
	}
	return m, err
}

// ship sends a snapshot, at first as a difference, then, if that was no use, whole.
func (l *link) ship(ctx context.Context, m replicator.Manifest, from replicator.Store) error {
	last, err := l.newest(ctx)
	s := sending{store: from, m: m}
	switch {
	case errors.Is(err, replicator.ErrNotFound):
	case err != nil:
		return err
	case last.Version == m.Version && last.SHA256 == m.SHA256:
		return nil
	case m.Version.Compare(last.Version) <= 0:
		return fmt.Errorf("%w: %v", replicator.ErrOlder, last.Version)
	default:
		s.base, s.index = commonBase(ctx, from, last, m)
	}
	err = l.send(ctx, s)
	if s.base != nil && !l.broken && (errors.Is(err, errNoBase) || errors.Is(err, replicator.ErrDamaged)) {
		s.base, s.index = nil, nil
		err = l.send(ctx, s)
	}
	return err
}

// commonBase returns a snapshot of the peer, and its pages, if it is here, too, and sound.
func commonBase(ctx context.Context, from replicator.Store, last, m replicator.Manifest) (*replicator.Manifest, map[pageKey]int64) {
	all, err := from.List(ctx)
	if err != nil || last.PageSize != m.PageSize {
		return nil, nil
	}
	for _, own := range all {
		if own.Version == last.Version && own.SHA256 == last.SHA256 && own.Pages == last.Pages {
			if index, err := indexPages(ctx, from, own); err == nil {
				return &own, index
			}
		}
	}
	return nil, nil
}

// send offers a snapshot and sends it.
func (l *link) send(ctx context.Context, s sending) error {
	text, err := s.m.Encode()
	if err != nil {
		return err
	}
	offer := ship{Manifest: text}
	if s.base != nil {
		offer.Base = &s.base.Version
	}
	if err := l.write(ctx, func(w io.Writer) error { return writeJSON(w, frameShip, offer) }); err != nil {
		return err
	}
	f, err := l.expect(ctx, "R")
	if err != nil {
		return err
	}
	var have ready
	if err := f.decode(&have); err != nil {
		l.broken = true
		return err
	}
	var p plan
	var at int64
	var dict []byte
	err = l.busy(ctx, func() (err error) {
		if p, at, err = s.plan(ctx, have); err == nil {
			dict, err = s.dictionary(ctx, p)
		}
		return err
	})
	if err == nil {
		err = l.write(ctx, func(w io.Writer) error { return writeJSON(w, frameGo, start{at}) })
	}
	if err == nil {
		err = s.write(ctx, &data{ctx: ctx, link: l}, p, dict, at)
	}
	if err == nil {
		err = l.write(ctx, func(w io.Writer) error { return writeFrame(w, frameEnd, nil) })
	}
	if err != nil {
		return l.because(ctx, err)
	}
	_, err = l.expect(ctx, "K")
	return err
}

// busy does what takes its time, while the receiver hears that it is being done: it
// keeps others waiting for as long.
func (l *link) busy(ctx context.Context, do func() error) error {
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
				told = l.write(ctx, func(w io.Writer) error { return writeFrame(w, frameWorking, nil) })
			}
		}
	}
}

// because looks why data could not be sent: the receiver may have said so and ended.
// Whatever it was, it waits for data that will not come.
func (l *link) because(ctx context.Context, err error) error {
	if l.broken && l.client.Alive() && ctx.Err() == nil {
		if f, readErr := l.read(ctx); readErr == nil && f.kind == frameError {
			err = l.failed(f)
		}
	}
	l.broken = true
	return err
}

// data sends what is written to it in frames that each go out in time.
type data struct {
	ctx  context.Context
	link *link
}

// Write implements io.Writer.
func (d *data) Write(b []byte) (int, error) {
	for done := 0; done < len(b); {
		part := b[done:min(len(b), done+dataFrame)]
		if err := d.link.write(d.ctx, func(w io.Writer) error { return writeFrame(w, frameData, part) }); err != nil {
			return done, err
		}
		done += len(part)
	}
	return len(b), nil
}
