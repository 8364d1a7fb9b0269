package replicator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Rules say what a sound database of one program holds. The zero value asks for
// nothing: any SQLite database that is not damaged is sound. Rules are not changed
// once they are in use.
type Rules struct {
	Kind     string           // name for people, such as "proxysql"
	Signs    []string         // tables by which a database of this kind is known: two of them are there
	Tables   []Table          // the tables that its program makes
	Floors   map[string]int64 // least number of rows by table; such a table is required
	NotEmpty []string         // tables that must have rows, unless MayBeEmpty names them; where Before is known also each that had rows
	Needs    []Row            // rows that must be there
	Wanted   []Row            // rows whose absence is noted

	MayBeEmpty []string         // tables that an operator said may be empty
	Before     map[string]int64 // rows by table of the snapshot before this one; nil: unknown
}

// Table is a table as its program makes it.
type Table struct {
	Name   string
	Create string // the text of sqlite_schema, byte for byte; "": any
	// Since orders releases: a table is required if one of the same or a later
	// release is there. 0: always required.
	Since int
	Older []Older // texts that the program brings up to date by itself, rows included
}

// Older is the CREATE text of an older release.
type Older struct {
	Release, Create string
	Renamed         string // what the table is called once its rows were copied
}

// Row names a row by one of its values.
type Row struct {
	Table, Column, Value string
	Why                  string // what its absence means
}

// Object is an entry of sqlite_schema.
type Object struct {
	Type, Name, SQL string
}

// Content is what is seen of a database.
type Content struct {
	Objects []Object
	Rows    map[string]int64 // rows by table, counted through the table and not through an index
	Present map[Row]bool     // which of the rows of Needs and Wanted are there
}

// Is reports whether a database with this content is one that the rules are for.
func (r *Rules) Is(c Content) bool {
	n := 0
	for _, o := range c.Objects {
		if o.Type == "table" && slices.Contains(r.Signs, o.Name) {
			n++
		}
	}
	return n >= 2
}

// Judge compares the content with the rules and finds all faults at once.
func (r *Rules) Judge(c Content) Verdict {
	var v Verdict
	texts := make(map[string]string)
	for _, o := range c.Objects {
		if o.Type == "table" {
			texts[o.Name] = o.SQL
		}
	}
	r.judgeTables(&v, texts)
	r.judgeRows(&v, c, texts)
	r.noteOthers(&v, c)
	return v
}

// judgeTables looks for tables that are missing or were made otherwise.
func (r *Rules) judgeTables(v *Verdict, texts map[string]string) {
	newest := 0
	for _, t := range r.Tables {
		if _, there := texts[t.Name]; there {
			newest = max(newest, t.Since)
		}
	}
	for _, t := range r.Tables {
		text, there := texts[t.Name]
		switch {
		case !there && t.Since <= newest:
			v.Refuse(TableMissing, fmt.Sprintf("table %s is not there", t.Name))
		case !there:
			v.Note(fmt.Sprintf("table %s is not there: an older release made this database", t.Name))
		case t.Create == "" || text == t.Create:
		default:
			i := slices.IndexFunc(t.Older, func(o Older) bool { return o.Create == text })
			if i < 0 {
				v.Refuse(CreateText, fmt.Sprintf("table %s was made by another CREATE text (%s): its program would drop it with all rows", t.Name, difference(t.Create, text)))
				continue
			}
			v.Note(fmt.Sprintf("table %s is as of release %s: its program copies the rows at its start, and the old table stays as %s", t.Name, t.Older[i].Release, t.Older[i].Renamed))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Floors)) {
		known := slices.ContainsFunc(r.Tables, func(t Table) bool { return t.Name == name && t.Since == 0 })
		if _, there := texts[name]; !there && !known && r.Floors[name] > 0 {
			v.Refuse(TableMissing, fmt.Sprintf("table %s is not there, and at least %d of its rows are asked for", name, r.Floors[name]))
		}
	}
}

// judgeRows looks for rows that are missing, in tables that are there.
func (r *Rules) judgeRows(v *Verdict, c Content, texts map[string]string) {
	for _, n := range r.Needs {
		if _, there := texts[n.Table]; there && !c.Present[n] {
			v.Refuse(RowMissing, fmt.Sprintf("table %s has no row with %s = %s: %s", n.Table, n.Column, n.Value, n.Why))
		}
	}
	for _, n := range r.Wanted {
		if _, there := texts[n.Table]; there && !c.Present[n] {
			v.Note(fmt.Sprintf("table %s has no row with %s = %s: %s", n.Table, n.Column, n.Value, n.Why))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Rows)) {
		if floor := r.Floors[name]; c.Rows[name] < floor {
			v.Refuse(TooFewRows, fmt.Sprintf("table %s has %d rows, and at least %d are asked for", name, c.Rows[name], floor))
		}
	}
	r.judgeEmpty(v, c, texts)
}

// judgeEmpty refuses what is empty and should not be, or was not before.
func (r *Rules) judgeEmpty(v *Verdict, c Content, texts map[string]string) {
	names := slices.Clone(r.NotEmpty)
	for _, name := range slices.Sorted(maps.Keys(r.Before)) {
		if r.Before[name] > 0 && !slices.Contains(names, name) && r.holdsConfiguration(name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if slices.Contains(r.MayBeEmpty, name) {
			continue
		}
		before := ""
		if n := r.Before[name]; n > 0 {
			before = fmt.Sprintf(", and had %d rows before", n)
		}
		_, there := texts[name]
		switch {
		case there && c.Rows[name] == 0:
			v.Refuse(Emptied, fmt.Sprintf("table %s is empty%s: the backup may have fallen between a DELETE and its INSERT; allow it if that is meant", name, before))
		case !there && before != "" && !v.lacks(name):
			v.Refuse(TableMissing, fmt.Sprintf("table %s is not there%s", name, before))
		}
	}
}

// lacks reports whether it was said that this table is not there.
func (v *Verdict) lacks(table string) bool {
	return slices.ContainsFunc(v.Faults, func(f Fault) bool {
		return f.Reason == TableMissing && strings.HasPrefix(f.Text, "table "+table+" ")
	})
}

// holdsConfiguration reports whether a table may not lose all of its rows unseen:
// each, unless the rules name those that count.
func (r *Rules) holdsConfiguration(table string) bool {
	return len(r.NotEmpty) == 0 || slices.Contains(r.NotEmpty, table)
}

// noteOthers names tables, indexes and the like that the program does not make.
func (r *Rules) noteOthers(v *Verdict, c Content) {
	if len(r.Tables) == 0 {
		return
	}
	for _, o := range c.Objects {
		known := slices.ContainsFunc(r.Tables, func(t Table) bool { return o.Type == "table" && t.Name == o.Name })
		if !known && !strings.HasPrefix(o.Name, "sqlite_") {
			v.Note(fmt.Sprintf("%s %s is none of its program's, and is left alone", o.Type, o.Name))
		}
	}
}

// difference says where two texts part, with a few letters of each.
func difference(want, got string) string {
	i := 0
	for i < len(want) && i < len(got) && want[i] == got[i] {
		i++
	}
	return fmt.Sprintf("at byte %d %q instead of %q", i, excerpt(got, i), excerpt(want, i))
}

// excerpt returns at most 16 bytes of s from i on.
func excerpt(s string, i int) string { return s[i:min(len(s), i+16)] }
