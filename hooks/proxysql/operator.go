package proxysql

import (
	"context"
	"fmt"

	"github.com/carpd/carpd/replicator/install"
)

// Database implements hooks.Restorer.
func (r *resource) Database() string { return r.c.Database }

// Place returns where snapshots are put, for an operator who restores one while ProxySQL
// is stopped.
func (r *resource) Place() *install.Place { return r.d.Place() }

// Restore implements hooks.Restorer: the running ProxySQL is given the configuration of
// the snapshot, as in a warm promotion.
func (r *resource) Restore(ctx context.Context, snapshot string) error {
	if err := r.restore(ctx, snapshot); err != nil {
		return fmt.Errorf("proxysql: restore %s: %w", r.c.Database, err)
	}
	return nil
}
