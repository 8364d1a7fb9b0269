package blockdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Settings are those of one node's stand-in. They are in the file "settings" of its
// directory; Install writes it.
type Settings struct {
	Kind    string // hast or drbd
	Dir     string // of the node: programs, copy, metadata, device
	Name    string // of the resource
	Size    int64  // of the device, a multiple of 64 KiB
	Listen  string // ADDRESS:PORT of this node
	Remote  string // of the other one
	Timeout time.Duration
}

// Device is where the device of a primary is.
func (s Settings) Device() string { return filepath.Join(s.Dir, "dev", s.Name) }

func (s Settings) socket() string { return filepath.Join(s.Dir, "control") }

// fault returns the value of a fault that is set, see Node.Fault.
func (s Settings) fault(name string) string {
	text, err := os.ReadFile(filepath.Join(s.Dir, "faults", name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// faultTime is a fault whose value is a time.
func (s Settings) faultTime(name string) time.Duration {
	d, err := time.ParseDuration(s.fault(name))
	if err != nil {
		return 0
	}
	return d
}

func readSettings(dir string) (s Settings, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "settings"))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	return s, err
}

// request is what a control program asks the daemon, reply its answer.
type request struct {
	Args []string
}

type reply struct {
	Out, Err string
	Code     int
}

// daemon is hastd, or what the kernel does for DRBD.
type daemon struct {
	set Settings
	r   *replica

	mu     sync.Mutex
	role   string // as hastctl writes it
	worker int    // number of the running worker, 0: none
	count  int
	device *os.File // the loop device of a primary
	served atomic.Pointer[served]
	stop   chan struct{} // of the primary's worker
	over   chan struct{} // closed when that has ended
	conn   net.Conn      // of the secondary's worker
	gone   chan struct{} // closed when that has ended
}

// runDaemon serves until it is killed.
func runDaemon(dir string) error {
	set, err := readSettings(dir)
	if err != nil {
		return err
	}
	r, err := openReplica(set)
	if err != nil {
		return err
	}
	d := &daemon{set: set, r: r, role: "init"}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		d.abandon()
		os.Exit(0)
	}()
	if set.Kind == "drbd" {
		d.role = "secondary" // as `drbdadm up` leaves it
	}
	peers, err := net.Listen("tcp", set.Listen)
	if err != nil {
		return err
	}
	for _, left := range []string{set.Device(), set.socket()} { // by one that was killed
		if err := os.Remove(left); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	go d.accept(peers)
	control, err := net.Listen("unix", set.socket())
	if err != nil {
		return err
	}
	for {
		conn, err := control.Accept()
		if err != nil {
			return err
		}
		go d.serveControl(conn)
	}
}

func (d *daemon) serveControl(conn net.Conn) {
	defer conn.Close()
	var q request
	if err := json.NewDecoder(conn).Decode(&q); err != nil {
		return
	}
	var a reply
	switch d.set.Kind {
	case "hast":
		a = d.hast(q.Args)
	case "drbd":
		a = d.drbd(q.Args)
	}
	_ = json.NewEncoder(conn).Encode(a)
}

// log writes a line as the daemon would.
func (d *daemon) log(format string, a ...any) {
	fmt.Fprintf(os.Stderr, "[%s] %s\n", d.set.Name, fmt.Sprintf(format, a...))
}

// accept takes the connections of a primary on the other node.
func (d *daemon) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go d.greet(conn)
	}
}

func (d *daemon) greet(conn net.Conn) {
	defer conn.Close()
	w := newWire(conn, d.set.Timeout)
	var hello message
	if conn.SetDeadline(time.Now().Add(d.set.Timeout)) != nil || w.in.Decode(&hello) != nil {
		return
	}
	if hello.Kind == "who" {
		d.answerWho(w)
		return
	}
	d.mu.Lock()
	switch {
	case d.role == "primary":
		d.mu.Unlock()
		d.log("Remote node acts as primary for the resource and not as secondary.")
		_ = w.out.Encode(message{Kind: "primary"})
		return
	case d.role != "secondary" || d.worker != 0:
		d.mu.Unlock()
		return
	case d.r.splitFrom(hello.Meta):
		d.mu.Unlock()
		d.log("Split-brain detected, exiting.")
		d.r.mu.Lock()
		d.r.split = true
		d.r.mu.Unlock()
		_ = w.out.Encode(message{Kind: "split-brain"})
		return
	}
	gone := make(chan struct{})
	d.count++
	d.worker, d.conn, d.gone = os.Getpid()*1000+d.count, conn, gone
	d.mu.Unlock()

	d.r.follow(w, hello)
	select { // a peer that dies with its machine says no goodbye
	case <-time.After(d.set.faultTime("worker-lingers")):
	case <-gone:
	}
	d.mu.Lock()
	if d.conn == conn {
		d.worker, d.conn = 0, nil
	}
	d.mu.Unlock()
}

// become changes the role and returns when the old worker has ended. What a new primary
// does comes later, as with hastd.
func (d *daemon) become(role string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if role == d.role {
		return nil
	}
	d.end()
	d.role = role
	d.r.mu.Lock()
	d.r.meta.PrevRole = role
	err := writeMeta(d.set.Dir, d.r.meta)
	d.r.mu.Unlock()
	if role == "primary" {
		d.stop, d.over = make(chan struct{}), make(chan struct{})
		d.count++
		d.worker = os.Getpid()*1000 + d.count
		go d.primary(d.stop, d.over)
	}
	return err
}

// end ends the worker, whatever its role. The device of a primary is destroyed, also
// under a file system. The caller holds mu.
func (d *daemon) end() {
	if d.conn != nil {
		_ = d.conn.Close()
		close(d.gone)
		d.conn = nil
	}
	if stop := d.stop; stop != nil {
		close(stop)
		over := d.over
		d.stop = nil
		d.mu.Unlock()
		<-over
		d.mu.Lock()
		d.destroy()
	}
	d.worker = 0
}

// primary is the worker of a primary.
func (d *daemon) primary(stop <-chan struct{}, over chan<- struct{}) {
	defer close(over)
	select {
	case <-time.After(d.set.faultTime("device-late")):
	case <-stop:
		return
	}
	if d.set.fault("worker-fails") != "" {
		d.log("Worker process exited ungracefully. Changing resource role back to init.")
		go func() {
			if err := d.become("init"); err != nil {
				d.log("%v", err)
			}
		}()
		<-stop
		return
	}
	d.r.begin()
	if err := d.create(); err != nil {
		d.log("cannot create the device: %v", err)
	} else {
		d.log("Device hast/%s created.", d.set.Name)
	}
	d.r.lead(stop, func(event string) { d.log("event %s", event) })
	d.r.mu.Lock()
	d.r.hear() // nobody waits for a handshake any more
	d.r.mu.Unlock()
}

// create makes the device.
func (d *daemon) create() error {
	fd, served, err := serve(d.r, d.set.Size)
	if err != nil {
		return err
	}
	dev, err := attach(fd)
	// Closed before anybody can use the device: this process answers the request that a
	// close makes, and must not be busy with another one that waits for the handshake.
	err = errors.Join(err, unix.Close(fd))
	if err != nil {
		served.close()
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.device = dev
	d.served.Store(served)
	return errors.Join(os.RemoveAll(d.set.Device()), os.Symlink(dev.Name(), d.set.Device()))
}

// destroy takes the device away. The caller holds mu.
func (d *daemon) destroy() {
	if d.device == nil {
		return
	}
	_ = os.Remove(d.set.Device())
	d.served.Swap(nil).close()
	_ = d.device.Close()
	d.device = nil
}

// abandon lets go of FUSE before the process exits: if a mount of the device goes with the
// mount namespace of this process, nobody answers any more, and the exit would wait for that.
func (d *daemon) abandon() {
	if s := d.served.Load(); s != nil {
		_ = unix.Close(s.dev)
	}
}
