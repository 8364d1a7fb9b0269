package link

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many frames one system call takes at most. A busy master of
// many virtual routers sends them back to back.
const batchSize = 32

// batch is the memory of recvmmsg(2), which x/sys does not offer. It lives on the
// heap, since it holds pointers into itself, and is used by one goroutine.
type batch struct {
	headers [batchSize]struct {
		unix.Msghdr
		length uint32
	}
	vectors [batchSize]unix.Iovec
	from    [batchSize]unix.RawSockaddrLinklayer
	control [batchSize][64]byte // a time stamp needs 32
	frames  [batchSize][maxFrame + 1]byte
}

func newBatch() *batch {
	b := &batch{}
	for i := range b.headers {
		b.vectors[i].Base = &b.frames[i][0]
		b.vectors[i].SetLen(len(b.frames[i]))
		h := &b.headers[i].Msghdr
		h.Name, h.Control = (*byte)(unsafe.Pointer(&b.from[i])), &b.control[i][0]
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
	}
	return b
}

// read takes what waits, and returns how many frames that is. Fewer than
// batchSize say that nothing is left.
func (b *batch) read(fd int) (int, error) {
	for i := range b.headers {
		h := &b.headers[i].Msghdr
		h.Namelen = unix.SizeofSockaddrLinklayer
		h.SetControllen(len(b.control[i]))
	}
	// It does not wait, so that the scheduler of Go need not know of it.
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// frame returns a frame that was read, the index of its interface, and the
// kernel's stamp. It is valid until the next read.
func (b *batch) frame(i int) (frame []byte, index int, stamp int64) {
	h := &b.headers[i]
	return b.frames[i][:min(int(h.length), len(b.frames[i]))], int(b.from[i].Ifindex), stampOf(b.control[i][:h.Controllen])
}
