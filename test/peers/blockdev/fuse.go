package blockdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// backing is what a served file is made of. Its methods are called one at a time.
type backing interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
}

// Requests of FUSE (linux/fuse.h) that a file which a loop device uses gets.
const (
	opLookup  = 1
	opForget  = 2
	opGetattr = 3
	opOpen    = 14
	opRead    = 15
	opWrite   = 16
	opStatfs  = 17
	opRelease = 18
	opFsync   = 20
	opInit    = 26
	opBatch   = 42

	headerIn   = 40
	headerOut  = 16
	maxWrite   = 128 << 10
	bigWrites  = 1 << 5
	rootNode   = 1
	fileNode   = 2
	fileName   = "disk"
	fuseMinor  = 31
	attributes = 88
)

// served is a file whose content this process makes up.
type served struct {
	dev  int // of /dev/fuse
	size int64
	data backing
	dead atomic.Bool
}

// serve makes a file of the given size and returns it open, as a descriptor: an os.File
// would be polled, by a thread that this process needs to answer. The mount that it needs
// is in a namespace of its own, and gone when serve returns.
func serve(data backing, size int64) (fd int, s *served, err error) {
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	s = &served{dev: dev, size: size, data: data}
	type opened struct {
		fd  int
		err error
	}
	done := make(chan opened)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		fd, err := s.mount()
		done <- opened{fd, err}
	}()
	o := <-done
	return o.fd, s, o.err
}

func (s *served) mount() (int, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("make mounts private: %w", err)
	}
	const at = "/tmp"
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", s.dev)
	if err := unix.Mount("carpd-stand-in", at, "fuse", 0, options); err != nil {
		return -1, fmt.Errorf("mount fuse: %w", err)
	}
	go s.loop()
	fd, err := unix.Open(at+"/"+fileName, unix.O_RDWR|unix.O_CLOEXEC, 0)
	return fd, errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
}

// loop answers requests until the last user of the file has gone.
func (s *served) loop() {
	defer unix.Close(s.dev)
	buf := make([]byte, maxWrite+64<<10)
	for {
		n, err := unix.Read(s.dev, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return
		}
		if n < headerIn {
			continue
		}
		op, unique := binary.NativeEndian.Uint32(buf[4:]), binary.NativeEndian.Uint64(buf[8:])
		node := binary.NativeEndian.Uint64(buf[16:])
		if op == opForget || op == opBatch {
			continue
		}
		body, errno := s.answer(op, node, buf[headerIn:n])
		out := make([]byte, headerOut, headerOut+len(body))
		binary.NativeEndian.PutUint32(out, uint32(headerOut+len(body)))
		binary.NativeEndian.PutUint32(out[4:], uint32(-int32(errno)))
		binary.NativeEndian.PutUint64(out[8:], unique)
		if _, err := unix.Write(s.dev, append(out, body...)); err != nil && !errors.Is(err, unix.ENOENT) {
			return
		}
	}
}

func (s *served) answer(op uint32, node uint64, in []byte) ([]byte, unix.Errno) {
	switch op {
	case opInit:
		out := make([]byte, 64)
		binary.NativeEndian.PutUint32(out, 7)
		binary.NativeEndian.PutUint32(out[4:], fuseMinor)
		binary.NativeEndian.PutUint32(out[12:], bigWrites)
		binary.NativeEndian.PutUint32(out[20:], maxWrite)
		binary.NativeEndian.PutUint32(out[24:], 1)
		return out, 0
	case opLookup:
		out := make([]byte, 40)
		binary.NativeEndian.PutUint64(out, fileNode)
		return append(out, s.attributes(fileNode)...), 0
	case opGetattr:
		return append(make([]byte, 16), s.attributes(node)...), 0
	case opOpen:
		return make([]byte, 16), 0
	case opRead:
		off, size := int64(binary.NativeEndian.Uint64(in[8:])), binary.NativeEndian.Uint32(in[16:])
		p := make([]byte, min(int64(size), max(s.size-off, 0)))
		if _, err := s.data.ReadAt(p, off); err != nil || s.dead.Load() {
			return nil, unix.EIO
		}
		return p, 0
	case opWrite:
		off, size := int64(binary.NativeEndian.Uint64(in[8:])), binary.NativeEndian.Uint32(in[16:])
		if s.dead.Load() {
			return nil, unix.EIO
		}
		if _, err := s.data.WriteAt(in[40:40+size], off); err != nil {
			return nil, unix.EIO
		}
		out := make([]byte, 8)
		binary.NativeEndian.PutUint32(out, size)
		return out, 0
	case opStatfs:
		out := make([]byte, 80)
		binary.NativeEndian.PutUint32(out[40:], 4096)
		binary.NativeEndian.PutUint32(out[44:], 255)
		return out, 0
	case opRelease, opFsync:
		return nil, 0 // what was written is on both nodes already
	}
	return nil, unix.ENOSYS // of FLUSH and the like the kernel asks once only
}

func (s *served) attributes(node uint64) []byte {
	out := make([]byte, attributes)
	binary.NativeEndian.PutUint64(out, node)
	mode := uint32(unix.S_IFDIR | 0o700)
	if node != rootNode {
		mode = unix.S_IFREG | 0o600
		binary.NativeEndian.PutUint64(out[8:], uint64(s.size))
		binary.NativeEndian.PutUint64(out[16:], uint64(s.size/512))
	}
	binary.NativeEndian.PutUint32(out[60:], mode)
	binary.NativeEndian.PutUint32(out[64:], 1)
	binary.NativeEndian.PutUint32(out[80:], 4096)
	return out
}

// close takes the file away from under whoever uses it: they get errors.
func (s *served) close() { s.dead.Store(true) }
