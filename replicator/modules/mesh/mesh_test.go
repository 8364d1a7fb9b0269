package mesh_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/carpd/carpd/replicator/modules"
	"github.com/carpd/carpd/replicator/modules/mesh"
)

// key makes a node's key: the same in each run.
func key(t testing.TB, id uint8) ssh.Signer {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = id
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// net of nodes over sockets in a directory.
type fabric struct {
	t     testing.TB
	dir   string
	mu    sync.Mutex
	lines []net.Conn
}

func (f *fabric) address(id uint8) string { return filepath.Join(f.dir, fmt.Sprint(id)) }

// Dial connects to the socket that an address names.
func (f *fabric) dial(ctx context.Context, _, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", address)
	if err == nil {
		f.mu.Lock()
		f.lines = append(f.lines, c)
		f.mu.Unlock()
	}
	return c, err
}

func (f *fabric) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.lines {
		_ = c.Close()
	}
	f.lines = nil
}

// config is that of a node that knows others by their keys.
func (f *fabric) config(id uint8, others ...uint8) mesh.Config {
	l, err := net.Listen("unix", f.address(id))
	if err != nil {
		f.t.Fatal(err)
	}
	c := mesh.Config{Self: id, Cluster: "test", Key: key(f.t, id), Listen: l, Dial: f.dial}
	for _, o := range others {
		c.Peers = append(c.Peers, mesh.Peer{Node: o, Address: f.address(o), Key: key(f.t, o).PublicKey()})
	}
	return c
}

// run runs a node until the test ends.
func (f *fabric) run(c mesh.Config) *mesh.Mesh {
	f.t.Helper()
	m, err := mesh.New(c)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	})
	return m
}

func newFabric(t testing.TB) *fabric { return &fabric{t: t, dir: t.TempDir()} }

// next returns what a node hears next.
func next(t testing.TB, m *mesh.Mesh) mesh.Incoming {
	t.Helper()
	select {
	case in := <-m.Inbox():
		return in
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was heard")
	}
	return mesh.Incoming{}
}

// large is a content that does not shrink much.
func large(t testing.TB, n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	content, err := modules.Content{{Name: "t", Columns: []string{"v"}, Rows: [][]any{{b}}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestMessagesGoBothWaysOverOneConnection(t *testing.T) {
	f := newFabric(t)
	a, b := f.run(f.config(1, 2)), f.run(f.config(2, 1))
	big := modules.Data{Module: "users", Content: large(t, 5<<20)}
	for _, m := range []modules.Message{modules.Poll{Digest: modules.Digest{7}}, big, modules.Same{}} {
		a.Send(2, m)
		in := next(t, b)
		if in.From != 1 || string(modules.Append(nil, in.Message)) != string(modules.Append(nil, m)) {
			t.Fatalf("from %d came %.60v, %v", in.From, in.Message, in.Err)
		}
		b.Send(1, m)
		if in := next(t, a); in.From != 2 || string(modules.Append(nil, in.Message)) != string(modules.Append(nil, m)) {
			t.Fatalf("the answer from %d is %.60v, %v", in.From, in.Message, in.Err)
		}
	}
	if len(f.lines) != 1 {
		t.Errorf("%d connections, want one", len(f.lines))
	}
}

func TestWhoHasNotTheKeyGetsNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		caller, called func(c *mesh.Config)
	}{
		"a caller with another key":   {func(c *mesh.Config) { c.Key = key(t, 9) }, nil},
		"a server with another key":   {nil, func(c *mesh.Config) { c.Key = key(t, 9) }},
		"a caller that is not listed": {nil, func(c *mesh.Config) { c.Peers[0] = mesh.Peer{Node: 3, Address: "nowhere", Key: key(t, 3).PublicKey()} }},
		"a node of another cluster":   {func(c *mesh.Config) { c.Cluster = "other" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t)
			caller, called := f.config(1, 2), f.config(2, 1)
			if tc.caller != nil {
				tc.caller(&caller)
			}
			if tc.called != nil {
				tc.called(&called)
			}
			a, b := f.run(caller), f.run(called)
			a.Send(2, modules.Poll{})
			in := next(t, a)
			if in.Err == nil || !strings.Contains(in.Err.Error(), "key") {
				t.Errorf("it was let in, or does not say why: %v", in.Err)
			}
			select {
			case in := <-b.Inbox():
				t.Errorf("something was heard: %v", in)
			default:
			}
		})
	}
}

func TestALineThatIsCutIsMadeAnew(t *testing.T) {
	f := newFabric(t)
	a, b := f.run(f.config(1, 2)), f.run(f.config(2, 1))
	for range 3 {
		a.Send(2, modules.Poll{})
		if in := next(t, b); in.Message == nil {
			t.Fatal(in.Err)
		}
		f.cut()
		for _, m := range []*mesh.Mesh{a, b} {
			if in := next(t, m); in.Err == nil {
				t.Fatalf("the cut was not told: %v", in)
			}
		}
	}
}

func TestANodeThatIsAwayIsTold(t *testing.T) {
	f := newFabric(t)
	a := f.run(f.config(1, 2))
	a.Send(2, modules.Poll{})
	if in := next(t, a); in.From != 2 || in.Err == nil {
		t.Fatalf("%v", in)
	}
	b := f.run(f.config(2, 1))
	a.Send(2, modules.Poll{})
	if in := next(t, b); in.From != 1 || in.Err != nil {
		t.Fatalf("%v", in)
	}
}

// What the simulation reckons with: the bytes of a poll and its answer, once a
// connection stands.
func TestBytesOnTheLine(t *testing.T) {
	f := newFabric(t)
	a, b := f.run(f.config(1, 2)), f.run(f.config(2, 1))
	say := func() {
		a.Send(2, modules.Poll{})
		next(t, b)
		b.Send(1, modules.Same{})
		next(t, a)
	}
	say()
	before := a.Counts()
	const polls = 200
	for range polls {
		say()
	}
	after := a.Counts()
	poll, same := float64(after.Sent-before.Sent)/polls, float64(after.Received-before.Received)/polls
	// 52 bytes of TCP and IP, and as many for an acknowledgement that travels alone.
	const header, simulated = 52, 155
	t.Logf("a poll is %.1f bytes of SSH, its answer %.1f; with headers and acknowledgements %.0f and %.0f", poll, same, poll+2*header, same+2*header)
	for _, n := range []float64{poll, same} {
		if n+2*header > simulated+5 {
			t.Errorf("%.0f bytes: the simulation reckons with less", n+2*header)
		}
	}
}

func TestConfigurationsThatAreNotSafeAreRefused(t *testing.T) {
	f := newFabric(t)
	for name, change := range map[string]func(c *mesh.Config){
		"no key of a peer":        func(c *mesh.Config) { c.Peers[0].Key = nil },
		"two nodes with one key":  func(c *mesh.Config) { c.Peers[1].Key = c.Peers[0].Key },
		"a peer with our own key": func(c *mesh.Config) { c.Peers[0].Key = c.Key.PublicKey() },
		"two nodes with one id":   func(c *mesh.Config) { c.Peers[1].Node = c.Peers[0].Node },
		"no key of our own":       func(c *mesh.Config) { c.Key = nil },
	} {
		c := f.config(1, 2, 3)
		change(&c)
		if _, err := mesh.New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
		_ = c.Listen.Close()
	}
}
