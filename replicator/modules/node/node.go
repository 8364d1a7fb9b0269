// Package node runs a modules.Core: with a database, a mesh of other nodes, and a file
// for its state. One goroutine owns the Core, one the database, so that a slow database
// keeps nobody waiting for an answer.
package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator/modules"
	"github.com/carpd/carpd/replicator/modules/mesh"
)

// Backend is a database whose modules are kept equal. Its methods are called by one
// goroutine at a time.
type Backend interface {
	// Mark returns something cheap that is another one whenever a module may hold
	// something else than at the Mark before; "" if that cannot be told.
	Mark(ctx context.Context) (string, error)
	// Read returns the canonical bytes of what a module holds, and whether that is only
	// what its program found when it was started: modules.Summary.Found.
	Read(ctx context.Context, module string) (content []byte, found bool, err error)
	// Write replaces what a module holds, puts it into effect and saves it to disk. It
	// leaves alone what belongs to a node: Read does not return that either.
	Write(ctx context.Context, module string, content []byte) error
	// Close ends what is open; the next call opens it again.
	Close() error
}

// Mesh carries messages; package mesh has one.
type Mesh interface {
	// Send queues a message and does not wait; what cannot be sent is lost.
	Send(to uint8, m modules.Message)
	// Inbox returns what others say, and who cannot be reached.
	Inbox() <-chan mesh.Incoming
}

// DefaultLook is how often the database is looked at.
const DefaultLook = 250 * time.Millisecond

// Limits.
const (
	readTime  = 30 * time.Second // for one module to be read
	writeTime = 90 * time.Second // and to be written and read back; less than the Core waits
	jobs      = 64               // for the database that wait; further ones are refused
	maxEvents = 128              // that are kept for status
)

// Config says what a node is made of.
type Config struct {
	modules.Config
	Backend Backend
	Mesh    Mesh
	State   *StateFile
	Aside   *Aside        // where replaced contents are kept; nil: nowhere
	Look    time.Duration // how often the database is looked at; 0: DefaultLook
	Log     *slog.Logger  // nil: none
}

// Node is a node of the cluster. Run drives it; all other methods may be called by many
// at the same time.
type Node struct {
	cfg   Config
	calls chan func(now time.Time)
	work  chan func(ctx context.Context) // for the goroutine of the database
	done  chan struct{}

	// Of the goroutine of Run.
	core    *modules.Core
	unsaved bool

	mu     sync.Mutex
	events []Told
}

// Told is an event with its time.
type Told struct {
	Time time.Time `json:"time"`
	modules.Event
}

// ErrStopped is the error of asking a node that does not run.
var ErrStopped = errors.New("node: it does not run")

// New reads the state and makes a node of it.
func New(cfg Config) (*Node, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Look = cmp.Or(cfg.Look, DefaultLook)
	saved, err := cfg.State.Load()
	if err != nil {
		return nil, err
	}
	core, err := modules.New(cfg.Config, saved)
	if err != nil {
		return nil, err
	}
	return &Node{cfg: cfg, core: core, calls: make(chan func(time.Time)), work: make(chan func(context.Context), jobs), done: make(chan struct{})}, nil
}

// Run drives the node until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	defer close(n.done)
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all.Go(func() { n.serveDatabase(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case in := <-n.cfg.Mesh.Inbox():
			n.hear(ctx, in)
		case call := <-n.calls:
			call(time.Now())
		case <-timer.C:
			now := time.Now()
			if n.unsaved { // so that a full disk that has room again is noticed
				n.save()
			}
			n.do(ctx, n.core.Tick(now))
			timer.Reset(max(time.Until(n.core.Next()), time.Millisecond))
		}
	}
}

func (n *Node) hear(ctx context.Context, in mesh.Incoming) {
	now := time.Now()
	if in.Err != nil {
		n.cfg.Log.Debug("modules: a node cannot be reached", "node_id", in.From, "error", in.Err)
		n.do(ctx, n.core.Failed(now, in.From))
		return
	}
	n.do(ctx, n.core.Hear(now, in.From, in.Message))
}

// call has the goroutine of Run do something, and waits for it.
func (n *Node) call(ctx context.Context, do func(now time.Time)) error {
	finished := make(chan struct{})
	select {
	case n.calls <- func(now time.Time) { do(now); close(finished) }:
	case <-n.done:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-finished
	return nil
}

// Hold tells that this node is the holder from now on, in the mastership of this epoch.
func (n *Node) Hold(ctx context.Context, epoch carp.Epoch) error {
	return n.call(ctx, func(now time.Time) {
		n.do(ctx, n.core.Hold(now, epoch))
		n.do(ctx, n.core.Tick(now)) // asks its neighbours at once
	})
}

// Release tells that this node is not the holder any more.
func (n *Node) Release(ctx context.Context) error {
	return n.call(ctx, func(now time.Time) { n.do(ctx, n.core.Release(now)) })
}

// Allow lets guarded tables of a module be emptied, once.
func (n *Node) Allow(ctx context.Context, module string) error {
	return n.call(ctx, func(now time.Time) { n.do(ctx, n.core.Allow(now, module)) })
}

// Seed makes the content of this node's database that of the cluster.
func (n *Node) Seed(ctx context.Context, module string) error {
	var refused error
	err := n.call(ctx, func(now time.Time) {
		var e modules.Effects
		e, refused = n.core.Seed(now, module)
		n.do(ctx, e)
	})
	return cmp.Or(err, refused)
}

// Status is that of the Core, with what happened and whether the state is on disk.
type Status struct {
	modules.Status
	Unsaved bool   `json:"unsaved,omitempty"` // the state could not be written: this node is silent until it can
	Events  []Told `json:"events"`            // the latest, oldest first
}

// Status returns what the node knows.
func (n *Node) Status(ctx context.Context) (s Status, err error) {
	err = n.call(ctx, func(now time.Time) { s = Status{Status: n.core.Status(now), Unsaved: n.unsaved} })
	n.mu.Lock()
	defer n.mu.Unlock()
	s.Events = append([]Told(nil), n.events...)
	return s, err
}

// save writes the state.
func (n *Node) save() {
	err := n.cfg.State.Save(n.core.State())
	switch {
	case err != nil && !n.unsaved:
		n.cfg.Log.Error("modules: the state cannot be saved: silent until it can", "error", err)
	case err == nil && n.unsaved:
		n.cfg.Log.Info("modules: the state is saved again")
	}
	n.unsaved = err != nil
}

// do does what the Core asks for.
func (n *Node) do(ctx context.Context, e modules.Effects) {
	if e.Save {
		n.save()
	}
	for _, ev := range e.Events {
		n.tell(ev)
	}
	if !n.unsaved { // a stamp that could be forgotten is told to nobody
		for _, s := range e.Send {
			n.cfg.Mesh.Send(s.To, s.Message)
		}
		for _, s := range e.Serve {
			n.queue(func(ctx context.Context) { n.serve(ctx, s) })
		}
		for _, s := range e.Offer {
			n.queue(func(ctx context.Context) { n.offer(ctx, s) })
		}
	}
	for _, in := range e.Install {
		n.queue(func(ctx context.Context) { n.install(ctx, in) })
	}
}

// tell keeps an event and logs it.
func (n *Node) tell(e modules.Event) {
	level := slog.LevelInfo
	switch e.Kind {
	case modules.Conflict, modules.Refused, modules.Reverted, modules.NotTaken, modules.Failed, modules.Mismatch, modules.TwoHolders, modules.Absurd:
		level = slog.LevelWarn
	}
	n.cfg.Log.Log(context.Background(), level, "modules: "+string(e.Kind), "module", e.Module, "node_id", e.Node, "stamp", e.Stamp.String(), "text", e.Text)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, Told{time.Now(), e})
	n.events = n.events[max(0, len(n.events)-maxEvents):]
}

// queue hands something to the goroutine of the database. What finds it full is dropped:
// whoever waits for it asks again.
func (n *Node) queue(do func(context.Context)) {
	select {
	case n.work <- do:
	default:
		n.cfg.Log.Warn("modules: the database is too slow: a request is dropped")
	}
}

// serveDatabase looks at the database and does what is queued for it.
func (n *Node) serveDatabase(ctx context.Context) {
	defer func() { _ = n.cfg.Backend.Close() }()
	l := looker{n: n, known: map[string]modules.Summary{}}
	tick := time.NewTicker(n.cfg.Look)
	defer tick.Stop()
	l.look(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case do := <-n.work:
			do(ctx)
			l.mark = "" // what was written is looked at
		case <-tick.C:
			l.look(ctx)
		}
	}
}

// looker remembers what the database held.
type looker struct {
	n     *Node
	mark  string
	known map[string]modules.Summary
}

// look tells the Core what the database holds, and reads it only if it may have changed.
func (l *looker) look(ctx context.Context) {
	mark, err := limited(ctx, readTime, l.n.cfg.Backend.Mark)
	if err == nil && mark != "" && mark == l.mark {
		for name, s := range l.known {
			l.tell(ctx, name, s, nil)
		}
		return
	}
	l.mark = ""
	whole := err == nil
	for _, m := range l.n.cfg.Modules {
		var s modules.Summary
		if err == nil {
			_, s, err = l.n.read(ctx, m.Name)
		}
		if err != nil {
			_ = l.n.cfg.Backend.Close() // and opened again by the next look
			whole = false
			delete(l.known, m.Name)
		} else {
			l.known[m.Name] = s
		}
		l.tell(ctx, m.Name, s, err)
	}
	if whole {
		l.mark = mark
	}
}

func (l *looker) tell(ctx context.Context, name string, s modules.Summary, err error) {
	l.n.report(ctx, func(now time.Time) modules.Effects { return l.n.core.Looked(now, name, s, err) })
}

// report hands something to the Core, from the goroutine of the database.
func (n *Node) report(ctx context.Context, input func(now time.Time) modules.Effects) {
	_ = n.call(ctx, func(now time.Time) { n.do(ctx, input(now)) }) // its errors are those of an end
}

func limited[T any](ctx context.Context, d time.Duration, do func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return do(ctx)
}

// read reads what a module holds.
func (n *Node) read(ctx context.Context, module string) (b []byte, s modules.Summary, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	b, found, err := n.cfg.Backend.Read(ctx, module)
	if err == nil {
		s, err = modules.Summarize(b)
		s.Found = found
	}
	return b, s, err
}

// serve sends a content to who asked for it, if the database still holds it.
func (n *Node) serve(ctx context.Context, s modules.Serve) {
	b, have, err := n.read(ctx, s.Module)
	if err != nil || have.Sum != s.Meta.Stamp.Sum {
		n.cfg.Mesh.Send(s.To, modules.Gone{Module: s.Module, Stamp: s.Meta.Stamp, Reason: "it changes just now"})
		return
	}
	n.cfg.Mesh.Send(s.To, modules.Data{Module: s.Module, Meta: s.Meta, Content: b})
}

// offer sends a change of this node to the holder.
func (n *Node) offer(ctx context.Context, s modules.Serve) {
	if b, _, err := n.read(ctx, s.Module); err == nil {
		n.cfg.Mesh.Send(s.To, modules.Offer{Module: s.Module, Base: s.Meta.Stamp, Content: b})
	}
}

// install replaces a module, and reads back what the database holds then.
func (n *Node) install(ctx context.Context, in modules.Install) {
	s, err := limited(ctx, writeTime, func(ctx context.Context) (s modules.Summary, err error) {
		before, _, err := n.read(ctx, in.Module)
		if err == nil && in.Keep && n.cfg.Aside != nil && !bytes.Equal(before, in.Content) {
			err = n.cfg.Aside.Keep(in.Module, before)
		}
		if err == nil {
			err = n.cfg.Backend.Write(ctx, in.Module, in.Content)
		}
		if err != nil {
			return s, fmt.Errorf("node: install %s: %w", in.Module, err)
		}
		_, s, err = n.read(ctx, in.Module)
		return s, err
	})
	n.report(ctx, func(now time.Time) modules.Effects { return n.core.Installed(now, in.Module, s, err) })
}
