package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// node is a host that runs carpd. It may be started again after its end.
type node struct {
	*host
	advskew int
	binary  string
	dir     string // configuration, passphrase, log
	run     string // control socket and state: on the private /run

	cmd      *exec.Cmd
	done     chan error // gets the result of the process once
	unfollow func()     // ends the reading of its events; nil before the first start
}

// configText is the configuration of a node.
func configText(name, dir, run string, advskew int) string {
	return fmt.Sprintf(`# made by carpd demo
node: %s
state_dir: %s
control: %s
instances:
  - vhid: %d
    interface: eth0
    passphrase_file: %s
    advskew: %d
    addresses: [%s]
`, name, filepath.Join(run, "state"), filepath.Join(run, "carpd.sock"), vhid,
		filepath.Join(dir, "passphrase"), advskew, sharedPrefix)
}

// newNode writes the files of a node below dir and run.
func newNode(h *host, binary, dir, run string, advskew int) (*node, error) {
	n := &node{host: h, advskew: advskew, binary: binary, dir: filepath.Join(dir, h.name), run: filepath.Join(run, h.name)}
	for _, path := range []string{n.dir, filepath.Join(n.run, "state")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, fmt.Errorf("demo: make directory: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(n.dir, "passphrase"), []byte("carpd demo\n"), 0o600); err != nil {
		return nil, fmt.Errorf("demo: write passphrase: %w", err)
	}
	text := configText(h.name, n.dir, n.run, advskew)
	if err := os.WriteFile(n.config(), []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("demo: write configuration: %w", err)
	}
	return n, nil
}

func (n *node) config() string { return filepath.Join(n.dir, "carpd.yaml") }
func (n *node) log() string    { return filepath.Join(n.dir, "carpd.log") }

// start starts carpd on the node; its log goes to a file.
func (n *node) start() error {
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("demo: open log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(n.binary, "run", "--config", n.config())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo
	if err := n.do(cmd.Start); err != nil {
		return fmt.Errorf("demo: start carpd on %s: %w", n.name, err)
	}
	n.cmd, n.done = cmd, make(chan error, 1)
	go func(done chan<- error) { done <- cmd.Wait() }(n.done)
	return nil
}

// stop ends carpd by SIGTERM and returns how long it took; the error says that
// it did not end well within the limit.
func (n *node) stop(limit time.Duration) (time.Duration, error) {
	begin := time.Now()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("demo: stop carpd on %s: %w", n.name, err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-n.done:
		if err != nil {
			return 0, fmt.Errorf("demo: carpd on %s ended badly: %w", n.name, err)
		}
		return time.Since(begin), nil
	case <-timer.C:
		return 0, fmt.Errorf("demo: carpd on %s did not end within %v of SIGTERM", n.name, limit)
	}
}

// client talks to the node's control socket.
func (n *node) client() *http.Client {
	socket := filepath.Join(n.run, "carpd.sock")
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
}

// call makes one request of the control socket; in is nil for GET.
func (n *node) call(ctx context.Context, path string, in, out any) error {
	method, body := http.MethodGet, []byte(nil)
	if in != nil {
		method = http.MethodPost
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("demo: write request %s: %w", path, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://carpd"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("demo: make request %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := n.client().Do(req)
	if err != nil {
		return fmt.Errorf("demo: ask carpd on %s: %w", n.name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var refusal api.Error
		_ = json.NewDecoder(resp.Body).Decode(&refusal) // the status says enough
		return fmt.Errorf("demo: carpd on %s refused %s: %s: %s", n.name, path, resp.Status, refusal.Error)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("demo: read answer of %s on %s: %w", n.name, path, err)
	}
	return nil
}

// follow hands the node's events to note, from the first on, until ctx ends or
// the daemon does. It waits for the socket to appear.
func (n *node) follow(ctx context.Context, note func(api.Event)) {
	var seq uint64
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	client := n.client()
	for {
		url := "http://carpd/v1/events?follow=1&since=" + strconv.FormatUint(seq, 10)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return
		}
		if resp, err := client.Do(req); err == nil {
			lines := json.NewDecoder(resp.Body)
			for {
				var e api.Event
				if lines.Decode(&e) != nil {
					break
				}
				if e.Seq > seq {
					seq = e.Seq
					note(e)
				}
			}
			_ = resp.Body.Close()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// status asks for the node's one instance.
func (n *node) status(ctx context.Context) (api.Instance, error) {
	var s api.Status
	if err := n.call(ctx, "/v1/status", nil, &s); err != nil {
		return api.Instance{}, err
	}
	if len(s.Instances) != 1 {
		return api.Instance{}, fmt.Errorf("demo: carpd on %s has %d instances, want 1", n.name, len(s.Instances))
	}
	return s.Instances[0], nil
}

// tail returns the end of the node's log.
func (n *node) tail(lines int) string {
	text, err := os.ReadFile(n.log())
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
