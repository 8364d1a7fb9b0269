package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/receive"
	"github.com/carpd/carpd/replicator/sqlite"
)

// receiver holds the flags of carpd receive.
type receiver struct {
	verify
	dir  string
	idle time.Duration
	keep replicator.Keep
}

func receiveCommand(stdin io.Reader, stdout io.Writer) *cobra.Command {
	var r receiver
	c := &cobra.Command{Use: "receive --dir DIR", Short: "Take snapshots from another node: the forced command of its SSH key", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := r.validate(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer stop()
			return r.run(ctx, stdin, stdout)
		}}
	r.verify.flags(c)
	c.Flags().StringVar(&r.dir, "dir", "", "`directory` of the snapshots, which belongs to the user of the key")
	c.Flags().DurationVar(&r.idle, "idle", receive.DefaultIdle, "end after so much `time` without a word of the other node")
	c.Flags().IntVar(&r.keep.Count, "keep-count", 0, "keep so many `snapshots`; 0: any number, as where carpd itself prunes them")
	c.Flags().DurationVar(&r.keep.Age, "keep-age", 0, "delete those that are older than this `time`; 0: none")
	c.Flags().IntVar(&r.keep.Least, "keep-least", 1, "keep so many sound `snapshots` whatever their count and age")
	return c
}

func (r *receiver) validate() error {
	if err := r.verify.limits(); err != nil {
		return err
	}
	if !filepath.IsAbs(r.dir) {
		return fmt.Errorf("%w: receive: --dir %q: want an absolute path", errUsage, r.dir)
	}
	if r.idle < time.Second || r.keep.Count < 0 || r.keep.Age < 0 || r.keep.Least < 1 {
		return fmt.Errorf("%w: receive: --idle is 1s or more, --keep-least 1 or more, --keep-count and --keep-age are not negative", errUsage)
	}
	return nil
}

// run serves one node.
func (r *receiver) run(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	store, err := dir.Open(ctx, r.dir)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("receive: %w: the directory must belong to the user of the key: install -d -o USER -m 0700 %s", err, r.dir)
	}
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	keep := r.keep
	if keep.Count == 0 && keep.Age == 0 {
		keep = replicator.Keep{} // all stay
	}
	return receive.Receiver{Store: store, MaxSize: r.maxSize, Idle: r.idle, Keep: keep, Verify: r.judge}.Serve(ctx, stdin, stdout)
}

// judge verifies a snapshot that is not published yet.
func (r *receiver) judge(ctx context.Context, path string, m replicator.Manifest) replicator.Verdict {
	limited, cancel := context.WithTimeoutCause(ctx, r.timeout, fmt.Errorf("%v are over", r.timeout))
	defer cancel()
	return sqlite.Verify(limited, path, sqlite.Options{Rules: r.rules, SHA256: m.SHA256, MaxSize: r.maxSize}).Verdict
}
