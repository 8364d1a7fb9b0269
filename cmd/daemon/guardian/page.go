package guardian

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// The page, in words of eight bytes. The first line of the cache is about the daemon
// as a whole; each instance has one after it. Only lines that are used take memory.
const (
	wordGoodbye = 0 // 1: the daemon stops in order
	wordTurn    = 1 // instant of the last turn of the daemon's loop
	wordPulse   = 2 // instant at which the guardian last looked

	lineWords = 8
	lines     = 8192
	pageSize  = lines * lineWords * 8

	maxSlots = lines - 1
)

// taken is the end of a permit that the guardian has acted for.
const taken = carp.Instant(-1)

// page is the memory that the daemon and its guardian share.
type page struct{ mem []byte }

// newPage makes one, and the file by which another process maps it.
func newPage() (*page, *os.File, error) {
	fd, err := unix.MemfdCreate("carpd-guardian", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("guardian: make the shared page: %w", err)
	}
	f := os.NewFile(uintptr(fd), "page")
	if err := f.Truncate(pageSize); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("guardian: make the shared page: %w", err)
	}
	p, err := mapPage(fd)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return p, f, nil
}

func mapPage(fd int) (*page, error) {
	mem, err := unix.Mmap(fd, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("guardian: map the shared page: %w", err)
	}
	return &page{mem}, nil
}

// close unmaps the page; nothing may use it any more.
func (p *page) close() { _ = unix.Munmap(p.mem) }

func (p *page) word(n int) *atomic.Int64 { return (*atomic.Int64)(unsafe.Pointer(&p.mem[8*n])) }

// until is the end of a slot's permit: 0 for none, or taken.
func (p *page) until(slot int) *atomic.Int64 { return p.word((1 + slot) * lineWords) }

// generation tells apart the instances that have a slot one after the other.
func (p *page) generation(slot int) *atomic.Int64 { return p.word((1+slot)*lineWords + 1) }
