package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// docFaults checks that a package has a comment and each exported name of it
// too. files are all of the package without its tests. In package main nothing
// can be imported, so only the package comment is asked for.
func docFaults(dir string, files []source) []string {
	fset := token.NewFileSet()
	var faults []string
	fault := func(n ast.Node, what string) {
		faults = append(faults, fmt.Sprintf("%s: %s has no comment", fset.Position(n.Pos()), what))
	}
	documented := false
	for _, f := range files {
		file, err := parser.ParseFile(fset, f.path, f.text, parser.ParseComments)
		if err != nil {
			return []string{fmt.Sprintf("%s: %v", f.path, err)}
		}
		documented = documented || file.Doc.Text() != ""
		if file.Name.Name == "main" {
			continue
		}
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc.Text() == "" && !obvious(d) {
					fault(d, d.Name.Name)
				}
			case *ast.GenDecl:
				genFaults(d, fault)
			}
		}
	}
	if !documented {
		faults = append(faults, fmt.Sprintf("%s: the package has no comment: it is the contract", dir))
	}
	return faults
}

// genFaults checks types, constants and variables. A comment on a group of
// constants or variables counts for its members: enums are explained together,
// or each at the end of its line.
func genFaults(d *ast.GenDecl, fault func(ast.Node, string)) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if !s.Name.IsExported() {
				continue
			}
			if s.Doc.Text() == "" && (d.Lparen.IsValid() || d.Doc.Text() == "") {
				fault(s, s.Name.Name)
			}
			if i, ok := s.Type.(*ast.InterfaceType); ok {
				methodFaults(s.Name.Name, i, fault)
			}
		case *ast.ValueSpec:
			for _, n := range s.Names {
				if n.IsExported() && d.Doc.Text() == "" && s.Doc.Text() == "" && s.Comment.Text() == "" {
					fault(n, n.Name)
				}
			}
		}
	}
}

// methodFaults checks an interface's methods: with a single one, the comment of
// the type may explain it.
func methodFaults(name string, i *ast.InterfaceType, fault func(ast.Node, string)) {
	if len(i.Methods.List) < 2 {
		return
	}
	for _, m := range i.Methods.List {
		for _, n := range m.Names {
			if n.IsExported() && m.Doc.Text() == "" && m.Comment.Text() == "" {
				fault(m, name+"."+n.Name)
			}
		}
	}
}

// obvious reports whether the method is one whose meaning the standard library
// has fixed.
func obvious(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return false
	}
	switch d.Name.Name {
	case "String", "Error", "Unwrap", "Is", "Len", "Less", "Swap":
		return true
	}
	return false
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	switch x := t.(type) {
	case *ast.IndexExpr:
		t = x.X
	case *ast.IndexListExpr:
		t = x.X
	}
	id, ok := t.(*ast.Ident)
	return ok && (id.IsExported() || strings.HasPrefix(id.Name, "_"))
}
