package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxOutput is how much of a process's output is kept; the rest is counted.
const maxOutput = 1 << 20

// Proc is a process on a host, in a process group of its own. It is killed, and
// its output logged if the test failed, when the LAN is taken down.
type Proc struct {
	Pid int // also the id of its process group

	host *Host
	cmd  *exec.Cmd
	done chan struct{} // closed when it was waited for
	err  error         // valid after done

	mu   sync.Mutex
	out  []byte
	lost int
}

// Start starts a command in the host's namespace. Stdout and Stderr are kept
// for Output where the command does not say otherwise. The process is killed if
// the test dies.
func (h *Host) Start(cmd *exec.Cmd) *Proc {
	h.lan.t.Helper()
	p, err := h.start(cmd)
	if err != nil {
		h.lan.t.Fatal(err)
	}
	return p
}

func (h *Host) start(cmd *exec.Cmd) (*Proc, error) {
	p := &Proc{host: h, cmd: cmd, done: make(chan struct{})}
	// A pipe of our own: Wait must not wait for a grandchild that holds it.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("lab: host %s: start %s: %w", h.Name, cmd.Path, err)
	}
	defer w.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = w
	}
	if cmd.Stderr == nil {
		cmd.Stderr = w
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := h.ns.spawn(cmd.Start); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("lab: host %s: start %s: %w", h.Name, cmd.Path, err)
	}
	p.Pid = cmd.Process.Pid
	caught := make(chan struct{})
	go p.drain(r, caught)
	go p.reap(r, caught)
	h.mu.Lock()
	h.procs = append(h.procs, p)
	h.mu.Unlock()
	return p, nil
}

// outputWait is how long the end of a process is not told yet because somebody else,
// a grandchild, holds its output open.
const outputWait = 100 * time.Millisecond

// drain keeps the output until every holder of the pipe is gone. It closes caught
// when it has all that was written before the reading deadline, or all there is.
func (p *Proc) drain(r *os.File, caught chan<- struct{}) {
	told := sync.OnceFunc(func() { close(caught) })
	defer told()
	defer r.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		p.keep(buf[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// The deadline alone says nothing: on a busy machine it may be over before
			// this goroutine has run at all, and then Read reads nothing.
			_ = r.SetReadDeadline(time.Time{})
			p.empty(r, buf)
			told()
			continue
		}
		if err != nil {
			return
		}
	}
}

// empty keeps what is in the pipe at this moment: a mebibyte at most, more than a
// pipe holds, since who holds it may go on writing.
func (p *Proc) empty(r *os.File, buf []byte) {
	conn, err := r.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { // an error says that it is closed
		for total := 0; total < maxOutput; {
			n, err := unix.Read(int(fd), buf)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return // empty, or everybody is gone
			}
			p.keep(buf[:n])
			total += n
		}
	})
}

func (p *Proc) keep(text []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(text), maxOutput-len(p.out))
	p.out = append(p.out, text[:n]...)
	p.lost += len(text) - n
}

// reap waits for the process and for what it has written.
func (p *Proc) reap(r *os.File, caught <-chan struct{}) {
	p.err = p.cmd.Wait()
	_ = r.SetReadDeadline(time.Now().Add(outputWait)) // an error says that all was read
	<-caught
	close(p.done)
}

// Signal sends a signal to the process alone.
func (p *Proc) Signal(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // an error says that it is gone
}

// Kill ends the process and its group by SIGKILL and waits for it.
func (p *Proc) Kill() {
	select {
	case <-p.done: // its number may be another's by now
		return
	default:
	}
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	<-p.done
}

// ErrRunning is returned by Wait when the process has not ended in time.
var ErrRunning = errors.New("lab: process is still running")

// Wait waits until the process ends and returns its error as exec.Cmd.Wait
// does, or ErrRunning after timeout.
func (p *Proc) Wait(timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		return ErrRunning
	}
}

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Output returns what the process has written so far: its first mebibyte.
func (p *Proc) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost > 0 {
		return fmt.Sprintf("%s\n[%d bytes more]", p.out, p.lost)
	}
	return string(p.out)
}

// report logs the output of a failed test.
func (p *Proc) report() {
	t := p.host.lan.t
	if !t.Failed() {
		return
	}
	select {
	case <-p.done:
		t.Logf("--- host %s: %v (pid %d, %v)\n%s", p.host.Name, p.cmd.Args, p.Pid, p.cmd.ProcessState, p.Output())
	default:
		t.Logf("--- host %s: %v (pid %d, running)\n%s", p.host.Name, p.cmd.Args, p.Pid, p.Output())
	}
}

// runLimit bounds Run.
const runLimit = 30 * time.Second

// Run runs a command on the host to its end and returns what it wrote. It ends
// the test if the command fails or takes longer than 30 s.
func (h *Host) Run(args ...string) string {
	h.lan.t.Helper()
	out, err := h.RunErr(args...)
	if err != nil {
		h.lan.t.Fatalf("lab: host %s: %v: %v\n%s", h.Name, args, err, out)
	}
	return out
}

// RunErr is Run for a command that may fail.
func (h *Host) RunErr(args ...string) (string, error) {
	p, err := h.start(exec.Command(args[0], args[1:]...))
	if err != nil {
		return "", err
	}
	defer h.forget(p)
	err = p.Wait(runLimit)
	if errors.Is(err, ErrRunning) {
		p.Kill()
	}
	return p.Output(), err
}

// forget takes a process that has ended off the list.
func (h *Host) forget(p *Proc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, q := range h.procs {
		if q == p {
			h.procs = append(h.procs[:i], h.procs[i+1:]...)
			return
		}
	}
}
