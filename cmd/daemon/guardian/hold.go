package guardian

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process is gone for others when all of its threads have ended and its memory is
// torn down: on a busy machine that takes tenths of a second. So the thread of the
// loop holds a robust futex on the page (set_robust_list(2)): the kernel marks it and
// wakes who waits when that one thread ends, as the first thing, and since it runs
// in real time it ends at once.

// The words of the page that it takes: an entry of the list, whose second word is the
// futex, and the head of the list.
const (
	wordEntry = 3
	wordFutex = 4
	wordHead  = 5 // to 7
)

// What is in a futex beside the thread id; see <linux/futex.h>.
const (
	futexWaiters   = 0x80000000 // somebody waits: wake at death
	futexOwnerDied = 0x40000000
)

// futexes of more than one process: without FUTEX_PRIVATE_FLAG.
const futexWait = 0

// futex is the word that tells of the thread's end.
func (p *page) futex() *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&p.mem[8*wordFutex])) }

// address of a word, as the kernel reads it from this process.
func (p *page) address(word int) int64 { return int64(uintptr(unsafe.Pointer(&p.mem[8*word]))) }

// Hold has the end of the calling thread known to the guardian as the end of the
// daemon. The thread is held by runtime.LockOSThread, and belongs to the goroutine
// that turns the loop. It returns what undoes it, to be called by the same goroutine
// when the loop has ended in order. Where the kernel refuses, the end of the
// process is what counts, as it does anyway.
func (k *Keeper) Hold() (release func()) {
	if k == nil {
		return func() {}
	}
	p := k.page
	p.word(wordEntry).Store(p.address(wordHead))
	p.word(wordHead).Store(p.address(wordEntry))
	p.word(wordHead + 1).Store(8 * (wordFutex - wordEntry))
	p.word(wordHead + 2).Store(0)
	p.futex().Store(uint32(unix.Gettid()) | futexWaiters)
	const headLen = 3 * 8
	if _, _, errno := unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, uintptr(unsafe.Pointer(&p.mem[8*wordHead])), headLen, 0); errno != 0 {
		p.futex().Store(0)
	}
	return func() {
		p.futex().Store(0)
		p.word(wordHead).Store(p.address(wordHead)) // the list is empty
	}
}

// died reports whether the thread that held the page has ended without a release.
func (p *page) died() bool { return p.futex().Load()&futexOwnerDied != 0 }

// awaitDeath returns when died is true.
func (p *page) awaitDeath() {
	for {
		v := p.futex().Load()
		if v&futexOwnerDied != 0 {
			return
		}
		// It returns early after a signal, and when the word is another one by now.
		_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(p.futex())), futexWait, uintptr(v), 0, 0, 0)
	}
}
