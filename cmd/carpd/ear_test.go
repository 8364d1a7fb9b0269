package main_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// ear keeps the kernel's stamps of one node's adverts. It has a filter, so that a
// flood costs it nothing.
type ear struct {
	mu    sync.Mutex
	heard map[uint8][]time.Time // by vhid or vrid
}

// listen hears the adverts over IPv4 of the node with that address, until the end of
// the test.
func listen(t *testing.T, h *lab.Host, from [4]byte) *ear {
	t.Helper()
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 5},
		bpf.LoadAbsolute{Off: 23, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 112, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 26, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(from[0])<<24 | uint32(from[1])<<16 | uint32(from[2])<<8 | uint32(from[3]), SkipTrue: 1},
		bpf.RetConstant{Val: 128},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		t.Fatal(err)
	}
	code := make([]unix.SockFilter, len(program))
	for i, r := range program {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	var fd int
	err = h.DoErr(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}); err != nil {
			return err
		}
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8})
	})
	if err != nil {
		t.Fatal(err)
	}
	e, file := &ear{heard: map[uint8][]time.Time{}}, os.NewFile(uintptr(fd), "ear")
	raw, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var hearing sync.WaitGroup
	hearing.Go(func() {
		frame, control := make([]byte, 128), make([]byte, 64)
		_ = raw.Read(func(fd uintptr) bool { // until the file is closed
			for {
				n, m, _, _, err := unix.Recvmsg(int(fd), frame, control, unix.MSG_DONTWAIT)
				if err != nil {
					return err != unix.EAGAIN
				}
				e.take(frame[:n], control[:m])
			}
		})
	})
	t.Cleanup(func() {
		file.Close()
		hearing.Wait()
	})
	return e
}

func (e *ear) take(frame, control []byte) {
	messages, err := unix.ParseSocketControlMessage(control)
	pdu := 14 + int(frame[14]&15)*4
	if err != nil || len(messages) == 0 || len(messages[0].Data) < 16 || pdu+8 > len(frame) {
		return
	}
	word := func(at int) int64 { return int64(binary.NativeEndian.Uint64(messages[0].Data[at:])) }
	id := frame[pdu+1]
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard[id] = append(e.heard[id], time.Unix(word(0), word(8)))
}

// mark is a place in what was heard, for gaps.
func (e *ear) mark() map[uint8]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	at := map[uint8]int{}
	for id, stamps := range e.heard {
		at[id] = len(stamps)
	}
	return at
}

// gaps is how far adverts were apart.
type gaps struct {
	n   int // adverts
	max time.Duration
}

func (g gaps) String() string { return fmt.Sprintf("%d, at most %.1f ms", g.n, g.max.Seconds()*1e3) }

// gaps looks at the adverts of an id from a mark on, the last one before it and now
// included.
func (e *ear) gaps(from map[uint8]int, id uint8) (g gaps) {
	e.mu.Lock()
	defer e.mu.Unlock()
	stamps := e.heard[id][max(from[id]-1, 0):]
	for n, at := range stamps {
		next := time.Now()
		if n+1 < len(stamps) {
			next = stamps[n+1]
		}
		g.max = max(g.max, next.Sub(at))
	}
	g.n = len(stamps) - 1
	return g
}
