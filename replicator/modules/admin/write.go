package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/carpd/carpd/replicator/modules"
)

// Write replaces a module in memory, reads it back, loads it to runtime, saves it to disk
// and looks at what is there. Until the LOAD nothing has changed for clients; what memory
// held before is put back if it does not come that far.
func (a *Admin) Write(ctx context.Context, module string, content []byte) error {
	if err := a.write(ctx, module, content); err != nil {
		return fmt.Errorf("admin: write %s: %w", module, err)
	}
	return nil
}

func (a *Admin) write(ctx context.Context, module string, content []byte) error {
	s, ok := specs()[module]
	if !ok {
		return errors.New("no such module")
	}
	before, err := a.memory(ctx, module)
	if err == nil {
		err = sameShape(before, content)
	}
	if err != nil {
		return err
	}
	if err := a.fill(ctx, s, module, content); err != nil {
		// The cause is what counts; what memory holds is seen by the next look.
		_ = a.fill(context.WithoutCancel(ctx), s, module, before)
		return err
	}
	if err := a.exec(ctx, "LOAD "+s.command+" TO RUNTIME"); err != nil {
		return fmt.Errorf("load to runtime: %w", err)
	}
	if err := a.exec(ctx, "SAVE "+s.command+" TO DISK"); err != nil {
		return fmt.Errorf("save to disk: %w", err)
	}
	return a.saved(ctx, s)
}

// sameShape refuses what another release of ProxySQL has.
func sameShape(have, comes []byte) error {
	h, err := modules.DecodeContent(have)
	if err != nil {
		return err
	}
	c, err := modules.DecodeContent(comes)
	if err != nil {
		return err
	}
	same := slices.EqualFunc(h, c, func(x, y modules.Table) bool { return x.Name == y.Name && slices.Equal(x.Columns, y.Columns) })
	if !same {
		return errors.New("it comes with other tables or columns: the same release of ProxySQL on all nodes")
	}
	return nil
}

// fill replaces a module in memory and reads it back: there are no transactions there.
func (a *Admin) fill(ctx context.Context, s spec, module string, content []byte) error {
	c, err := modules.DecodeContent(content)
	if err != nil {
		return err
	}
	for _, t := range c {
		if err := a.fillTable(ctx, s, t); err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	back, err := a.memory(ctx, module)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(back, content) {
		return errors.New("memory holds something else than was written to it: not loaded")
	}
	return nil
}

func (a *Admin) fillTable(ctx context.Context, s spec, t modules.Table) error {
	if s.prefix != "" {
		return a.fillVariables(ctx, s, t)
	}
	if err := a.exec(ctx, "DELETE FROM main."+t.Name); err != nil {
		return err
	}
	return a.insert(ctx, "INSERT", t)
}

// fillVariables takes off those that did not come, and never those of this node.
func (a *Admin) fillVariables(ctx context.Context, s spec, t modules.Table) error {
	have, err := a.variables(ctx, "main", s.prefix)
	if err != nil {
		return err
	}
	comes := map[any]bool{}
	for _, r := range t.Rows {
		name, ok := r[0].(string)
		if !ok || !strings.HasPrefix(name, s.prefix) || a.isLocal(name) {
			return fmt.Errorf("variable %q is of the node, or of another module: the same node_local on all nodes", name)
		}
		comes[name] = true
	}
	var gone []string
	for _, r := range have.Rows {
		if name, ok := r[0].(string); ok && !comes[name] {
			gone = append(gone, quote(name))
		}
	}
	if len(gone) > 0 {
		if err := a.exec(ctx, "DELETE FROM main."+variables+" WHERE variable_name IN ("+strings.Join(gone, ",")+")"); err != nil {
			return err
		}
	}
	return a.insert(ctx, "REPLACE", t)
}

// insert writes rows, many in a statement.
func (a *Admin) insert(ctx context.Context, verb string, t modules.Table) error {
	var names []string
	for _, c := range t.Columns {
		names = append(names, "`"+strings.ReplaceAll(c, "`", "``")+"`")
	}
	head := verb + " INTO main." + t.Name + " (" + strings.Join(names, ",") + ") VALUES "
	var b strings.Builder
	flush := func() error {
		if b.Len() == 0 {
			return nil
		}
		text := head + b.String()
		b.Reset()
		return a.exec(ctx, text)
	}
	for _, row := range t.Rows {
		var values []string
		for _, v := range row {
			text, err := literal(v)
			if err != nil {
				return err
			}
			values = append(values, text)
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString("(" + strings.Join(values, ",") + ")")
		if b.Len() > maxStatement {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// literal returns a value as SQLite reads it. All of ProxySQL's are text.
func literal(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "NULL", nil
	case string:
		return quote(v), nil
	}
	return "", fmt.Errorf("a value of type %T: no ProxySQL has that", v)
}

// quote makes text one of SQLite, for which a backslash is one. Salts of passwords hold
// any byte; a NUL would end the statement, and goes as hexadecimal digits.
func quote(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Sprintf("CAST(x'%x' AS TEXT)", s)
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// saved sees whether the disk holds what memory does: of a SAVE that failed only the log
// of ProxySQL tells. Variables that are gone stay on disk: no SAVE deletes them there.
func (a *Admin) saved(ctx context.Context, s spec) error {
	type pair struct{ table, where string }
	var all []pair
	for _, t := range s.tables {
		all = append(all, pair{t, ""})
	}
	if s.prefix != "" {
		all = append(all, pair{variables, " WHERE variable_name LIKE '" + s.prefix + "%'"})
	}
	for _, p := range all {
		ways := [][2]string{{"main", "disk"}, {"disk", "main"}}
		if s.prefix != "" {
			ways = ways[:1]
		}
		for _, w := range ways {
			_, rows, err := a.rows(ctx, "SELECT * FROM "+w[0]+"."+p.table+p.where+" EXCEPT SELECT * FROM "+w[1]+"."+p.table+p.where+" LIMIT 1")
			if err != nil {
				return fmt.Errorf("compare with disk: %w", err)
			}
			if len(rows) > 0 {
				return fmt.Errorf("it runs, and table %s on disk holds something else though SAVE answered OK: see ProxySQL's log", p.table)
			}
		}
	}
	return nil
}
