package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// kind is what a node is.
type kind uint8

const (
	empty kind = iota
	scalar
	list
	mapping
)

func (k kind) String() string {
	return [...]string{"nothing", "a single value", "a list", "a mapping"}[k]
}

// node is one value of the file. It is all that the rest of the package sees of
// YAML: values are texts, and what they mean is decided by the key.
type node struct {
	at      pos
	key     string // the key that it is the value of, for messages
	kind    kind
	text    string // of a scalar
	items   []*node
	entries []entry
}

// entry is one key of a mapping with its value.
type entry struct {
	at    pos
	key   string
	value *node
}

// maxDepth bounds how deep lists and mappings may be nested. Hand-written files
// need five.
const maxDepth = 24

// document parses the bytes. A fault of YAML is added to the problems, and the
// result is nil.
func (s *source) document(data []byte) (doc *node) {
	// The parser is a large one and not ours. A file must never stop a daemon
	// that holds addresses, so its panics are faults of the file as well.
	defer func() {
		if r := recover(); r != nil {
			s.fault(pos{}, "simplify the file", "the YAML parser failed: %v", r)
			doc = nil
		}
	}()
	if !utf8.Valid(data) {
		s.fault(s.firstInvalid(data), "save the file as UTF-8", "not valid UTF-8")
		return nil
	}
	if i := strings.IndexByte(string(data), 0); i >= 0 {
		s.fault(offset(data, i), "is this a text file?", "a zero byte")
		return nil
	}
	if m := blockText.FindSubmatchIndex(data); m != nil {
		// The lexer takes minutes for one with many empty lines.
		s.fault(offset(data, m[2]), "write it on one line, in quotes", "a text over several lines is not used here")
		return nil
	}
	tokens := joinColons(lexer.Tokenize(string(data)))
	if !s.acceptable(tokens) {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		s.syntax(err)
		return nil
	}
	return s.single(file)
}

// single returns the only document of a file.
func (s *source) single(file *ast.File) *node {
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil && d.Body.Type() != ast.CommentType {
			bodies = append(bodies, d.Body)
		}
	}
	switch len(bodies) {
	case 0:
		s.fault(pos{}, "see carpd.yaml(5) for an example of six lines", "the file is empty")
		return nil
	case 1:
		return s.convert(bodies[0], 0)
	}
	s.fault(place(bodies[1]), "remove the line ... above", "a second document begins here")
	return nil
}

// maxKeys bounds the keys of one mapping: the parser takes time that grows with
// the square. None of ours has more than 64; the rest is for hooks.
const maxKeys = 1024

// acceptable refuses what the strict part of YAML leaves out, nesting that
// would drive a recursive parser deep, and mappings that would keep it busy: it
// runs before the parser does.
func (s *source) acceptable(tokens token.Tokens) bool {
	var flow []int // keys so far in each open bracket
	var block keysIn
	dashes, line := 0, 0 // "- - - a" nests as brackets do
	documents := 0
	for i, t := range tokens {
		at := pos{t.Position.Line, t.Position.Column}
		if at.line != line {
			line, dashes = at.line, 0
		}
		keys := 0
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow = append(flow, 0)
		case token.MappingEndType, token.SequenceEndType:
			flow = flow[:max(len(flow)-1, 0)]
		case token.DocumentHeaderType:
			if documents++; documents > 1 || i > 0 && tokens[i-1].Type != token.CommentType {
				s.fault(at, "remove the line", "a second document begins here")
				return false
			}
		case token.SequenceEntryType:
			dashes++
			block = block.close(at.column)
		case token.MappingValueType:
			if n := len(flow); n > 0 {
				flow[n-1]++
				keys = flow[n-1]
				break
			}
			block, keys = block.add(tokens[max(i-1, 0)].Position.Column)
		case token.AnchorType, token.AliasType, token.TagType, token.DirectiveType, token.MergeKeyType, token.MappingKeyType:
			s.fault(at, "write it out; put a value that begins with this character into quotes",
				"%.1q: anchors, aliases, tags and merge keys are not used here", t.Value) // the rest may be a secret
			return false
		}
		switch {
		case len(flow) > maxDepth || dashes > maxDepth:
			s.fault(at, "", "nested deeper than %d levels", maxDepth)
			return false
		case keys > maxKeys:
			s.fault(at, "", "more than %d keys in one mapping", maxKeys)
			return false
		}
	}
	return true
}

// keysIn counts the keys of the open block mappings by the column they begin in,
// outermost first.
type keysIn []struct{ column, keys int }

// close drops the mappings that end where something begins further left.
func (k keysIn) close(column int) keysIn {
	for len(k) > 0 && k[len(k)-1].column > column {
		k = k[:len(k)-1]
	}
	return k
}

// add counts a key and returns how many its mapping has by now.
func (k keysIn) add(column int) (keysIn, int) {
	k = k.close(column)
	if len(k) == 0 || k[len(k)-1].column < column {
		return append(k, struct{ column, keys int }{column, 1}), 1
	}
	k[len(k)-1].keys++
	return k, k[len(k)-1].keys
}

// blockText finds the header of a text in block style, | or >.
var blockText = regexp.MustCompile(`(?m)^(?:[^#\n]*[ \t])?([|>])[-+0-9]*[ \t]*(?:#.*)?\r?$`)

// joinColons mends what the lexer does to a list inside of a flow mapping, where
// it takes each colon for the end of a key: {addresses: [2001:db8::1/64]}. By
// YAML a colon ends a plain key only if a space follows.
func joinColons(tokens token.Tokens) token.Tokens {
	var out token.Tokens
	var open []token.Type
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			open = append(open, t.Type)
		case token.MappingEndType, token.SequenceEndType:
			open = open[:max(len(open)-1, 0)]
		}
		inList := len(open) > 1 && open[len(open)-1] == token.SequenceStartType
		if !inList || t.Type != token.MappingValueType || i+1 == len(tokens) || !touching(t, tokens[i+1]) {
			out.Add(t)
			continue
		}
		text, at := ":"+tokens[i+1].Value, t.Position
		if last := len(out) - 1; touching(out[last], t) && plainScalar(out[last]) {
			text, at = out[last].Value+text, out[last].Position
			out = out[:last]
		}
		out.Add(token.String(text, text, at))
		i++
	}
	return out
}

// touching reports whether b begins where a ends, and is part of a text.
func touching(a, b *token.Token) bool {
	end := a.Position.Column + utf8.RuneCountInString(a.Value)
	return a.Position.Line == b.Position.Line && b.Position.Column == end && (plainScalar(b) || b.Type == token.MappingValueType)
}

func plainScalar(t *token.Token) bool {
	switch t.Type {
	case token.StringType, token.IntegerType, token.FloatType, token.HexIntegerType, token.OctetIntegerType,
		token.BinaryIntegerType, token.BoolType, token.NullType:
		return true
	}
	return false
}

// syntax turns an error of the parser into a problem, with a hint for the
// usual slips.
func (s *source) syntax(err error) {
	var se *yaml.SyntaxError
	if !errors.As(err, &se) || se.Token == nil || se.Token.Position == nil {
		s.fault(pos{}, "", "not YAML: %v", strings.SplitN(err.Error(), "\n", 2)[0])
		return
	}
	at := pos{se.Token.Position.Line, se.Token.Position.Column}
	message, hint := se.Message, ""
	switch {
	case strings.Contains(message, `'\t'`) || strings.Contains(message, "\t"):
		message, hint = "a tab where the line is indented", "indent with spaces"
	case strings.Contains(message, "mapping value is not allowed"):
		hint = "put a value that holds or ends in a colon into quotes, or indent the line as its neighbours"
	case strings.Contains(message, "must be specified"):
		hint = "a bracket that was opened above is not closed"
	case strings.Contains(message, "not allowed in this context"):
		hint = "indent the line as its neighbours"
	case strings.Contains(message, "could not find end character"):
		hint = "close the quote"
	}
	s.fault(at, hint, "not YAML: %s", message)
}

// convert makes a node of what the parser found.
func (s *source) convert(n ast.Node, depth int) *node {
	out := &node{at: place(n)}
	if depth > maxDepth {
		s.fault(out.at, "", "nested deeper than %d levels", maxDepth)
		return out
	}
	switch v := n.(type) {
	case *ast.NullNode: // null and ~ mean the same as nothing
	case *ast.StringNode:
		out.kind, out.text = scalar, v.Value
	case ast.ScalarNode:
		out.kind, out.text = scalar, v.GetToken().Value
	case *ast.SequenceNode:
		out.kind = list
		for _, item := range v.Values {
			out.items = append(out.items, s.convert(item, depth+1))
		}
	case *ast.MappingNode:
		out.kind = mapping
		for _, e := range v.Values {
			out.entries = append(out.entries, s.entry(e, depth))
		}
	case *ast.MappingValueNode:
		out.kind = mapping
		out.entries = []entry{s.entry(v, depth)}
	default:
		s.fault(out.at, "", "%s is not used here", strings.ToLower(n.Type().YAMLName()))
	}
	return out
}

func (s *source) entry(e *ast.MappingValueNode, depth int) entry {
	t := e.Key.GetToken()
	out := entry{at: place(e.Key), key: t.Value, value: s.convert(e.Value, depth+1)}
	out.value.key = out.key
	for _, item := range out.value.items {
		item.key = out.key
	}
	if out.value.kind == empty {
		out.value.at = out.at // the place behind the colon says nothing
	}
	return out
}

// place returns where a node begins. The parser gives the colon of a block
// mapping, and the first key is what the reader looks for.
func place(n ast.Node) pos {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return place(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return place(v.Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return pos{t.Position.Line, t.Position.Column}
	}
	return pos{}
}

// firstInvalid returns the place of the first byte that is not UTF-8.
func (s *source) firstInvalid(data []byte) pos {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return offset(data, i)
		}
		i += n
	}
	return pos{}
}

// offset returns the place of a byte.
func offset(data []byte, i int) pos {
	before := string(data[:i])
	line := strings.Count(before, "\n")
	return pos{line + 1, utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1}
}

// found describes a value that has the wrong form, for messages. It never
// shows the value: it may be a secret.
func (n *node) found() string { return fmt.Sprintf("found %v", n.kind) }
