package proxysql

import (
	"context"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/database"
)

// Ready asks a resource of this kind whether ProxySQL is ready that was started on these
// rows.
func Ready(ctx context.Context, r hooks.Resource, rows map[string]int64) error {
	return r.(*resource).ready(ctx, database.Begun{At: time.Now(), Rows: rows})
}
