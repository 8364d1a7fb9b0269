package haproxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/haproxy"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

const patience = 10 * time.Second

// rig is a host with an HAProxy of Debian's, a server behind it and a client before it.
type rig struct {
	t                     *testing.T
	proxy, server, client *lab.Host
	dir                   string
	program               string // haproxy, in the namespace of proxy
	stopServer            func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if _, err := os.Stat("/usr/sbin/haproxy"); err != nil {
		t.Fatalf("%v: run scripts/bootstrap test", err)
	}
	lan := lab.New(t)
	r := &rig{
		t: t, dir: shortDir(t),
		proxy: lan.Host("proxy", "192.0.2.2/24"), server: lan.Host("server", "192.0.2.3/24"), client: lan.Host("client", "192.0.2.9/24"),
	}
	// The hook runs programs in the namespace of this process.
	there := r.proxy.Start(exec.Command("/usr/bin/sleep", "3600"))
	r.program = filepath.Join(r.dir, "haproxy")
	r.write("haproxy", fmt.Sprintf("#!/bin/sh\nexec nsenter --net=/proc/%d/ns/net /usr/sbin/haproxy \"$@\"\n", there.Pid), 0o700)
	r.write("haproxy.cfg", r.text(3306, "expose-fd listeners"), 0o600)
	t.Cleanup(r.proxy.KillAll) // also what has made itself a daemon
	r.serve()
	return r
}

// shortDir is a directory whose sockets have names of less than 108 bytes, which may hold
// programs that hooks run.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ha")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// text is a configuration that listens at a port.
func (r *rig) text(port int, stats string) string {
	return r.bound(fmt.Sprintf("0.0.0.0:%d", port), stats)
}

func (r *rig) bound(to, stats string) string {
	return fmt.Sprintf(`global
  stats socket %s/admin.sock mode 600 level admin %s
  maxconn 500
defaults
  mode tcp
  timeout connect 2s
  timeout client 30s
  timeout server 30s
listen db
  bind %s
  server one 192.0.2.3:3306 check inter 100 rise 1 fall 1
`, r.dir, stats, to)
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) write(name, text string, mode os.FileMode) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) read(name string) string {
	r.t.Helper()
	text, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

func (r *rig) has(name string) bool {
	_, err := os.Lstat(r.path(name))
	return err == nil
}

// config is that of a master whose own socket is used.
func (r *rig) config() haproxy.Config {
	return haproxy.Config{
		Socket: r.path("admin.sock"), Master: r.path("master.sock"), PIDFile: r.path("pid"),
		Program: r.program, Config: r.path("haproxy.cfg"), StopTime: 2 * time.Second,
	}
}

// serve starts the server, which says "hello" and then echoes.
func (r *rig) serve() {
	r.t.Helper()
	var l net.Listener
	r.server.Do(func() {
		var err error
		if l, err = net.Listen("tcp4", "192.0.2.3:3306"); err != nil {
			r.t.Fatal(err)
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintln(c, "hello")
				_, _ = bufio.NewReader(c).WriteTo(c)
			}()
		}
	}()
	r.stopServer = func() { l.Close() }
	r.t.Cleanup(r.stopServer)
}

// connect opens a session of a client, through to the server.
func (r *rig) connect(port int) (c net.Conn, err error) {
	r.client.Do(func() {
		c, err = net.DialTimeout("tcp4", fmt.Sprintf("192.0.2.2:%d", port), 5*time.Second)
	})
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "hello\n" {
		c.Close()
		return nil, fmt.Errorf("%q: %w", line, err)
	}
	return c, nil
}

func (r *rig) serves(port int) {
	r.t.Helper()
	c, err := r.connect(port)
	if err != nil {
		r.t.Fatalf("no session through port %d: %v", port, err)
	}
	c.Close()
}

// load has clients connect one after the other until stop, which returns how many
// sessions came about and why some did not.
func (r *rig) load(clients int) (stop func() (served int64, failed []error)) {
	var all sync.WaitGroup
	var served atomic.Int64
	var mu sync.Mutex
	var failed []error
	ended := make(chan struct{})
	for range clients {
		all.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				c, err := r.connect(3306)
				if err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
					continue
				}
				c.Close()
				served.Add(1)
			}
		})
	}
	return sync.OnceValues(func() (int64, []error) {
		close(ended)
		all.Wait()
		return served.Load(), failed
	})
}

// hook makes a notification.
func (r *rig) hook(change func(*haproxy.Config)) hooks.Hook {
	r.t.Helper()
	c := r.config()
	change(&c)
	h, err := haproxy.New(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

func (r *rig) run(h hooks.Hook) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*patience)
	defer cancel()
	return h.Run(ctx, hookstest.SampleEvent(hooks.AfterUp))
}

func (r *rig) must(h hooks.Hook) {
	r.t.Helper()
	if err := r.run(h); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) resource(change func(*haproxy.Config)) hooks.Resource {
	r.t.Helper()
	c := r.config()
	change(&c)
	p, err := haproxy.NewResource(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// ask sends a command to the runtime API.
func (r *rig) ask(command string) string {
	r.t.Helper()
	c, err := net.Dial("unix", r.path("admin.sock"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, command)
	var b strings.Builder
	_, _ = bufio.NewReader(c).WriteTo(&b)
	return b.String()
}

// kill ends all of HAProxy as a crash does.
func (r *rig) kill() {
	r.t.Helper()
	for _, pid := range r.pids() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	lab.Eventually(r.t, patience, "HAProxy to die", func() bool { return len(r.pids()) == 0 })
}

// pids lists the processes of HAProxy in the namespace.
func (r *rig) pids() (pids []int) {
	out, err := r.proxy.RunErr("sh", "-c", `ns=$(readlink /proc/self/ns/net)
for p in /proc/[0-9]*; do
	[ "$(cat $p/comm 2>/dev/null)" = haproxy ] && [ "$(readlink $p/ns/net)" = "$ns" ] && ! grep -qs '^State:.Z' $p/status && echo ${p#/proc/}
done; true`)
	if err != nil {
		r.t.Fatal(err)
	}
	for word := range strings.FieldsSeq(out) {
		var pid int
		if _, err := fmt.Sscan(word, &pid); err != nil {
			r.t.Fatal(errors.Join(err, errors.New(out)))
		}
		pids = append(pids, pid)
	}
	return pids
}
