package mysql

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
)

// maxRounds bounds how often read_only is tried: each waits for a second at least, then
// kills who may be in the way.
const maxRounds = 30

// glance is the pause between two looks at what a server does by itself.
const glance = 20 * time.Millisecond

// fence makes a server refuse writes: read_only, which is bounded where a statement or a
// lock is in its way, then no connection that could still end a transaction, then a look
// whether it is so.
func (e *session) fence(ctx context.Context) error {
	for round := 0; ; round++ {
		err := e.exec(ctx, e.d.readOnly())
		if err == nil {
			break
		}
		if number(err) != errLockWait || round == maxRounds {
			return err
		}
		hooks.Logger(ctx).Info("writers are in the way of read_only", "server", e.name, "round", round+1)
		if err := e.kill(ctx, round == 0); err != nil {
			return err
		}
	}
	if err := e.empty(ctx); err != nil {
		return err
	}
	s, err := e.look(ctx)
	if err == nil && s.role() != hooks.RoleDemoted {
		err = fmt.Errorf("%s: it took read_only and does not have it", e.name)
	}
	return err
}

// client is a connection to a server.
type client struct {
	id      uint64
	user    string
	command string
	busy    time.Duration // with what it does now
}

// clients lists the connections of others: neither replication nor carpd, whose account is
// known by its name.
func clients(rows []row, self string) (all []client) {
	for _, r := range rows {
		id, err := strconv.ParseUint(r["id"], 10, 64)
		if err != nil {
			continue
		}
		seconds, _ := strconv.ParseInt(r["time"], 10, 64) // NULL: it has just begun
		c := client{id, r["user"], r["command"], time.Duration(seconds) * time.Second}
		switch {
		case c.user == self || c.user == "system user" || c.user == "event_scheduler" && c.command == "Daemon":
		case strings.HasPrefix(c.command, "Binlog Dump") || strings.HasPrefix(c.command, "Slave_") || c.command == "Daemon":
		default:
			all = append(all, c)
		}
	}
	return all
}

// writersAtOnce is how many of those that run a statement are killed before all are.
const writersAtOnce = 16

// longest are those that run a statement, for longest first.
func longest(all []client) []client {
	busy := slices.DeleteFunc(slices.Clone(all), func(c client) bool { return c.command == "Sleep" })
	slices.SortStableFunc(busy, func(a, b client) int { return cmp.Compare(b.busy, a.busy) })
	return busy[:min(len(busy), writersAtOnce)]
}

func (e *session) others(ctx context.Context) ([]client, error) {
	rows, err := e.query(ctx, "SHOW PROCESSLIST")
	return clients(rows, e.user), err
}

// kill ends connections: of the longest writers, or all.
func (e *session) kill(ctx context.Context, writersOnly bool) error {
	all, err := e.others(ctx)
	if err != nil {
		return err
	}
	if writersOnly {
		all = longest(all)
	}
	for _, c := range all {
		err := e.exec(ctx, "KILL "+strconv.FormatUint(c.id, 10))
		if err != nil && number(err) != errNoThread {
			return err
		}
	}
	if len(all) > 0 {
		hooks.Logger(ctx).Info("connections killed", "server", e.name, "count", len(all))
	}
	return nil
}

// empty ends the connections of now and waits until they are gone: those that come later
// find the server read-only. One that is killed and still there takes its statement back.
func (e *session) empty(ctx context.Context) error {
	first, err := e.others(ctx)
	if err != nil || len(first) == 0 {
		return err
	}
	if err := e.kill(ctx, false); err != nil {
		return err
	}
	return until(ctx, glance, func() (bool, error) {
		now, err := e.others(ctx)
		return !slices.ContainsFunc(now, func(c client) bool {
			return c.command != "Killed" && slices.ContainsFunc(first, func(f client) bool { return f.id == c.id })
		}), err
	})
}

// until looks again and again until what it looks for is so, fails, or ctx ends.
func until(ctx context.Context, pause time.Duration, so func() (bool, error)) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		done, err := so()
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
