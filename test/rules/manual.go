package rules

import (
	"regexp"
	"strings"
)

// fontWord finds what a page sets in bold or italics: \fBword\fR.
var fontWord = regexp.MustCompile(`\\f[BI]([^\\]*)\\f`)

// manualWords returns the words that a manual page (man or mdoc) sets apart: on
// a macro line, after .TP, or between font changes. A word that only stands in
// running text is not among them: "hash" must be explained, not just occur.
func manualWords(page string) map[string]bool {
	page = strings.ReplaceAll(page, `\-`, "-")
	words := make(map[string]bool)
	add := func(text string) {
		for _, w := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\",;:()[]|", r) }) {
			words[strings.Trim(w, ".")] = true
		}
	}
	tagged := false
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, `.\"`):
			continue
		case strings.HasPrefix(line, "."):
			add(line)
		case tagged:
			add(strings.NewReplacer(`\fB`, " ", `\fI`, " ", `\fR`, " ", `\fP`, " ").Replace(line))
		}
		for _, m := range fontWord.FindAllStringSubmatch(line, -1) {
			add(m[1])
		}
		tagged = line == ".TP" || strings.HasPrefix(line, ".TP ")
	}
	return words
}

// MissingWords returns those of wanted that the page does not set apart.
func MissingWords(page string, wanted []string) []string {
	words := manualWords(page)
	var missing []string
	for _, w := range wanted {
		if !words[w] {
			missing = append(missing, w)
		}
	}
	return missing
}
