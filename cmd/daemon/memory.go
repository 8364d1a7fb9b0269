package daemon

import (
	"fmt"
	"log/slog"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keepInMemory has the pages of this process stay where they are once they have been
// used, so that an advert never waits for a disk. Pages that were never used cost
// nothing (MCL_ONFAULT). Where it is not allowed the log says so, once, and the
// daemon runs as it is.
func keepInMemory(log *slog.Logger) {
	if err := lockMemory(); err != nil {
		log.Warn("adverts may wait for a page of memory when this machine is short of it: " + err.Error())
	}
}

// lockMemory locks what there is and what comes. It is all or nothing: under a limit
// that is not reached yet, some later growth of Go's heap would fail, and with it the
// process.
func lockMemory() error {
	const hint = "set LimitMEMLOCK=infinity in the daemon's unit, or give it CAP_IPC_LOCK"
	if err := lockWithoutLimit(); err != nil {
		return fmt.Errorf("daemon: lock memory: %w; %s", err, hint)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("daemon: lock memory: %w; %s", err, hint)
	}
	return nil
}

// lockWithoutLimit returns nil if this process may lock as much as it likes. The
// capability alone does not say so: in a user namespace it counts for nothing.
func lockWithoutLimit() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("read the limit: %w", err)
	}
	if limit.Cur != unix.RLIM_INFINITY && limit.Max == unix.RLIM_INFINITY {
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
			return fmt.Errorf("raise the limit: %w", err)
		}
	}
	if limit.Cur == unix.RLIM_INFINITY {
		return nil
	}
	// More than the limit, of addresses that nobody uses: it takes no memory.
	page := uint64(unix.Getpagesize())
	probe, err := unix.Mmap(-1, 0, int(limit.Cur/page*page+page), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("try more than the limit of %d bytes: %w", limit.Cur, err)
	}
	defer unix.Munmap(probe) // which unlocks it, too
	_, _, errno := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(&probe[0])), uintptr(len(probe)), unix.MLOCK_ONFAULT)
	if errno != 0 {
		return fmt.Errorf("the limit is %d bytes: %w", limit.Cur, errno)
	}
	return nil
}
