package daemon

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	epochTime    = 2 * time.Second // what saving an epoch may take
	epochBits    = 63
	maxEpochFile = 32 // bytes
)

// epochFile is where the epoch of an instance's last mastership is kept, so that
// a restarted node never uses one twice, whatever its wall clock says.
func (d *Daemon) epochFile(name string) string {
	return d.stateFile("epoch", name)
}

// stateFile is where something of an instance is kept.
func (d *Daemon) stateFile(what, name string) string {
	return filepath.Join(d.stateDir, what+"-"+strings.NewReplacer("/", "_", "\x00", "_").Replace(name))
}

// readEpoch returns 0 if there is none, or none that can be used: epochs go on from
// it, so one near the end of the numbers would leave none for the next mastership.
func (d *Daemon) readEpoch(name string) carp.Epoch {
	f, err := os.OpenFile(d.epochFile(name), os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe is not waited for
	if err != nil {
		return 0
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEpochFile))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, epochBits)
	if err != nil {
		d.log.Warn("the saved epoch is not one and is ignored", "file", d.epochFile(name), "error", err)
		return 0
	}
	return carp.Epoch(n)
}

// saveEpoch writes the epoch and waits no longer than epochTime or ctx: a disk that
// hangs must keep neither the role from moving nor the daemon from stopping. One
// write at a time is under way; while it hangs, those that follow fail.
func (i *instance) saveEpoch(ctx context.Context, e carp.Epoch) error {
	ctx, cancel := context.WithTimeoutCause(ctx, epochTime, fmt.Errorf("the disk of %s did not answer within %v", i.d.stateDir, epochTime))
	defer cancel()
	select {
	case i.saving <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	saved := make(chan error, 1)
	go func() {
		saved <- i.d.writeEpoch(i.name, e)
		<-i.saving
	}()
	select {
	case err := <-saved:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// writeEpoch publishes an epoch. One goroutine at a time writes for an instance.
func (d *Daemon) writeEpoch(name string, e carp.Epoch) error {
	return writeFile(d.epochFile(name), fmt.Appendf(nil, "%d\n", e))
}
