package modules

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Limits of a content. What is beyond them is refused whole.
const (
	MaxContent = 64 << 20 // bytes of its canonical form
	MaxTables  = 64       // in one module
	MaxColumns = 256      // of one table
	MaxRows    = 1 << 20  // of all its tables: NULL is one byte there, and 40 in memory
	MaxValues  = 4 << 20  // of all its rows
	maxName    = 256      // bytes of a table's or column's name
)

// Table is the content of one table.
type Table struct {
	Name    string
	Columns []string
	Rows    [][]any // nil, int64, float64, string or []byte, in the order of Columns; rows in any order
}

// Content is what a module holds: its tables.
type Content []Table

// Summary is what is said of a content without moving it.
type Summary struct {
	Sum    Sum
	Filled []string // tables that have rows, sorted
	// Found says that the program read this from disk when it was started, and that nobody
	// has changed it since: what it had in memory only may be lost. It is no change.
	Found bool
}

// Tags of values. Each has its own, so that NULL, "" and 0 are three contents, and
// lengths, so that no two rows run together.
const (
	tagNull = iota
	tagInt
	tagFloat
	tagText
	tagBlob
)

const contentMagic = "cm1"

// Encode returns the canonical bytes: the same for the same rows, in whatever order a
// database gives them.
func (c Content) Encode() ([]byte, error) {
	if len(c) > MaxTables {
		return nil, fmt.Errorf("modules: %d tables in a module, at most %d", len(c), MaxTables)
	}
	var rows, values int
	for _, t := range c {
		rows, values = rows+len(t.Rows), values+len(t.Rows)*len(t.Columns)
	}
	if rows > MaxRows || values > MaxValues {
		return nil, fmt.Errorf("modules: %d rows with %d values in a module, at most %d and %d", rows, values, MaxRows, MaxValues)
	}
	sorted := slices.SortedFunc(slices.Values(c), func(a, b Table) int { return cmp.Compare(a.Name, b.Name) })
	b := binary.AppendUvarint([]byte(contentMagic), uint64(len(sorted)))
	for _, t := range sorted {
		var err error
		if b, err = t.append(b); err != nil {
			return nil, err
		}
		if len(b) > MaxContent {
			return nil, fmt.Errorf("modules: more than %d bytes in a module", MaxContent)
		}
	}
	return b, nil
}

func (t Table) append(b []byte) ([]byte, error) {
	if len(t.Columns) > MaxColumns {
		return nil, fmt.Errorf("modules: table %s: %d columns, at most %d", t.Name, len(t.Columns), MaxColumns)
	}
	b = appendText(b, t.Name)
	b = binary.AppendUvarint(b, uint64(len(t.Columns)))
	for _, c := range t.Columns {
		b = appendText(b, c)
	}
	rows := make([][]byte, 0, len(t.Rows))
	for _, r := range t.Rows {
		if len(r) != len(t.Columns) {
			return nil, fmt.Errorf("modules: table %s: a row of %d values for %d columns", t.Name, len(r), len(t.Columns))
		}
		var row []byte
		for _, v := range r {
			var err error
			if row, err = appendValue(row, v); err != nil {
				return nil, fmt.Errorf("modules: table %s: %w", t.Name, err)
			}
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, bytes.Compare)
	b = binary.AppendUvarint(b, uint64(len(rows)))
	for _, r := range rows {
		b = append(b, r...)
	}
	return b, nil
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, tagNull), nil
	case int64:
		return binary.AppendVarint(append(b, tagInt), v), nil
	case float64:
		return binary.BigEndian.AppendUint64(append(b, tagFloat), math.Float64bits(v)), nil
	case string:
		return appendText(append(b, tagText), v), nil
	case []byte:
		return appendText(append(b, tagBlob), v), nil
	}
	return nil, fmt.Errorf("a value of type %T", v)
}

// DecodeContent reads what Encode wrote.
func DecodeContent(b []byte) (Content, error) {
	var c Content
	err := scan(b, func(t Table, _ int) { c = append(c, t) }, func(row []any) {
		t := &c[len(c)-1]
		t.Rows = append(t.Rows, slices.Clone(row))
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// scan reads canonical bytes: each table without its rows, then these, one by one, in a
// slice that is used again. Without row they are only checked. What it was told of before
// an error is not to be used.
func scan(b []byte, table func(t Table, rows int), row func([]any)) error {
	if len(b) > MaxContent {
		return errors.New("modules: read content: too long")
	}
	r := reader{b: b}
	if string(r.take(len(contentMagic))) != contentMagic {
		return errors.New("modules: read content: not the form that this release writes")
	}
	rows, values := 0, 0
	for range r.count(MaxTables) {
		t := r.table()
		n := r.count(MaxRows)
		rows, values = rows+n, values+n*len(t.Columns)
		// Rows without values would cost nothing to send.
		if r.bad = r.bad || len(t.Columns) == 0 && n > 0 || rows > MaxRows || values > MaxValues; r.bad {
			break
		}
		table(t, n)
		line := make([]any, len(t.Columns))
		for i := 0; i < n && !r.bad; i++ {
			r.row(line, row)
		}
	}
	if r.bad || len(r.b) > 0 {
		return errors.New("modules: read content: damaged, or with too many rows")
	}
	return nil
}

// row reads a row, or only checks it.
func (r *reader) row(line []any, row func([]any)) {
	if row == nil {
		for range line {
			r.skip()
		}
		return
	}
	for i := range line {
		line[i] = r.value()
	}
	row(line)
}

// table reads the name and columns of a table.
func (r *reader) table() (t Table) {
	t.Name = string(r.text(maxName))
	for range r.count(MaxColumns) {
		t.Columns = append(t.Columns, string(r.text(maxName)))
	}
	return t
}

func (r *reader) value() any {
	switch r.byte() {
	case tagNull:
		return nil
	case tagInt:
		return r.varint()
	case tagFloat:
		if b := r.take(8); b != nil {
			return math.Float64frombits(binary.BigEndian.Uint64(b))
		}
	case tagText:
		return string(r.text(MaxContent))
	case tagBlob:
		return slices.Clone(r.text(MaxContent))
	default:
		r.bad = true
	}
	return nil
}

// skip checks a value.
func (r *reader) skip() {
	switch r.byte() {
	case tagNull:
	case tagInt:
		r.varint()
	case tagFloat:
		r.take(8)
	case tagText, tagBlob:
		r.text(MaxContent)
	default:
		r.bad = true
	}
}

// Summarize says what canonical bytes hold. It keeps no rows: what is a few bytes on the
// line can be many.
func Summarize(b []byte) (Summary, error) {
	s := Summary{}
	err := scan(b, func(t Table, rows int) {
		if rows > 0 {
			s.Filled = append(s.Filled, t.Name)
		}
	}, nil)
	if err != nil {
		return Summary{}, err
	}
	s.Sum = sumOf(b)
	slices.Sort(s.Filled)
	return s, nil
}

func sumOf(b []byte) Sum {
	h := sha256.Sum256(b)
	return Sum(h[:16])
}

// emptied returns the guarded tables that had rows before and have none after.
func emptied(guarded, before, after, allowed []string) (names []string) {
	for _, g := range guarded {
		if slices.Contains(before, g) && !slices.Contains(after, g) && !slices.Contains(allowed, g) {
			names = append(names, g)
		}
	}
	return names
}
