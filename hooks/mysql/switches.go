package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/carpd/carpd/hooks"
)

// switches sets what has a side besides read_only: semi-synchronous replication and the
// event scheduler, as far as they are configured.
func (db *DB) switches(ctx context.Context, e *session, promoted bool) error {
	if db.SemiSync {
		if err := e.semiSync(ctx, promoted); err != nil {
			return err
		}
	}
	if !db.Events {
		return nil
	}
	if promoted {
		if err := e.enableEvents(ctx); err != nil {
			return err
		}
		return e.exec(ctx, "SET GLOBAL event_scheduler = ON")
	}
	return e.exec(ctx, "SET GLOBAL event_scheduler = OFF")
}

// semiSync switches on the side of a source or of a replica, and the other one off. What
// the variables are called depends on the version and on the plugins that are loaded.
func (e *session) semiSync(ctx context.Context, promoted bool) error {
	rows, err := e.query(ctx, "SHOW GLOBAL VARIABLES LIKE 'rpl%semi%sync%enabled'")
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return fmt.Errorf("%s: it has no semi-synchronous replication: load its plugins, or remove semi_sync", e.name)
	}
	for _, r := range rows {
		name := r["variable_name"]
		asSource := strings.Contains(name, "master") || strings.Contains(name, "source")
		value := "OFF"
		if asSource == promoted {
			value = "ON"
		}
		if strings.EqualFold(r["value"], value) {
			continue
		}
		if err := e.exec(ctx, "SET GLOBAL "+name+" = "+value); err != nil {
			return err
		}
	}
	return nil
}

// enableEvents switches on the events that came by replication: those are disabled on a
// replica, one by one, and stay so when it is promoted. It leaves no trace in the binary
// log, and each event its owner.
func (e *session) enableEvents(ctx context.Context) error {
	rows, err := e.query(ctx, "SELECT EVENT_SCHEMA, EVENT_NAME, DEFINER, CHARACTER_SET_CLIENT, COLLATION_CONNECTION "+
		"FROM information_schema.EVENTS WHERE STATUS IN ('SLAVESIDE_DISABLED', 'REPLICA_SIDE_DISABLED')")
	if err != nil || len(rows) == 0 {
		return err
	}
	if err := e.exec(ctx, "SET SESSION sql_log_bin = 0"); err != nil {
		return err
	}
	var faults []error
	for _, r := range rows {
		statement, err := enableEvent(r)
		if err == nil {
			// Its text is kept in the character set of who made it.
			err = e.exec(ctx, "SET NAMES "+quote(r["character_set_client"])+" COLLATE "+quote(r["collation_connection"]))
		}
		if err == nil {
			err = e.exec(ctx, statement)
		}
		faults = append(faults, err)
	}
	faults = append(faults, e.exec(ctx, "SET NAMES utf8mb4"), e.exec(ctx, "SET SESSION sql_log_bin = 1"))
	hooks.Logger(ctx).Info("events switched on", "server", e.name, "count", len(rows))
	return errors.Join(faults...)
}

// enableEvent is the statement for one event. A user's name may hold an @, a host not.
func enableEvent(r row) (string, error) {
	at := strings.LastIndexByte(r["definer"], '@')
	if at < 0 {
		return "", fmt.Errorf("event %s.%s: its definer %q is not understood", r["event_schema"], r["event_name"], r["definer"])
	}
	return fmt.Sprintf("ALTER DEFINER = %s@%s EVENT %s.%s ENABLE", quote(r["definer"][:at]), quote(r["definer"][at+1:]),
		identifier(r["event_schema"]), identifier(r["event_name"])), nil
}

func identifier(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
