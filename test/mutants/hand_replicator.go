package main

// replicatorMutants take for sound what is not.
func replicatorMutants(add adder) {
	const (
		header  = "replicator/sqlite/header.go"
		verify  = "replicator/sqlite/verify.go"
		content = "replicator/sqlite/content.go"
		judge   = "replicator/rules.go"
	)
	add("cut-off-unseen", "a snapshot whose last page is cut off is sound",
		replace(header, "want != size {", "want < size {"))
	add("quick-check", "indexes are not compared with their tables",
		replace(content, "PRAGMA integrity_check(%d)", "PRAGMA quick_check(%d)"))
	add("journal-ignored", "a snapshot that the next opening changes back is sound",
		replace(verify, "return first[0] != 0, \"\"", "return false, \"\""))
	add("change-unseen", "a snapshot that was written to while it was verified is sound",
		replace(verify, "case again != v.Report.SHA256:", "case again != v.Report.SHA256 && false:"))
	add("emptied-passes", "a table of the configuration without a row is sound",
		replace(judge, "case there && c.Rows[name] == 0:", "case there && c.Rows[name] < 0:"))
	add("spelling-ignored", "blanks in a CREATE text do not count",
		replace(judge, "t.Create == \"\" || text == t.Create:", "t.Create == \"\" || strings.ReplaceAll(text, \" \", \"\") == strings.ReplaceAll(t.Create, \" \", \"\"):"))
}
