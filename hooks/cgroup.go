package hooks

import (
	"context"
	"os"
)

type cgroupKey struct{}

func withCgroup(ctx context.Context, dir *os.File) context.Context {
	return context.WithValue(ctx, cgroupKey{}, dir)
}

// Cgroup returns the directory of the cgroup that a kind is to start its processes
// in (syscall.SysProcAttr.UseCgroupFD), or nil if there is none. It stays open as
// long as ctx is that of a Run.
func Cgroup(ctx context.Context) *os.File {
	dir, _ := ctx.Value(cgroupKey{}).(*os.File)
	return dir
}
