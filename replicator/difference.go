package replicator

import "strings"

// Difference is what differs between two snapshots, in one table. The counts are those
// of all rows, Changes holds the first of them.
type Difference struct {
	Table   string   `json:"table"`
	Note    string   `json:"note,omitempty"` // such as that only one of them has the table
	Added   int64    `json:"added"`
	Removed int64    `json:"removed"`
	Changed int64    `json:"changed"` // rows with the same key
	Changes []Change `json:"changes"`
}

// What happened to a row.
const (
	RowAdded   = "added"
	RowRemoved = "removed"
	RowChanged = "changed"
)

// Change is one row that differs. Of a row that was changed Cells are those columns that
// were, else all.
type Change struct {
	What  string `json:"what"`          // RowAdded, RowRemoved or RowChanged
	Key   []Cell `json:"key,omitempty"` // its primary key, and none if the table has none
	Cells []Cell `json:"cells,omitempty"`
}

// Cell is a value of a row, as a literal of SQL: 'text', 7, NULL, X'00'. A value that is
// not there, before or after, is empty; so are both where Secret is set.
type Cell struct {
	Column string `json:"column"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	Secret bool   `json:"secret,omitempty"` // not shown
}

// Mask takes away what nobody is to see: values of columns whose name speaks of a secret,
// all values of a row whose key does, as in tables of variables, and values that speak of
// one themselves, as settings in JSON do. In doubt it takes away too much.
func (c *Change) Mask() {
	row := false
	for _, k := range c.Key {
		row = row || speaksOfSecret(k.Before+k.After)
	}
	for i := range c.Cells {
		v := &c.Cells[i]
		column := speaksOfSecret(v.Column) && (v.Before+v.After != "NULL" && v.Before+v.After != "NULLNULL")
		if row || column || strings.ContainsRune(v.Before+v.After, '{') && speaksOfSecret(v.Before+v.After) {
			v.Before, v.After, v.Secret = "", "", true
		}
	}
}

// speaksOfSecret reports whether a name may be that of a password, key or the like.
func speaksOfSecret(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"pass", "pwd", "secret", "token", "credential", "private", "apikey", "api_key", "salt", "auth_string"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
