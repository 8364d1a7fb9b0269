package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/carpd/carpd/carp"
)

// epochFile is where the epoch of an instance's last mastership is kept, so that
// a restarted node never uses one twice, whatever its wall clock says.
func (d *Daemon) epochFile(name string) string {
	return filepath.Join(d.stateDir, "epoch-"+strings.NewReplacer("/", "_", "\x00", "_").Replace(name))
}

func (d *Daemon) readEpoch(name string) carp.Epoch {
	b, err := os.ReadFile(d.epochFile(name))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		d.log.Warn("the saved epoch is not a number and is ignored", "file", d.epochFile(name), "error", err)
		return 0
	}
	return carp.Epoch(n)
}

// writeEpoch publishes atomically and durably: temporary file, fsync, rename,
// fsync of the directory. One goroutine at a time writes for an instance.
func (d *Daemon) writeEpoch(name string, e carp.Epoch) error {
	if err := os.MkdirAll(d.stateDir, 0o755); err != nil {
		return err
	}
	path := d.epochFile(name)
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d\n", e)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	dir, err := os.Open(d.stateDir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
