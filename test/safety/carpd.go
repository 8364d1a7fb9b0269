package safety

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// Carpd is carpd at path with its defaults, speaking CARP at advbase 1.
func Carpd(path string) Daemon {
	return Daemon{
		Name: "carpd", Title: "carpd, CARP", Version: versionOf(path, "version"), Interval: time.Second,
		Only:  slices.DeleteFunc(rowNames(), func(row string) bool { return row == "path" }),
		Start: func(_ context.Context, _ lab.TB, m Member) (Running, error) { return startCarpd(path, m, carpLines) },
	}
}

// CarpdPaths is Carpd with a second path and a probe of the client side. It takes part
// in the rows that are about the network.
func CarpdPaths(path string) Daemon {
	lines := func(m Member) []string {
		return append(carpLines(m), "paths: [{interface: eth1}]", "track: [{gateway: "+clientAddr().String()+"}]")
	}
	return Daemon{
		Name: "carpd-paths", Title: "carpd, CARP, two paths", Version: versionOf(path, "version"), Interval: time.Second,
		Only: []string{"link", "cut", "mute", "deaf", "unheard", "partition", "path"}, Paths: true,
		Start: func(_ context.Context, _ lab.TB, m Member) (Running, error) { return startCarpd(path, m, lines) },
	}
}

// CarpdSealed is Carpd with adverts that cannot be replayed (replay: sealed) and a
// node_id on each node, which is what groups of carpd alone should have. It takes part
// in the rows that it is for, and in those where its members talk to each other.
func CarpdSealed(path string) Daemon {
	lines := func(m Member) []string { return append(carpLines(m), "replay: sealed") }
	return Daemon{
		Name: "carpd-sealed", Title: "carpd, CARP, sealed", Version: versionOf(path, "version"), Interval: time.Second,
		Only:  []string{"kill", "crash", "freeze", "cut", "mute", "unheard", "partition", "replay", "rewrite", "handover", "stop"},
		Start: func(_ context.Context, _ lab.TB, m Member) (Running, error) { return startCarpd(path, m, lines) },
	}
}

// CarpdVRRP is carpd at path with its defaults, speaking VRRP version 3 at an interval
// below a second.
func CarpdVRRP(name, path string, interval time.Duration) Daemon {
	return Daemon{
		Name: name, Title: "carpd, VRRP", Version: versionOf(path, "version"), Interval: interval, Only: fastRows(),
		Start: func(_ context.Context, _ lab.TB, m Member) (Running, error) { return startCarpd(path, m, vrrpLines) },
	}
}

// carpLines are the lines of an instance that speaks CARP.
func carpLines(m Member) []string {
	return []string{
		fmt.Sprintf("vhid: %d", groupID), "passphrase: " + passphrase,
		fmt.Sprintf("advbase: %d", int(m.Interval.Seconds())), fmt.Sprintf("advskew: %d", m.skew()),
	}
}

// vrrpLines are the lines of an instance that speaks VRRP.
func vrrpLines(m Member) []string {
	return []string{
		fmt.Sprintf("vrid: %d", groupID), "protocol: vrrp3", fmt.Sprintf("priority: %d", m.priority()), fmt.Sprintf("interval: %v", m.Interval),
	}
}

// carpdConfig is the file of a member.
func carpdConfig(m Member, socket string, lines []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node: %s\nnode_id: %d\nstate_dir: %s\ncontrol: %s\ninstances:\n", m.Host.Name, 1+m.Node, filepath.Join(m.Dir, "state"), socket)
	for i, line := range append(lines, "interface: eth0", "preempt: true", "addresses: ["+list(m, ", ", "")+"]") {
		lead := "    "
		if i == 0 {
			lead = "  - "
		}
		b.WriteString(lead + line + "\n")
	}
	return b.String()
}

// list are the addresses of a member, each with something after it.
func list(m Member, between, after string) string {
	var all []string
	for _, a := range m.Addresses {
		all = append(all, a.String()+after)
	}
	return strings.Join(all, between)
}

// carpd is one that runs.
type carpd struct {
	proc   *lab.Proc
	socket string
}

func startCarpd(path string, m Member, lines func(Member) []string) (Running, error) {
	file, socket := filepath.Join(m.Dir, "carpd.yaml"), filepath.Join(m.Dir, "sock")
	if err := os.WriteFile(file, []byte(carpdConfig(m, socket, lines(m))), 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return &carpd{m.Host.Start(exec.Command(path, "run", "--log-format", "json", "--config", file)), socket}, nil
}

// Leader implements Running.
func (c *carpd) Leader() int { return c.proc.Pid }

// Crash implements Running.
func (c *carpd) Crash() error { return killed(c.proc.Pid) }

// Stop implements Running.
func (c *carpd) Stop() { c.proc.Signal(syscall.SIGTERM) }

// Handover implements Running: `carpctl handover`.
func (c *carpd) Handover(ctx context.Context) error {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.socket)
		},
	}}
	body, err := json.Marshal(map[string]string{"name": fmt.Sprintf("%d@eth0", groupID)})
	if err != nil {
		return err
	}
	ask, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://carpd/v1/handover", bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := client.Do(ask)
	if err != nil {
		return fmt.Errorf("safety: hand over: %w", err)
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096)); answer.StatusCode != http.StatusOK {
		return fmt.Errorf("safety: hand over: %s: %s", answer.Status, text)
	}
	return nil
}
