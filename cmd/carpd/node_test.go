package main_test

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
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// The addresses that most tests share, and how long to wait for what comes soon.
var (
	shared4 = netip.MustParseAddr("192.0.2.50")
	shared6 = netip.MustParseAddr("2001:db8::50")
)

const (
	soon       = 3 * time.Second // what needs no protocol timer
	masterDown = 3 * time.Second // of a backup with advbase 1 and advskew 0
	takeover   = 10 * time.Second
)

// lateAdvert is the longest time between two adverts of a node with advbase 1 which
// nothing holds up: the interval, and what a busy machine may add. Who waits for a
// disk, a hook or a reader is later than that.
const lateAdvert = 1900 * time.Millisecond

// settings are what a test says of a node's configuration. The zero value is
// advbase 1, advskew 0, vhid 9 on eth0, both shared addresses, one passphrase.
type settings struct {
	advskew    int
	passphrase string
	link       string
	addresses  []string
	more       []string // lines of the instance, e.g. "lease: off"
	top        []string // lines of the file
	others     []string // further instances, each as its lines in one string
}

// node is one member of the group: a host of the lab, a configuration and, once
// started, a daemon.
type node struct {
	*lab.Host
	t      testing.TB
	dir    string
	proc   *lab.Proc
	client *http.Client
	addrs  *addrWatch // what came and went in the node's namespace
}

// pair is the usual LAN: nodes a (192.0.2.1) and b (192.0.2.2), and a client.
type pair struct {
	lan    *lab.LAN
	wire   *lab.Capture
	a, b   *node
	client *lab.Host
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{lan: lab.New(t)}
	p.wire = p.lan.Capture()
	p.a = newNode(t, p.lan, "a", "192.0.2.1/24", "2001:db8::1/64")
	p.b = newNode(t, p.lan, "b", "192.0.2.2/24", "2001:db8::2/64")
	p.client = p.lan.Host("client", "192.0.2.9/24", "2001:db8::9/64")
	return p
}

// elect starts both nodes and returns when a is master and b follows it.
func (p *pair) elect(a, b settings) {
	p.a.t.Helper()
	p.a.start(a)
	p.a.promote()
	p.b.start(b)
	p.b.await("BACKUP")
	lab.Eventually(p.b.t, soon, "b to hear a", func() bool { return p.b.instance().Master != nil })
}

func newNode(t testing.TB, lan *lab.LAN, name string, prefixes ...string) *node {
	t.Helper()
	n := &node{Host: lan.Host(name, prefixes...), t: t, dir: tempDir(t)}
	n.client = &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", n.socket())
		},
	}}
	t.Cleanup(n.client.CloseIdleConnections)
	n.addrs = watchAddrs(n.Host)
	return n
}

func (n *node) socket() string { return filepath.Join(n.dir, "sock") }
func (n *node) config() string { return filepath.Join(n.dir, "carpd.yaml") }

// file writes a file into the node's directory and returns its path.
func (n *node) file(name, text string, mode os.FileMode) string {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		n.t.Fatal(err)
	}
	return path
}

// configure writes the configuration and the passphrase file.
func (n *node) configure(s settings) {
	n.t.Helper()
	if s.passphrase == "" {
		s.passphrase = "a secret"
	}
	if s.link == "" {
		s.link = "eth0"
	}
	if s.addresses == nil {
		s.addresses = []string{"192.0.2.50/24", "2001:db8::50/64"}
	}
	n.file("pass", s.passphrase+"\n", 0o600)
	var b strings.Builder
	for _, line := range s.top {
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintf(&b, "instances:\n  - vhid: 9\n    interface: %s\n    passphrase_file: pass\n    advskew: %d\n    addresses: [\"%s\"]\n",
		s.link, s.advskew, strings.Join(s.addresses, `", "`))
	for _, line := range s.more {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	for _, other := range s.others {
		fmt.Fprintf(&b, "  - %s\n", strings.ReplaceAll(strings.TrimSpace(other), "\n", "\n    "))
	}
	n.write(b.String())
}

// write writes the configuration; text is what follows the keys that every node has.
func (n *node) write(text string) {
	n.t.Helper()
	n.file("carpd.yaml", fmt.Sprintf("node: %s\nstate_dir: %s\ncontrol: %s\n%s",
		n.Name, filepath.Join(n.dir, "state"), n.socket(), text), 0o644)
}

func (n *node) command(args ...string) *exec.Cmd {
	n.t.Helper()
	return exec.Command(program(n.t, carpd), args...)
}

// start configures and starts the daemon, and returns when it answers
// and runs its instances.
func (n *node) start(s settings) {
	n.t.Helper()
	n.configure(s)
	n.startWith(n.command("run", "--config", n.config()))
}

func (n *node) startWith(cmd *exec.Cmd) {
	n.t.Helper()
	n.proc = n.Start(cmd)
	proc := n.proc
	n.t.Cleanup(func() {
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(proc.Output(), bad) {
				n.t.Errorf("carpd on %s: %s", n.Name, bad)
			}
		}
	})
	lab.Eventually(n.t, takeover, "carpd on "+n.Name+" to answer", func() bool {
		select {
		case <-proc.Done():
			n.t.Fatalf("carpd on %s ended: %s", n.Name, proc.Output())
		default:
		}
		var st api.Status
		_, err := n.try("GET", "/v1/status", nil, &st)
		return err == nil && len(st.Instances) > 0 // the socket is open before they run
	})
}

// stop ends the daemon by SIGTERM and waits for an orderly end.
func (n *node) stop() {
	n.t.Helper()
	n.proc.Signal(syscall.SIGTERM)
	if err := n.proc.Wait(takeover); err != nil {
		n.proc.Signal(syscall.SIGQUIT)
		n.proc.Wait(time.Second)
		n.t.Fatalf("carpd on %s after SIGTERM: %v", n.Name, err)
	}
}

// run runs a command of carpd to its end.
func (n *node) run(args ...string) (output string, code int) {
	n.t.Helper()
	out, err := n.RunErr(append([]string{program(n.t, carpd)}, args...)...)
	return out, exitCode(n.t, err)
}

// ctl runs carpctl against the node's daemon.
func (n *node) ctl(args ...string) (output string, code int) {
	n.t.Helper()
	out, err := n.RunErr(append([]string{program(n.t, carpctl), "--socket", n.socket()}, args...)...)
	return out, exitCode(n.t, err)
}

func exitCode(t testing.TB, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

// try asks the control socket; in and out are JSON, or nil.
func (n *node) try(method, path string, in, out any) (code int, err error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return 0, err
		}
	}
	req, err := http.NewRequest(method, "http://carpd"+path, &body)
	if err != nil {
		return 0, err
	}
	answer, err := n.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	return answer.StatusCode, err
}

// post sends a command that must be done.
func (n *node) post(path string, in, out any) {
	n.t.Helper()
	var raw json.RawMessage
	code, err := n.try("POST", path, in, &raw)
	if err != nil || code != http.StatusOK {
		n.t.Fatalf("%s: POST %s: %d %v %s", n.Name, path, code, err, raw)
	}
	if out != nil {
		if err := json.Unmarshal(raw, out); err != nil {
			n.t.Fatal(err)
		}
	}
}

// refused sends a command that must be refused, and returns what was said.
func (n *node) refused(path string, in any, want int) api.Error {
	n.t.Helper()
	var e api.Error
	if code, err := n.try("POST", path, in, &e); err != nil || code != want {
		n.t.Fatalf("%s: POST %s: %d %v %+v, want code %d", n.Name, path, code, err, e, want)
	}
	return e
}

func (n *node) status() api.Status {
	n.t.Helper()
	var st api.Status
	if _, err := n.try("GET", "/v1/status", nil, &st); err != nil {
		n.t.Fatalf("%s: status: %v", n.Name, err)
	}
	return st
}

// instance returns the status of vhid 9, the first one with that number.
func (n *node) instance() api.Instance {
	n.t.Helper()
	return n.find("vhid 9", func(i api.Instance) bool { return i.VHID == 9 })
}

// named returns the status of one instance by its name.
func (n *node) named(name string) api.Instance {
	n.t.Helper()
	return n.find(name, func(i api.Instance) bool { return i.Name == name })
}

func (n *node) find(what string, is func(api.Instance) bool) api.Instance {
	n.t.Helper()
	for _, i := range n.status().Instances {
		if is(i) {
			return i
		}
	}
	n.t.Fatalf("%s: no %s in the status", n.Name, what)
	return api.Instance{}
}

// await waits until vhid 9 is in a state; as MASTER, with all its addresses.
func (n *node) await(state string) api.Instance {
	n.t.Helper()
	return n.awaitState(state, n.instance)
}

// awaitNamed is await for an instance by its name.
func (n *node) awaitNamed(name, state string) api.Instance {
	n.t.Helper()
	return n.awaitState(state, func() api.Instance { return n.named(name) })
}

func (n *node) awaitState(state string, status func() api.Instance) api.Instance {
	n.t.Helper()
	var i api.Instance
	lab.Eventually(n.t, takeover, n.Name+" to be "+state, func() bool {
		i = status()
		return i.State == state && (state != "MASTER" || holdsAll(i))
	})
	return i
}

// holdsAll reports whether all addresses of an instance are on.
func holdsAll(i api.Instance) bool {
	return !slices.ContainsFunc(i.Addresses, func(a api.Address) bool { return !a.Present })
}

// promote makes the node master without waiting for the master-down time.
func (n *node) promote() {
	n.t.Helper()
	n.await("BACKUP")
	n.post("/v1/state", api.StateRequest{State: "master"}, nil)
	n.await("MASTER")
}

// events returns what happened after seq.
func (n *node) events(seq uint64) []api.Event {
	n.t.Helper()
	answer, err := n.client.Get(fmt.Sprintf("http://carpd/v1/events?since=%d", seq))
	if err != nil {
		n.t.Fatal(err)
	}
	defer answer.Body.Close()
	var all []api.Event
	for dec := json.NewDecoder(answer.Body); ; {
		var e api.Event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			n.t.Fatal(err)
		}
		all = append(all, e)
	}
}

// seq returns the number of the last event.
func (n *node) seq() uint64 {
	n.t.Helper()
	all := n.events(0)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].Seq
}

// transitions returns the changes of state after seq.
func (n *node) transitions(seq uint64) []api.Event {
	n.t.Helper()
	var found []api.Event
	for _, e := range n.events(seq) {
		if e.Kind == "transition" {
			found = append(found, e)
		}
	}
	return found
}

// awaitEvent waits for an event of a kind and reason after seq.
func (n *node) awaitEvent(seq uint64, kind, reason string) api.Event {
	n.t.Helper()
	var found api.Event
	lab.Eventually(n.t, takeover, fmt.Sprintf("event %s %s on %s", kind, reason, n.Name), func() bool {
		for _, e := range n.events(seq) {
			if e.Kind == kind && e.Reason == reason {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// alarm returns the text of a standing alarm of vhid 9, "" if there is none.
func (n *node) alarm(name string) string {
	n.t.Helper()
	for _, a := range n.instance().Alarms {
		if a.Name == name {
			return a.Text
		}
	}
	return ""
}

func mustPrefix(t testing.TB, s string) netip.Prefix {
	t.Helper()
	p, err := netip.ParsePrefix(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
