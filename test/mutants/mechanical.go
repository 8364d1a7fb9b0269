package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// engineFiles are those that are mutated mechanically: decisions, engine, codec.
func engineFiles() []string {
	return []string{
		"carp/election.go", "carp/election_vrrp.go", "carp/rules.go", "carp/engine.go", "carp/reconfigure.go", "carp/receive.go", "carp/source.go", "carp/farewell.go", "carp/vrrp.go",
		"carp/send.go", "carp/auth.go", "carp/wire_carp.go", "carp/wire_vrrp.go",
	}
}

// swaps are the operators and what replaces each: a bound that is off by one, the
// opposite, the other connective.
var swaps = map[token.Token]string{
	token.EQL: "!=", token.NEQ: "==", token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">",
	token.ADD: "-", token.SUB: "+", token.MUL: "+", token.QUO: "*", token.REM: "/",
	token.LAND: "||", token.LOR: "&&", token.SHL: ">>", token.SHR: "<<", token.AND: "|", token.OR: "&", token.XOR: "|",
}

// names are identifiers that are replaced by their opposite.
var names = map[string]string{"true": "false", "false": "true", "min": "max", "max": "min"}

// generate makes every mechanical mutant of the files, in the order of the text.
// Some do not compile.
func generate(tree string, files []string) ([]mutant, error) {
	var all []mutant
	seen := map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(tree, file))
		if err != nil {
			return nil, err
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, file, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("mutate %s: %w", file, err)
		}
		g := generator{file: file, text: string(text), fset: fset}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				g.function = f.Name.Name
				ast.Inspect(f.Body, g.visit)
			}
		}
		for _, m := range g.mutants {
			if seen[m.name]++; seen[m.name] > 1 {
				m.name += " #" + strconv.Itoa(seen[m.name])
			}
			all = append(all, m)
		}
	}
	return all, nil
}

// generator walks one file.
type generator struct {
	file, text, function string
	fset                 *token.FileSet
	mutants              []mutant
}

func (g *generator) offset(p token.Pos) int { return g.fset.Position(p).Offset }

func (g *generator) source(n ast.Node) string { return g.text[g.offset(n.Pos()):g.offset(n.End())] }

// add makes a mutant that replaces n bytes at p. around is the node that shows a
// reader what it is about; of a single word it is the line.
func (g *generator) add(p token.Pos, n int, new string, around ast.Node) {
	at, start, end := g.offset(p), g.offset(around.Pos()), g.offset(around.End())
	switch around.(type) {
	case *ast.BasicLit, *ast.Ident:
		start = strings.LastIndexByte(g.text[:at], '\n') + 1
		end = at + strings.IndexByte(g.text[at:], '\n')
	}
	old, before, after := g.text[at:at+n], ending(g.text[start:at]), beginning(g.text[at+n:end])
	what := fmt.Sprintf("`%s` becomes `%s`", short(before+old+after), short(before+new+after))
	if strings.TrimSpace(before+new+after) == "" {
		what = fmt.Sprintf("`%s` is dropped", short(old))
	}
	id := fmt.Sprintf("%s %s: %s", filepath.Base(g.file), g.function, what)
	g.mutants = append(g.mutants, mutant{
		name: id, what: what, made: true, edits: []edit{{g.file, old, new, at}},
	})
}

// around is how much of the text beside a change is shown.
const around = 40

func ending(s string) string {
	if s = squeeze(s); len(s) > around {
		return "..." + s[len(s)-around:]
	}
	return s
}

func beginning(s string) string {
	if s = squeeze(s); len(s) > around {
		return s[:around] + "..."
	}
	return s
}

func (g *generator) negate(cond ast.Expr) {
	g.add(cond.Pos(), int(cond.End()-cond.Pos()), "!("+g.source(cond)+")", cond)
}

// visit makes the mutants of one node.
func (g *generator) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		if new, ok := swaps[n.Op]; ok {
			g.add(n.OpPos, len(n.Op.String()), new, n)
		}
	case *ast.IfStmt:
		g.negate(n.Cond)
	case *ast.SwitchStmt:
		if n.Tag == nil {
			g.cases(n)
		}
	case *ast.BasicLit:
		if n.Kind == token.INT {
			g.add(n.Pos(), len(n.Value), beside(n.Value, 1), n)
			g.add(n.Pos(), len(n.Value), beside(n.Value, -1), n)
		}
	case *ast.Ident:
		if new, ok := names[n.Name]; ok {
			g.add(n.Pos(), len(n.Name), new, n)
		}
	case *ast.IncDecStmt:
		g.add(n.TokPos, 2, map[token.Token]string{token.INC: "--", token.DEC: "++"}[n.Tok], n)
	case *ast.BlockStmt:
		g.drop(n.List)
	case *ast.CaseClause:
		g.drop(n.Body)
	}
	return true
}

// beside returns the number one greater or less, written as the literal is.
func beside(literal string, by int64) string {
	n, err := strconv.ParseInt(literal, 0, 64)
	switch {
	case err != nil:
		return fmt.Sprintf("(%s + %d)", literal, by)
	case n+by < 0:
		return fmt.Sprintf("(%d)", n+by)
	case strings.HasPrefix(literal, "0x"):
		return fmt.Sprintf("%#x", n+by)
	}
	return strconv.FormatInt(n+by, 10)
}

// cases negates the conditions of a switch without a tag.
func (g *generator) cases(s *ast.SwitchStmt) {
	for _, c := range s.Body.List {
		for _, cond := range c.(*ast.CaseClause).List {
			g.negate(cond)
		}
	}
}

// drop leaves out calls, assignments and early returns, one at a time.
func (g *generator) drop(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				continue
			}
		case *ast.ExprStmt, *ast.IncDecStmt, *ast.ReturnStmt, *ast.BranchStmt:
		default:
			continue
		}
		g.add(s.Pos(), int(s.End()-s.Pos()), "", s)
	}
}

// draw orders the mutants by lot, so that each file has its turn. Whether a mutant
// comes early depends on its own text and the seed, not on what else there is.
func draw(all []mutant, seed uint64) []mutant {
	lot := func(m mutant) string {
		sum := sha256.Sum256(fmt.Append(nil, seed, " ", m.name))
		return string(sum[:])
	}
	byFile := map[string][]mutant{}
	for _, m := range all {
		byFile[m.edits[0].file] = append(byFile[m.edits[0].file], m)
	}
	var files []string
	for f, some := range byFile {
		files = append(files, f)
		slices.SortFunc(some, func(a, b mutant) int { return cmp.Compare(lot(a), lot(b)) })
	}
	slices.Sort(files)
	var drawn []mutant
	for round := 0; len(drawn) < len(all); round++ {
		for _, f := range files {
			if round < len(byFile[f]) {
				drawn = append(drawn, byFile[f][round])
			}
		}
	}
	return drawn
}

// compiling returns the first n of the mutants that compile. Hand mutants pass: if
// one of them does not compile, the run says so.
func compiling(tree string, mutants []mutant, n int) ([]mutant, error) {
	c := newChecker(tree)
	var some []mutant
	for i := range mutants {
		if len(some) == n {
			break
		}
		m := &mutants[i]
		ok := !m.made
		if m.made {
			var err error
			if ok, err = c.compiles(m); err != nil {
				return nil, err
			}
		}
		if ok {
			some = append(some, *m)
		}
	}
	return some, nil
}

// checker type-checks packages that import the standard library only.
type checker struct {
	tree    string
	fset    *token.FileSet
	imports types.Importer
	parsed  map[string][]source // by directory
}

type source struct {
	name string
	file *ast.File
}

func newChecker(tree string) *checker {
	c := &checker{tree: tree, fset: token.NewFileSet(), parsed: map[string][]source{}}
	c.imports = importer.ForCompiler(c.fset, "source", nil)
	return c
}

func (c *checker) compiles(m *mutant) (bool, error) {
	dir := filepath.Dir(m.edits[0].file)
	if c.parsed[dir] == nil {
		if err := c.parse(dir); err != nil {
			return false, err
		}
	}
	changed, err := m.apply(c.tree)
	if err != nil {
		return false, err
	}
	var files []*ast.File
	for _, s := range c.parsed[dir] {
		if text, ok := changed[s.name]; ok {
			f, err := parser.ParseFile(c.fset, s.name, text, parser.SkipObjectResolution)
			if err != nil {
				return false, nil
			}
			files = append(files, f)
			continue
		}
		files = append(files, s.file)
	}
	conf := types.Config{Importer: c.imports}
	_, err = conf.Check(module+"/"+dir, c.fset, files, nil)
	return err == nil, nil
}

func (c *checker) parse(dir string) error {
	names, err := filepath.Glob(filepath.Join(c.tree, dir, "*.go"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(c.fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		c.parsed[dir] = append(c.parsed[dir], source{filepath.Join(dir, filepath.Base(name)), f})
	}
	return nil
}
