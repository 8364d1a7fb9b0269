package proxysqlstub

import (
	"os"
	"strings"
	"unicode"
)

// config is what a proxysql.cnf says: settings, each group of variables, each list of rows.
type config struct {
	uuid, data string
	variables  map[string]map[string]string
	rows       map[string][]map[string]string
}

// readConfig reads a file in the grammar of libconfig, as far as ProxySQL uses it: texts,
// numbers, groups in braces, lists of groups in parentheses. One that cannot be read says
// nothing.
func readConfig(path string) config {
	text, _ := os.ReadFile(path) // "" without one
	p := parser{words: words(string(text))}
	c := config{variables: map[string]map[string]string{}, rows: map[string][]map[string]string{}}
	for p.more() {
		name := p.next()
		if p.peek() == "=" || p.peek() == ":" {
			p.next()
		}
		switch p.peek() {
		case "{":
			c.variables[name] = p.group()
		case "(":
			p.next()
			for p.more() && p.peek() != ")" {
				if p.peek() == "{" {
					c.rows[name] = append(c.rows[name], p.group())
				} else {
					p.next()
				}
			}
			p.next()
		default:
			switch value := p.next(); name {
			case "uuid":
				c.uuid = value
			case "datadir":
				c.data = value
			}
		}
		if p.peek() == ";" {
			p.next()
		}
	}
	return c
}

type parser struct{ words []string }

func (p *parser) more() bool { return len(p.words) > 0 }

func (p *parser) peek() string {
	if !p.more() {
		return ""
	}
	return p.words[0]
}

func (p *parser) next() string {
	word := p.peek()
	if p.more() {
		p.words = p.words[1:]
	}
	return strings.TrimPrefix(word, `"`)
}

// group reads names and values in braces.
func (p *parser) group() map[string]string {
	all := map[string]string{}
	for p.next(); p.more() && p.peek() != "}"; {
		name := p.next()
		if p.peek() == "=" || p.peek() == ":" {
			p.next()
			all[name] = p.next()
		}
	}
	p.next()
	return all
}

// words cuts a text into names, numbers, signs, and texts with a quote in front.
func words(text string) (all []string) {
	for text != "" {
		c := text[0]
		switch {
		case c == '#' || strings.HasPrefix(text, "//"):
			_, text, _ = strings.Cut(text, "\n")
		case c == '"':
			var b strings.Builder
			i := 1
			for ; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' && i+1 < len(text) {
					i++
				}
				b.WriteByte(text[i])
			}
			all, text = append(all, `"`+b.String()), text[min(i+1, len(text)):]
		case strings.ContainsRune("={}():;,[]", rune(c)):
			all, text = append(all, string(c)), text[1:]
		case unicode.IsSpace(rune(c)):
			text = text[1:]
		default:
			n := strings.IndexAny(text, "={}():;,[]# \t\r\n\"")
			if n < 0 {
				n = len(text)
			}
			all, text = append(all, text[:n]), text[n:]
		}
	}
	return all
}

// into writes what the file says of a module into memory.
func (c config) into(s *server, m module) {
	for name, value := range c.variables[strings.TrimSuffix(m.prefix, "-")+"_variables"] {
		s.ran(s.main.exec("UPDATE main.global_variables SET variable_value=%s WHERE variable_name=%s", quote(value), quote(m.prefix+name)))
	}
	alias := map[string]string{"address": "hostname", "hostgroup": "hostgroup_id"}
	for _, t := range m.tables {
		for _, row := range c.rows[t] {
			var columns, values []string
			for name, value := range row {
				if a := alias[name]; a != "" && t == "mysql_servers" {
					name = a
				}
				columns, values = append(columns, name), append(values, quote(value))
			}
			if len(columns) > 0 {
				s.ran(s.main.exec("INSERT OR REPLACE INTO main.%s (%s) VALUES (%s)", t, strings.Join(columns, ", "), strings.Join(values, ", ")))
			}
		}
	}
}
