package proxysql

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/database"
)

const pause = 50 * time.Millisecond // between two looks at what is starting

// ready waits until ProxySQL does its work: a client is let in, it has the rows of the
// database, and its monitor has looked at the servers. It implements database.Program.
func (r *resource) ready(ctx context.Context, begun database.Begun) error {
	return r.await(ctx, begun.At, begun.Rows)
}

func (r *resource) await(ctx context.Context, since time.Time, rows map[string]int64) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	var last error
	for {
		err := r.isReady(ctx, since, rows)
		if err == nil {
			return nil
		}
		late, bounded := ctx.Deadline()
		if over := ctx.Err() != nil || bounded && !time.Now().Before(late); last == nil || !over {
			last = err // else it says only that the time is over
		}
		if differs := (*differs)(nil); errors.As(err, &differs) {
			return err // that will not change
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), last)
		}
	}
}

// differs is an error of what ProxySQL has, other than it should: asking again is of no use.
type differs struct{ text string }

func (d *differs) Error() string { return d.text }

// Is makes it database.ErrContent.
func (d *differs) Is(target error) bool { return target == database.ErrContent }

func (r *resource) isReady(ctx context.Context, since time.Time, rows map[string]int64) error {
	if err := r.serves(ctx); err != nil {
		return err
	}
	a, err := r.admin(ctx)
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.has(ctx, rows); err != nil {
		return err
	}
	if r.c.Backends == Ignore {
		return nil
	}
	return a.checked(ctx, since)
}

// has compares the tables in memory with the rows of the database: of a table that
// ProxySQL does not know in this form it makes an empty one without a word.
func (a admin) has(ctx context.Context, rows map[string]int64) error {
	for _, m := range modules() {
		for _, table := range m.tables {
			want, known := rows[table]
			if !known {
				continue
			}
			got, err := a.count(ctx, "SELECT COUNT(*) FROM main."+table)
			if err != nil {
				return err
			}
			if got != want {
				return &differs{fmt.Sprintf("%s has %d rows in memory, and %d in the database: this release of ProxySQL may make it by another CREATE text", table, got, want)}
			}
		}
	}
	return nil
}

// checked returns nil if the monitor has looked, since then, at each server that it may
// move: in groups for replication, of Galera, and of group replication. What it found does
// not matter: a dead server is dead for all nodes.
func (a admin) checked(ctx context.Context, since time.Time) error {
	on, err := a.rows(ctx, "SELECT variable_value FROM runtime_global_variables WHERE variable_name='mysql-monitor_enabled'")
	if err != nil {
		return err
	}
	if len(on) == 1 && !slices.Contains([]string{"true", "1", "on"}, strings.ToLower(on[0][0].String)) {
		return nil
	}
	for _, g := range []struct{ table, log, groups, active string }{
		{"mysql_replication_hostgroups", "mysql_server_read_only_log", "writer_hostgroup reader_hostgroup", ""},
		{"mysql_galera_hostgroups", "mysql_server_galera_log", "writer_hostgroup backup_writer_hostgroup reader_hostgroup offline_hostgroup", " WHERE active=1"},
		{"mysql_group_replication_hostgroups", "mysql_server_group_replication_log", "writer_hostgroup backup_writer_hostgroup reader_hostgroup offline_hostgroup", " WHERE active=1"},
	} {
		var members []string
		for column := range strings.FieldsSeq(g.groups) {
			members = append(members, "SELECT "+column+" FROM runtime_"+g.table+g.active)
		}
		waiting, err := a.rows(ctx, "SELECT DISTINCT hostname, port FROM runtime_mysql_servers WHERE status<>'OFFLINE_HARD' AND hostgroup_id IN ("+strings.Join(members, " UNION ")+")")
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			continue
		}
		seen, err := a.rows(ctx, fmt.Sprintf("SELECT DISTINCT hostname, port FROM monitor.%s WHERE time_start_us>=%d", g.log, since.UnixMicro()))
		if err != nil {
			return err
		}
		done := make(map[string]bool)
		for _, s := range seen {
			done[s[0].String+":"+s[1].String] = true
		}
		left := make(map[string]bool)
		for _, s := range waiting {
			if name := s[0].String + ":" + s[1].String; !done[name] {
				left[name] = true
			}
		}
		if len(left) > 0 {
			names := slices.Sorted(maps.Keys(left))
			return fmt.Errorf("the monitor has not yet looked at %d servers, %s among them: until then it may send writes to an old primary (backends: ignore does not wait)", len(left), names[0])
		}
	}
	return nil
}

// drainRounds is how often connections are ended: clients come back while the port is open.
const drainRounds = 3

// drain ends the connections of clients, so that the servers roll back what they have
// open. It implements database.Program.
func (r *resource) drain(ctx context.Context) error {
	a, err := r.admin(ctx)
	if err != nil {
		return err
	}
	defer a.close()
	for range drainRounds {
		sessions, err := a.rows(ctx, "SELECT SessionID FROM stats_mysql_processlist")
		if err != nil {
			return err
		}
		if len(sessions) == 0 {
			return nil
		}
		hooks.Logger(ctx).Info("connections of clients are ended", "sessions", len(sessions))
		for _, s := range sessions {
			if err := a.run(ctx, "KILL CONNECTION "+s[0].String); err != nil && ctx.Err() != nil {
				return err // else it has gone by itself
			}
		}
	}
	return nil
}

// Promote implements hooks.Resource.
func (r *resource) Promote(ctx context.Context, ev hooks.Event) error {
	if err := r.d.Up(ctx, ev); err != nil {
		return fmt.Errorf("proxysql: promote: %w", err)
	}
	return nil
}

// Demote implements hooks.Resource.
func (r *resource) Demote(ctx context.Context, _ hooks.Event) error {
	if err := r.d.Down(ctx); err != nil {
		return fmt.Errorf("proxysql: demote: %w", err)
	}
	return nil
}

// Monitor implements hooks.Resource.
func (r *resource) Monitor(ctx context.Context) (hooks.Report, error) {
	report, err := r.d.Look(ctx)
	if err != nil {
		err = fmt.Errorf("proxysql: look: %w", err)
	}
	return report, err
}
