package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reader turns nodes into values. Its methods note each fault and go on, so
// that one pass finds them all.
type reader struct {
	*source
	options Options
	dir     string // of the file: relative names start here
}

// setters says what to do with the value of each key of a mapping.
type setters map[string]func(*node)

// fields calls the setter of each key, and notes keys that are unknown, given
// twice, or of a later version. It returns where each key stands.
func (r *reader) fields(n *node, set keySet, do setters) map[string]pos {
	at := make(map[string]pos, len(n.entries))
	if n.kind != mapping {
		r.fault(n.at, "write key: value, one a line", "%s is a mapping: %s", set.what, n.found())
		return at
	}
	for _, e := range n.entries {
		key := e.key
		if real := set.aliases[key]; real != "" {
			key = real
		}
		if first, twice := at[key]; twice {
			r.fault(e.at, "keep one of them", "%s is given twice, first in line %d", key, first.line)
			continue
		}
		if !set.has(key) {
			r.unknown(e, set)
			continue
		}
		at[key] = e.at
		do[key](e.value)
	}
	return at
}

// unknown notes a key that does not belong into the mapping.
func (r *reader) unknown(e entry, set keySet) {
	home := homeOf(e.key, set.what)
	if _, planned := set.planned[e.key]; !planned && home == "" {
		r.hide(e)
	}
	if r.full() {
		r.faults++ // the guess is dear, and nobody would see it
		return
	}
	if purpose, ok := set.planned[e.key]; ok {
		r.fault(e.at, "remove the key", "%s is not in this version: %s, planned", e.key, purpose)
		return
	}
	hint := ""
	if g := set.guess(e.key); g != "" {
		hint = fmt.Sprintf("did you mean %q?", g)
	} else if home != "" {
		hint = "it belongs in " + home
	}
	r.fault(e.at, hint, "%q is not a key of %s", shown(e.key), set.what)
}

// homeOf returns which other mapping knows the key.
func homeOf(key, not string) string {
	for _, set := range keySets() {
		if _, planned := set.planned[key]; set.what != not && (set.has(key) || planned) {
			return set.what
		}
	}
	return ""
}

// str reads a single value that is not empty.
func (r *reader) str(n *node, what string) (string, bool) {
	switch {
	case n.kind == empty || n.kind == scalar && n.text == "":
		r.fault(n.at, "", "%s is empty: want %s", n.key, what)
	case n.kind != scalar:
		r.fault(n.at, "", "%s: want %s, %s", n.key, what, n.found())
	default:
		return n.text, true
	}
	return "", false
}

// list reads a list. A single value stands for a list of one.
func (r *reader) list(n *node, what string, limit int) []*node {
	switch n.kind {
	case list:
	case scalar:
		return []*node{n}
	default:
		r.fault(n.at, "write one a line after \"- \", or in brackets with commas", "%s: want a list of %s, %s", n.key, what, n.found())
		return nil
	}
	if len(n.items) > limit {
		r.fault(n.items[limit].at, "", "%s: more than %d", n.key, limit)
		return n.items[:limit]
	}
	return n.items
}

// number reads a whole number in decimal.
func (r *reader) number(n *node, low, high int, into *uint8) {
	what := fmt.Sprintf("a number from %d to %d", low, high)
	text, ok := r.str(n, what)
	if !ok {
		return
	}
	v, err := strconv.Atoi(text)
	switch {
	case err != nil || strings.HasPrefix(text, "+"):
		r.fault(n.at, "", "%s: want %s, found %q", n.key, what, text)
	case v < low || v > high:
		r.fault(n.at, "", "%s: %s is out of range: want %s", n.key, text, what)
	default:
		*into = uint8(v)
	}
}

// yes reads a truth value in the words of YAML 1.1, which people go on using.
func (r *reader) yes(n *node, into *bool) {
	text, ok := r.str(n, "true or false")
	if !ok {
		return
	}
	v, ok := truth(text)
	if !ok {
		r.fault(n.at, didYouMean(text, []string{"true", "false"}), "%s: want true or false, found %q", n.key, text)
		return
	}
	*into = v
}

func truth(text string) (value, ok bool) {
	switch strings.ToLower(text) {
	case "true", "yes", "on":
		return true, true
	case "false", "no", "off":
		return false, true
	}
	return false, false
}

// choice reads one of a few words. planned has those of a later version.
func (r *reader) choice(n *node, into *string, words []string, planned map[string]string) {
	text, ok := r.str(n, oneOf(words))
	if !ok {
		return
	}
	if slices.Contains(words, text) {
		*into = text
		return
	}
	if purpose, ok := planned[text]; ok {
		r.fault(n.at, "use "+oneOf(words), "%s: %s is not in this version: %s, planned", n.key, text, purpose)
		return
	}
	hint := "use " + oneOf(words)
	if c := nearest(text, words); c != "" {
		hint = fmt.Sprintf("did you mean %q?", c)
	} else if c := nearest(text, slices.Sorted(maps.Keys(planned))); c != "" {
		hint = fmt.Sprintf("did you mean %q? It is not in this version: use %s", c, oneOf(words))
	}
	r.fault(n.at, hint, "%s: %q is not known", n.key, text)
}

// duration reads a time in Go's syntax or in plain seconds.
func (r *reader) duration(n *node, low, high time.Duration, into *time.Duration) {
	d, ok := r.anyDuration(n)
	switch {
	case !ok:
	case d < low || d > high:
		r.outOfRange(n, d, low, high)
	default:
		*into = d
	}
}

// anyDuration reads a duration of any length.
func (r *reader) anyDuration(n *node) (d time.Duration, ok bool) {
	text, ok := r.str(n, "a duration")
	if !ok {
		return 0, false
	}
	d, err := parseDuration(text)
	if err != nil {
		r.fault(n.at, "write 500ms, 3s, 10m, or plain seconds", "%s: %q is not a duration", n.key, text)
	}
	return d, err == nil
}

// outOfRange notes a duration that is too short or too long.
func (r *reader) outOfRange(n *node, d, low, high time.Duration) {
	hint := ""
	if d > high && strings.Trim(n.text, "0123456789.") == "" {
		hint = "a number without a unit is in seconds"
	}
	r.fault(n.at, hint, "%s: %s is out of range: want %s to %s", n.key, n.text, brief(low), brief(high))
}

func parseDuration(text string) (time.Duration, error) {
	if strings.Trim(strings.TrimPrefix(text, "-"), "0123456789.") == "" {
		text += "s" // "5u" and "2m30" are slips, not seconds
	}
	return time.ParseDuration(text)
}

// brief writes a duration without the zero units that Go appends.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// absolute reads an absolute path.
func (r *reader) absolute(n *node, into *string) {
	text, ok := r.str(n, "an absolute path")
	if !ok {
		return
	}
	if !filepath.IsAbs(text) {
		r.fault(n.at, "begin it with /", "%s: %q is not an absolute path", n.key, text)
		return
	}
	*into = filepath.Clean(text)
}

// word reads a name: letters, digits and a few signs, no spaces, so that it can
// stand in a log line, a metric and a shell command as it is.
func (r *reader) word(n *node, limit int, into *string) {
	text, ok := r.str(n, "a name")
	if !ok {
		return
	}
	switch bad := strings.IndexFunc(text, func(c rune) bool { return !wordRune(c) }); {
	case bad >= 0:
		r.fault(n.at, "use letters, digits and . _ - @ : only", "%s: %q is not a name", n.key, text)
	case strings.ContainsRune(wordSigns, rune(text[0])):
		r.fault(n.at, "begin it with a letter or digit", "%s: %q is not a name", n.key, text)
	case len(text) > limit:
		r.fault(n.at, "", "%s: longer than %d characters", n.key, limit)
	default:
		*into = text
	}
}

// wordSigns are what a word has besides letters and digits, but not as its first
// character: "-x" is an option, ".." a directory.
const wordSigns = "._-@:"

func wordRune(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(wordSigns, c)
}
