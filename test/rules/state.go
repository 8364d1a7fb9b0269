package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// registryOf names the one package-level variable that changes.
const registryOf = "hooks.registry"

// stateFaults checks that a package keeps no state in its variables. Allowed are
//
//   - sentinel errors: var ErrX = errors.New(...), and fmt.Errorf
//   - tables: a composite literal of plain values, or a function literal called
//     at once, that nothing in the package writes to; unexported if it is a map
//     or a slice, for anybody could write to it otherwise
//   - values that only a call can make and nobody can change: netip.MustParse...,
//     regexp.MustCompile, time.Date, reflect.TypeFor
//   - what go:embed fills, and blank assertions: var _ I = T{}
//
// What is written to, has its address taken, or holds a lock, channel, pointer
// or unknown result of a call is state. dir is for messages; files are all of
// the package without its tests.
func stateFaults(dir string, files []source) []string {
	fset := token.NewFileSet()
	var parsed []*ast.File
	for _, f := range files {
		a, err := parser.ParseFile(fset, f.path, f.text, parser.ParseComments)
		if err != nil {
			return []string{fmt.Sprintf("%s: %v", f.path, err)}
		}
		parsed = append(parsed, a)
	}
	// Imports stay unresolved: to tell a package's variable from a local one of
	// the same name, its own declarations suffice.
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object), Selections: make(map[*ast.SelectorExpr]*types.Selection)}
	conf := types.Config{Error: func(error) {}, Importer: nowhere{}}
	checked, _ := conf.Check(dir, fset, parsed, info)

	var faults []string
	at := func(n ast.Node, format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), fmt.Sprintf(format, args...)))
	}
	for _, file := range parsed {
		for _, decl := range file.Decls {
			if g, ok := decl.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, s := range g.Specs {
					spec := s.(*ast.ValueSpec)
					for i, n := range spec.Names {
						if why := variableFault(file.Name.Name, spec, g, n, i); why != "" {
							at(n, "package-level variable %s %s", n.Name, why)
						}
					}
				}
			}
		}
		for _, n := range append(written(file), changed(file, info)...) {
			v, ok := info.Uses[n].(*types.Var)
			if ok && v.Parent() == checked.Scope() && file.Name.Name+"."+n.Name != registryOf {
				at(n, "package-level variable %s is written to, or its address is taken: state belongs to a value that somebody owns", n.Name)
			}
		}
	}
	return faults
}

// variableFault says what is wrong with the declaration of a variable, or "".
func variableFault(pkgName string, spec *ast.ValueSpec, decl *ast.GenDecl, name *ast.Ident, i int) string {
	if name.Name == "_" || pkgName+"."+name.Name == registryOf || embedded(decl) || embeddedSpec(spec) {
		return ""
	}
	if len(spec.Values) != len(spec.Names) {
		return "has no value of its own: it can only be meant to change"
	}
	switch v := spec.Values[i].(type) {
	case *ast.BasicLit, *ast.Ident, *ast.SelectorExpr, *ast.BinaryExpr:
		return "is a plain value: make it a constant, or write it where it is used"
	case *ast.CompositeLit:
		if name.IsExported() && !isArray(v.Type) {
			return "is an exported table, which anybody may write to: export a function"
		}
		if holdsState(v) {
			return "holds a pointer, lock or channel"
		}
		return ""
	case *ast.CallExpr:
		if _, literal := v.Fun.(*ast.FuncLit); literal && !name.IsExported() {
			return ""
		}
		if pure(v.Fun) {
			return ""
		}
		return "is made by a call that may return state"
	}
	return "is neither a sentinel error nor a table"
}

func embedded(g *ast.GenDecl) bool { return isEmbed(g.Doc) }

func embeddedSpec(s *ast.ValueSpec) bool { return isEmbed(s.Doc) }

func isEmbed(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

func isArray(t ast.Expr) bool {
	a, ok := t.(*ast.ArrayType)
	return ok && a.Len != nil
}

// pure reports whether the function is known to return a value that cannot change.
func pure(fun ast.Expr) bool {
	if generic, ok := fun.(*ast.IndexExpr); ok {
		fun = generic.X
	}
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return false
	}
	name := x.Name + "." + sel.Sel.Name
	return slices.Contains([]string{"errors.New", "fmt.Errorf", "regexp.MustCompile", "time.Date", "reflect.TypeFor"}, name) ||
		strings.HasPrefix(name, "netip.MustParse") || strings.HasPrefix(name, "netip.AddrFrom")
}

// holdsState looks for what can change inside of a table.
func holdsState(n ast.Node) bool {
	found := false
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.UnaryExpr:
			found = found || n.Op == token.AND
		case *ast.ChanType:
			found = true
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok {
				found = found || x.Name == "sync" || x.Name == "atomic"
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok {
				found = found || f.Name == "new" || f.Name == "make"
			}
		case *ast.FuncLit:
			return false // what happens inside is found where it writes
		}
		return !found
	})
	return found
}

// written returns the identifiers at the root of everything that is assigned
// to, counted up or down, cleared, deleted from, copied to, appended in place or
// whose address is taken.
func written(file *ast.File) []*ast.Ident {
	var roots []*ast.Ident
	add := func(e ast.Expr) {
		if id := rootOf(e); id != nil {
			roots = append(roots, id)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					add(e)
				}
			}
		case *ast.IncDecStmt:
			add(n.X)
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				add(n.Key)
				add(n.Value)
			}
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				add(n.X)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && slices.Contains([]string{"delete", "clear", "copy"}, f.Name) {
				add(n.Args[0])
			}
		}
		return true
	})
	return roots
}

// changed returns the identifiers at the root of calls of methods that may
// change their receiver: those with a pointer receiver, called on a value.
func changed(file *ast.File, info *types.Info) []*ast.Ident {
	var roots []*ast.Ident
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || info.Selections[sel] == nil || info.Selections[sel].Kind() != types.MethodVal {
			return true
		}
		recv := info.Selections[sel].Obj().(*types.Func).Signature().Recv()
		_, pointer := recv.Type().(*types.Pointer)
		_, already := info.Selections[sel].Recv().(*types.Pointer)
		if id := rootOf(sel.X); id != nil && pointer && !already {
			roots = append(roots, id)
		}
		return true
	})
	return roots
}

// rootOf returns x of x, x.f, x[i], *x and so on.
func rootOf(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// nowhere is an importer that finds nothing.
type nowhere struct{}

func (nowhere) Import(path string) (*types.Package, error) {
	return nil, fmt.Errorf("not imported: %s", path)
}
