package script

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// startLimit bounds how long a daemon may take to answer.
const startLimit = 20 * time.Second

// machine is a node in a network namespace: its configuration and its daemon.
type machine struct {
	*lab.Host
	node   Node
	index  int
	dir    string
	client *http.Client

	proc *lab.Proc
	read int // bytes of the daemon's log that were taken
	last []transition
}

// transition is a line of the daemon's log.
type transition struct {
	Time             time.Time `json:"ts"`
	Kind             string    `json:"kind"`
	From, To, Reason string
	Peer             string
}

func (m *machine) socket() string { return filepath.Join(m.dir, "sock") }

// open prepares the client of the control socket.
func (m *machine) open() {
	m.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", m.socket())
		},
	}}
}

// configure writes the daemon's configuration.
func (m *machine) configure(address func(Peer) netip.Addr) error {
	n := &m.node
	var b strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&b, "    "+format+"\n", a...) }
	if n.ID != 0 {
		fmt.Fprintf(&b, "node_id: %d\n", n.ID)
	}
	fmt.Fprintf(&b, "node: %s\nstate_dir: %s\ncontrol: %s\ninstances:\n  - vhid: %d\n", n.Name, filepath.Join(m.dir, "state"), m.socket(), vhid)
	line("interface: eth0")
	line("protocol: %v", n.Protocol)
	if n.Protocol.VRRP() {
		if n.Priority != 0 {
			line("priority: %d", n.Priority)
		}
		if n.Checksum != carp.ChecksumPseudo {
			line("checksum: %v", n.Checksum)
		}
	} else {
		line("advbase: %d", n.Base)
		line("advskew: %d", n.Skew)
		if !n.BSD {
			line("replay: %v", n.Replay)
		}
	}
	if pass := n.pass(); pass != "" {
		line("passphrase: %q", pass)
	}
	line("preempt: %v", n.Preempt)
	line("addresses: [%s]", quoted(n.Addresses, prefix))
	if len(n.Excluded) > 0 {
		line("addresses_excluded: [%s]", quoted(n.Excluded, prefix))
	}
	if len(n.Peers) > 0 {
		line("peers: [%s]", quoted(n.Peers, func(p Peer) string { return address(p).String() }))
	}
	for key, value := range map[string]time.Duration{"startup_delay": n.Startup, "preempt_delay": n.PreemptDelay, "roll": n.Roll, "interval": n.Interval} {
		if value > 0 {
			line("%s: %v", key, value)
		}
	}
	for text, on := range map[string]bool{"compat: bsd": n.BSD, "families: each": n.Each, "lease: off": n.NoLease, "source_mac: interface": n.MAC == "interface" && !n.Protocol.VRRP(), "mac: virtual": n.MAC == "virtual"} {
		if on {
			line("%s", text)
		}
	}
	if err := os.WriteFile(m.config(), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("script: configure %s: %w", n.Name, err)
	}
	return nil
}

// prefix is an address as it is configured.
func prefix(a netip.Addr) string {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).String()
}

func (m *machine) config() string { return filepath.Join(m.dir, "carpd.yaml") }

func quoted[T any](all []T, text func(T) string) string {
	var words []string
	for _, one := range all {
		words = append(words, fmt.Sprintf("%q", text(one)))
	}
	return strings.Join(words, ", ")
}

func (m *machine) start(carpd string, address func(Peer) netip.Addr) error {
	if err := m.configure(address); err != nil {
		return err
	}
	m.last = append(m.last, m.fresh()...) // of the one before
	m.proc, m.read = m.Start(exec.Command(carpd, "run", "--log-format", "json", "--config", m.config())), 0
	return nil
}

// ready waits until the daemon answers and runs its instance.
func (m *machine) ready() error {
	deadline := time.NewTimer(startLimit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if st, err := m.status(); err == nil && st.State != "" {
			return nil
		}
		select {
		case <-m.proc.Done():
			return fmt.Errorf("script: carpd on %s ended at once:\n%s", m.Name, m.proc.Output())
		case <-deadline.C:
			return fmt.Errorf("script: carpd on %s does not answer after %v:\n%s", m.Name, startLimit, m.proc.Output())
		case <-tick.C:
		}
	}
}

func (m *machine) terminate() { m.proc.Signal(syscall.SIGTERM) }

// freeze stops the guardian too: what it does for a daemon that hangs, the simulator
// knows nothing of.
func (m *machine) freeze() { m.SignalAll(syscall.SIGSTOP) }
func (m *machine) thaw()   { m.SignalAll(syscall.SIGCONT) }

// fresh reads the transitions that the daemon has logged since the last call.
func (m *machine) fresh() []transition {
	if m.proc == nil {
		return nil
	}
	found, read := parseLog(m.proc.Output()[m.read:])
	m.read += read
	return found
}

// parseLog returns the transitions of all whole lines, and their length.
func parseLog(log string) (found []transition, read int) {
	for {
		i := strings.IndexByte(log[read:], '\n')
		if i < 0 {
			return found, read
		}
		var t transition
		if json.Unmarshal([]byte(log[read:read+i]), &t) == nil && t.Kind == "transition" {
			found = append(found, t)
		}
		read += i + 1
	}
}

// peek returns the transitions that were not taken yet, take takes them.
func (m *machine) peek() []transition {
	m.last = append(m.last, m.fresh()...)
	return m.last
}

func (m *machine) take() []transition {
	all := m.peek()
	m.last = nil
	return all
}

// instance is what scenarios ask of /v1/status.
type instance struct {
	Protocol          string
	State             string
	AdvBase           uint8
	AdvSkew           uint8
	Effective         uint8 `json:"effective_advskew"`
	Priority          uint8
	EffectivePriority uint8 `json:"effective_priority"`
	Demotion          int
	Master            *struct{ Address, Refused string }
	Drops             map[string]uint64
}

func (m *machine) status() (instance, error) {
	var answer struct{ Instances []instance }
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	if err := m.call(ctx, "GET", "/v1/status", nil, &answer); err != nil {
		return instance{}, err
	}
	if len(answer.Instances) == 0 {
		return instance{}, nil
	}
	return answer.Instances[0], nil
}

func (m *machine) post(path string, in any) error {
	return m.call(context.Background(), "POST", path, in, nil)
}

// call asks the daemon.
func (m *machine) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("script: ask carpd on %s: %w", m.Name, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://carpd"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("script: ask carpd on %s: %w", m.Name, err)
	}
	answer, err := m.client.Do(req)
	if err != nil {
		return fmt.Errorf("script: ask carpd on %s: %w", m.Name, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, bytes.TrimSpace(text))
	}
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	if err != nil {
		return fmt.Errorf("script: ask carpd on %s: %w", m.Name, err)
	}
	return nil
}

// dead reports whether no daemon runs.
func (m *machine) dead() bool {
	if m.proc == nil {
		return true
	}
	return !errors.Is(m.proc.Wait(0), lab.ErrRunning)
}

// State implements Backend.
func (k *onKernel) State(node string) (string, error) {
	m := k.nodes[node]
	if m.dead() {
		return carp.Init.String(), nil
	}
	st, err := m.status()
	return st.State, err
}

// Ask implements Backend.
func (k *onKernel) Ask(c Command) (string, error) {
	name := c.Names[0]
	switch c.Verb {
	case "answers":
		return k.answering(k.f.asked(name), name), nil
	case "mac":
		return k.sources(name), nil
	}
	st, err := k.nodes[name].status()
	if err != nil {
		return "", err
	}
	if c.Verb == "drops" {
		var all []string
		for what, n := range st.Drops {
			if what == carp.DropState.String() {
				continue // daemons do not leave INIT at one instant: what came before that is chance
			}
			all = append(all, fmt.Sprintf("%s %d", what, n))
		}
		return dropsLine(name, all), nil
	}
	said := standing{
		state: st.State, vrrp: st.Protocol != carp.CARP.String(), base: st.AdvBase, skew: st.AdvSkew, effective: st.Effective, demotion: st.Demotion,
	}
	if said.vrrp {
		said.skew, said.effective = st.Priority, st.EffectivePriority
	}
	if st.Master != nil {
		said.hears, said.refused = k.peer(st.Master.Address), st.Master.Refused
	}
	return name + " " + said.String(), nil
}
