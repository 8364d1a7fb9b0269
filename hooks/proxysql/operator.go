package proxysql

import (
	"context"
	"fmt"
)

// Database implements hooks.Restorer.
func (r *resource) Database() string { return r.c.Database }

// Restore implements hooks.Restorer: the running ProxySQL is given the configuration of
// the snapshot, as in a warm promotion.
func (r *resource) Restore(ctx context.Context, snapshot string) error {
	if err := r.restore(ctx, snapshot); err != nil {
		return fmt.Errorf("proxysql: restore %s: %w", r.c.Database, err)
	}
	return nil
}
