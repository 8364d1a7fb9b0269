package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Decode fills a struct with what stands in `with`. It is strict: an unknown
// key, one given twice, and a value of the wrong form are problems, and all of
// them are in the error, which is of type Problems. What the file leaves out
// keeps its value, so that defaults can be set before. into is a pointer to a
// struct.
//
// The key of a field is in its tag `yaml:"url"`, or its name in lower case;
// "-" leaves a field out, and an embedded struct stands for its fields.
// Fields may be texts, truth values, numbers, durations (Go's syntax or plain
// seconds), whatever has UnmarshalText, structs and pointers to these, slices of
// these, and maps from texts to them.
//
// The hooks of a file are decoded one at a time.
func (h Hook) Decode(into any) error {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() || target.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("config: decode hook %s: want a pointer to a struct, not %T", h.Kind, into)
	}
	if h.with == nil || h.with.kind == empty {
		return nil
	}
	d := decoder{&source{name: h.src.name, lines: h.src.lines}, h.Kind}
	d.fill(h.with, target.Elem())
	if problems := d.all(); len(problems) > 0 {
		return problems
	}
	return nil
}

// Problem puts an error of a hook at its place in the file: at `with` if there
// is one, else where the hook begins. If err holds Problems, the first is
// returned as it is.
func (h Hook) Problem(err error) Problem {
	var ps Problems
	if errors.As(err, &ps) && len(ps) > 0 {
		return ps[0]
	}
	at := pos{h.Line, h.Column}
	if h.with != nil {
		at = h.with.at
	}
	p := h.src.problem(Fault, at, "", fmt.Sprintf("hook %s: %v", h.Kind, err))
	p.Cause = err
	return p
}

// decoder writes nodes into Go values by reflection.
type decoder struct {
	*source
	kind string // of the hook, for messages
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (d decoder) value(n *node, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(n, v.Elem())
		return
	}
	if v.Addr().Type().Implements(textType) {
		d.text(n, v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.fill(n, v)
	case reflect.Slice:
		d.slice(n, v)
	case reflect.Map:
		d.table(n, v)
	default:
		d.scalar(n, v)
	}
}

// fill writes a mapping into a struct.
func (d decoder) fill(n *node, v reflect.Value) {
	if n.kind != mapping {
		d.fault(n.at, "", "%s: want a mapping, %s", n.name(), n.found())
		return
	}
	fields, names := make(map[string][]int), []string(nil)
	for _, f := range reflect.VisibleFields(v.Type()) {
		if f.Anonymous {
			continue // its fields are among them
		}
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		if name != "-" && f.IsExported() {
			fields[name], names = f.Index, append(names, name)
		}
	}
	for key, e := range d.keys(n) {
		if i, known := fields[key]; known {
			d.value(e.value, v.FieldByIndex(i))
			continue
		}
		d.hide(e)
		d.fault(e.at, didYouMean(key, names), "%q is not a key of a hook of kind %s", shown(key), d.kind)
	}
}

// keys gives each key of a mapping once and notes those given twice.
func (d decoder) keys(n *node) func(yield func(string, entry) bool) {
	return func(yield func(string, entry) bool) {
		seen := make(map[string]pos)
		for _, e := range n.entries {
			if first, twice := seen[e.key]; twice {
				d.fault(e.at, "keep one of them", "%s is given twice, first in line %d", shown(e.key), first.line)
				continue
			}
			seen[e.key] = e.at
			if !yield(e.key, e) {
				return
			}
		}
	}
}

func (d decoder) slice(n *node, v reflect.Value) {
	items := n.items
	switch n.kind {
	case scalar:
		items = []*node{n} // one value stands for a list of one
	case list:
	default:
		d.fault(n.at, "", "%s: want a list, %s", n.name(), n.found())
		return
	}
	out := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		d.value(item, out.Index(i))
	}
	v.Set(out)
}

func (d decoder) table(n *node, v reflect.Value) {
	if n.kind != mapping || v.Type().Key().Kind() != reflect.String {
		d.fault(n.at, "", "%s: want a mapping, %s", n.name(), n.found())
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(n.entries))
	for key, e := range d.keys(n) {
		one := reflect.New(v.Type().Elem()).Elem()
		d.value(e.value, one)
		out.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), one)
	}
	v.Set(out)
}

func (d decoder) text(n *node, v reflect.Value) {
	if n.kind != scalar {
		d.fault(n.at, "", "%s: want a single value, %s", n.name(), n.found())
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.text)); err != nil {
		d.fault(n.at, "", "%s: %v", n.name(), err)
	}
}

// scalar writes a single value. Messages do not repeat it: the excerpt shows it
// unless it is a secret.
func (d decoder) scalar(n *node, v reflect.Value) {
	if n.kind != scalar {
		d.fault(n.at, "", "%s: want a single value, %s", n.name(), n.found())
		return
	}
	var err error
	want := ""
	switch k := v.Kind(); {
	case v.Type() == durationType:
		want = "a duration like 500ms, 3s, 10m, or plain seconds"
		var t time.Duration
		t, err = parseDuration(n.text)
		v.SetInt(int64(t))
	case k == reflect.String:
		v.SetString(n.text)
	case k == reflect.Bool:
		want = "true or false"
		yes, ok := truth(n.text)
		if !ok {
			err = strconv.ErrSyntax
		}
		v.SetBool(yes)
	case v.CanInt():
		want = fmt.Sprintf("a whole number of at most %d bits", v.Type().Bits())
		var i int64
		i, err = strconv.ParseInt(n.text, 10, v.Type().Bits())
		v.SetInt(i)
	case v.CanUint():
		want = fmt.Sprintf("a whole number from 0, of at most %d bits", v.Type().Bits())
		var u uint64
		u, err = strconv.ParseUint(n.text, 10, v.Type().Bits())
		v.SetUint(u)
	case v.CanFloat():
		want = "a number"
		var f float64
		f, err = strconv.ParseFloat(n.text, v.Type().Bits())
		v.SetFloat(f)
	default:
		d.fault(n.at, "", "%s: a hook of kind %s cannot be given it here", n.name(), d.kind)
	}
	if err != nil {
		d.fault(n.at, "", "%s: want %s", n.name(), want)
	}
}

// name is what messages call a node.
func (n *node) name() string {
	if n.key == "" {
		return "the value"
	}
	return shown(n.key)
}

// sameValue reports whether two nodes say the same, whatever their style and
// the order of their keys.
func sameValue(a, b *node) bool {
	if a == nil || b == nil || a.kind == empty || b.kind == empty {
		return a.void() && b.void()
	}
	if a.kind != b.kind || a.text != b.text || len(a.entries) != len(b.entries) {
		return false
	}
	for _, e := range a.entries {
		i := slices.IndexFunc(b.entries, func(o entry) bool { return o.key == e.key })
		if i < 0 || !sameValue(e.value, b.entries[i].value) {
			return false
		}
	}
	return slices.EqualFunc(a.items, b.items, sameValue)
}

func (n *node) void() bool { return n == nil || n.kind == empty }
