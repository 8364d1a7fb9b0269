// Package mesh carries the messages of package modules between the nodes of a cluster:
// over SSH connections that stay open, with keys that are pinned on both sides. There is
// no password, no certificate and no first use that is trusted: who has not the private
// key of a node that is listed gets nothing, in either direction.
//
// Each node has one ed25519 key, with which it is server and client. Nothing else is
// spoken: one kind of channel, no shell, no forwarding.
package mesh

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/carpd/carpd/replicator/modules"
)

// Limits.
const (
	handshakeTime = 5 * time.Second
	writeTime     = 20 * time.Second // for one message
	unheardTime   = 5 * time.Second  // bytes that are not acknowledged for so long end a connection
	idleTime      = time.Minute      // without a message a connection ends
	queueLength   = 64               // messages to one node; further ones are dropped and counted
	maxHandshakes = 32               // at a time; further callers wait in the kernel
	largeFrom     = 256 << 10        // bytes: of messages that are larger, packed or not,
	maxLarge      = 4                // so many are in memory; the lines of others wait
)

// channelType is the one kind of channel.
const channelType = "modules@carpd"

// Peer is another node.
type Peer struct {
	Node    uint8  // its id
	Address string // HOST:PORT
	Key     ssh.PublicKey
}

// Config says who may talk to whom.
type Config struct {
	Self    uint8
	Cluster string     // name; nodes of another one are refused
	Key     ssh.Signer // of this node
	Peers   []Peer
	Listen  net.Listener // taken over, and closed by Run
	Log     *slog.Logger // nil: none

	// Dial connects; nil: net.Dialer. Tests cut lines here.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Incoming is a message, or the end of a connection, of another node.
type Incoming struct {
	From    uint8
	Message modules.Message
	Err     error // the node cannot be reached, or its connection ended; Message is nil
}

// Mesh is one node's side of all connections. Run drives it; Send and Counts may be
// called by many at the same time, also when Run has ended.
type Mesh struct {
	cfg   Config
	inbox chan Incoming // without a queue: what waits is one message of each line
	large chan struct{} // a place for each large message until it is taken over
	nodes map[uint8]*node
	sent  atomic.Int64
	got   atomic.Int64
	lost  atomic.Int64
	calls atomic.Int64 // of others, so far
}

// node is the line to another node. Whoever has a connection serves the queue.
type node struct {
	Peer
	queue chan modules.Message
	wake  chan struct{} // somebody has something to say and there may be no connection
	mu    sync.Mutex
	lines map[*line]bool
	call  *line // the latest that it made
}

// Validate finds what no mesh can be, but for a listener that is missing.
func (c Config) Validate() error {
	if c.Key == nil {
		return errors.New("mesh: this node has no key")
	}
	owner := map[string]string{string(c.Key.PublicKey().Marshal()): "this node"}
	ids := map[uint8]bool{c.Self: true}
	for _, p := range c.Peers {
		if p.Key == nil {
			return fmt.Errorf("mesh: node %d has no public key", p.Node)
		}
		if ids[p.Node] {
			return fmt.Errorf("mesh: node %d is there twice", p.Node)
		}
		if o := owner[string(p.Key.Marshal())]; o != "" {
			return fmt.Errorf("mesh: node %d has the key of %s: make one for each", p.Node, o)
		}
		ids[p.Node], owner[string(p.Key.Marshal())] = true, fmt.Sprintf("node %d", p.Node)
	}
	return nil
}

// New returns the Mesh of a node.
func New(cfg Config) (*Mesh, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Listen == nil {
		return nil, errors.New("mesh: a listener is needed")
	}
	m := &Mesh{cfg: cfg, inbox: make(chan Incoming), large: make(chan struct{}, maxLarge), nodes: map[uint8]*node{}}
	for _, p := range cfg.Peers {
		m.nodes[p.Node] = &node{Peer: p, queue: make(chan modules.Message, queueLength), wake: make(chan struct{}, 1), lines: map[*line]bool{}}
	}
	return m, nil
}

// Counts is what went over all lines so far.
type Counts struct {
	Sent     int64 `json:"sent_bytes"` // of SSH, without TCP and IP
	Received int64 `json:"received_bytes"`
	Dropped  int64 `json:"dropped_messages"` // since a queue was full or a line ended
}

// Counts returns what went over all lines so far.
func (m *Mesh) Counts() Counts { return Counts{m.sent.Load(), m.got.Load(), m.lost.Load()} }

// Inbox returns what others say.
func (m *Mesh) Inbox() <-chan Incoming { return m.inbox }

// Send queues a message. It does not wait: what finds a full queue is dropped, and the
// next poll says it again.
func (m *Mesh) Send(to uint8, msg modules.Message) {
	n := m.nodes[to]
	if n == nil {
		return
	}
	select {
	case n.queue <- msg:
	default:
		m.lost.Add(1)
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Run accepts and makes connections until ctx ends, and returns when all are closed.
func (m *Mesh) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, n := range m.nodes {
		all.Go(func() { m.keep(ctx, n) })
	}
	all.Go(func() { <-ctx.Done(); _ = m.cfg.Listen.Close() })
	slots := make(chan struct{}, maxHandshakes)
	for {
		conn, err := m.cfg.Listen.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("mesh: accept: %w", err)
			}
			if !pause(ctx, 100*time.Millisecond) { // too many open files, and the like
				return nil
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			_ = conn.Close()
			return nil
		}
		all.Go(func() {
			m.accept(ctx, conn, func() { <-slots })
		})
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// keep has a connection to a node while there is something to say to it.
func (m *Mesh) keep(ctx context.Context, n *node) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		if n.connected() {
			continue // its writer takes what is queued
		}
		l, err := m.dial(ctx, n)
		if err != nil {
			n.drain(&m.lost)
			m.deliver(ctx, Incoming{From: n.Node, Err: err})
			continue
		}
		m.serve(ctx, l)
	}
}

func (n *node) connected() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.lines) > 0
}

// drain drops what is queued for a node that cannot be reached: it is old when it can.
func (n *node) drain(lost *atomic.Int64) {
	for {
		select {
		case <-n.queue:
			lost.Add(1)
		default:
			return
		}
	}
}

func (m *Mesh) deliver(ctx context.Context, in Incoming) bool {
	select {
	case m.inbox <- in:
		return true
	case <-ctx.Done():
		return false
	}
}

// dial connects to a node and sees that it is that.
func (m *Mesh) dial(ctx context.Context, n *node) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	dial := m.cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "tcp", n.Address)
	if err != nil {
		return nil, fmt.Errorf("mesh: reach node %d: %w", n.Node, err)
	}
	l := &line{node: n, conn: m.count(conn), done: make(chan struct{}), ready: func() {}}
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	secure, channels, requests, err := ssh.NewClientConn(l.conn, n.Address, &ssh.ClientConfig{
		User:              m.cfg.Cluster,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(m.cfg.Key)},
		HostKeyCallback:   ssh.FixedHostKey(n.Key),
		HostKeyAlgorithms: []string{n.Key.Type()},
		ClientVersion:     "SSH-2.0-carpd",
	})
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("mesh: reach node %d at %s: %w: its key and ours are those of the configuration, on both sides?", n.Node, n.Address, err)
	}
	go ssh.DiscardRequests(requests)
	go refuse(channels)
	ch, requests, err := secure.OpenChannel(channelType, nil)
	if err != nil {
		_ = secure.Close()
		return nil, fmt.Errorf("mesh: reach node %d: %w", n.Node, err)
	}
	go ssh.DiscardRequests(requests)
	l.channel = ch
	l.end = secure.Close
	_ = conn.SetDeadline(time.Time{})
	return l, nil
}

// refuse is what a client answers to a server that asks for channels.
func refuse(channels <-chan ssh.NewChannel) {
	for c := range channels {
		_ = c.Reject(ssh.Prohibited, "not served")
	}
}

// accept serves a node that calls. handshaken is called once, early.
func (m *Mesh) accept(ctx context.Context, conn net.Conn, handshaken func()) {
	release := sync.OnceFunc(handshaken)
	defer release()
	l, err := m.greet(ctx, conn)
	if err != nil {
		m.cfg.Log.Debug("mesh: a caller is refused", "from", conn.RemoteAddr(), "error", err)
		_ = conn.Close()
		return
	}
	l.ready = release
	m.serve(ctx, l)
}

// greet sees who calls.
func (m *Mesh) greet(ctx context.Context, conn net.Conn) (*line, error) {
	counted := m.count(conn)
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	server := &ssh.ServerConfig{
		MaxAuthTries:  2,
		ServerVersion: "SSH-2.0-carpd",
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			n := m.byKey(key)
			switch {
			case c.User() != m.cfg.Cluster:
				return nil, fmt.Errorf("a node of cluster %q", c.User())
			case n == nil:
				return nil, errors.New("no node has this key")
			}
			return &ssh.Permissions{ExtraData: map[any]any{nodeKey{}: n}}, nil
		},
	}
	server.AddHostKey(m.cfg.Key)
	secure, channels, requests, err := ssh.NewServerConn(counted, server)
	if err != nil {
		return nil, err
	}
	go ssh.DiscardRequests(requests)
	n := secure.Permissions.ExtraData[nodeKey{}].(*node)
	select {
	case c, ok := <-channels:
		if !ok || c.ChannelType() != channelType {
			_ = secure.Close()
			return nil, errors.New("another kind of channel")
		}
		number := m.calls.Add(1) // before the caller knows that it is connected, and may call again
		ch, requests, err := c.Accept()
		if err != nil {
			_ = secure.Close()
			return nil, err
		}
		go ssh.DiscardRequests(requests)
		go refuse(channels)
		_ = conn.SetDeadline(time.Time{})
		return &line{node: n, conn: counted, channel: ch, end: secure.Close, called: true, number: number, done: make(chan struct{})}, nil
	case <-ctx.Done():
		_ = secure.Close()
		return nil, ctx.Err()
	}
}

type nodeKey struct{}

func (m *Mesh) byKey(key ssh.PublicKey) *node {
	for _, n := range m.nodes {
		if bytes.Equal(n.Key.Marshal(), key.Marshal()) {
			return n
		}
	}
	return nil
}

// counted counts the bytes of a connection.
type counted struct {
	net.Conn
	m *Mesh
}

func (m *Mesh) count(c net.Conn) net.Conn {
	abandon(c)
	return counted{c, m}
}

// Read implements net.Conn.
func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.m.got.Add(int64(n))
	return n, err
}

// Write implements net.Conn.
func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.m.sent.Add(int64(n))
	return n, err
}

// serve reads and writes a line until it ends.
func (m *Mesh) serve(ctx context.Context, l *line) {
	n, run := l.node, ctx
	ctx, cancel := context.WithCancel(ctx)
	defer close(l.done)
	n.add(l, cancel)
	l.ready()
	stop := context.AfterFunc(ctx, func() { _ = l.end(); _ = l.conn.Close() })
	var writer sync.WaitGroup
	writer.Go(func() { m.write(ctx, l); cancel() })
	err := m.read(ctx, l)
	cancel()
	writer.Wait()
	stop()
	_ = l.end()
	_ = l.conn.Close()
	n.mu.Lock()
	delete(n.lines, l)
	others := len(n.lines)
	n.mu.Unlock()
	if others == 0 && !errors.Is(err, errIdle) {
		m.deliver(run, Incoming{From: n.Node, Err: cmp.Or(err, errEnded)})
	}
}

// add makes a line one of the node's. Of those that the node made there is one: it makes
// another only when it holds that for dead. So there are two at most, with ours.
func (n *node) add(l *line, cancel func()) {
	l.cancel = cancel
	n.mu.Lock()
	n.lines[l] = true
	older := n.call
	switch {
	case !l.called:
		older = nil
	case older != nil && older.number > l.number: // it was overtaken here
		older = nil
		cancel()
	default:
		n.call = l
	}
	n.mu.Unlock()
	if older != nil {
		older.cancel()
		<-older.done
	}
}

var (
	errIdle  = errors.New("mesh: nothing was said for a minute")
	errEnded = errors.New("mesh: the connection ended")
)
