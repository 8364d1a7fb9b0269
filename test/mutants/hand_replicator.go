package main

// replicatorMutants take for sound what is not.
func replicatorMutants(add adder) {
	const (
		header  = "replicator/sqlite/header.go"
		verify  = "replicator/sqlite/verify.go"
		content = "replicator/sqlite/content.go"
		judge   = "replicator/rules.go"
		choose  = "replicator/store.go"
		taking  = "replicator/sqlite/take.go"
		publish = "replicator/dir/publish.go"
		pruning = "replicator/dir/prune.go"
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
	add("older-replaces", "an older snapshot is published over a newer one",
		replace(publish, "len(all) > 0 && m.Version", "len(all) > 0 && false && m.Version"))
	add("manifest-first", "a snapshot is visible before its data is there",
		replace(publish, "if err := s.takeBack(m.Version); err != nil {", "if err := s.place(s.manifest(m.Version), \"manifest\", func(path string) error { return s.write(path, text) }); err != nil {"))
	add("not-read-back", "what was written is not compared with the manifest",
		replace(publish, "return intact(ctx, path, m)", "return nil"))
	add("last-sound-pruned", "pruning believes in the newest without a look",
		replace(choose, "found < max(k.Least, 1) && !sound(m):", "found < max(k.Least, 1) && !sound(m) && false:"))
	add("quarantine-forgotten", "a crash leaves a snapshot in service whose reason for quarantine is written",
		replace(pruning, "err = errors.Join(err, s.finish(v))", "_ = v"))
	add("log-mode-copied", "the copy of a database in write-ahead log mode is in that mode, too",
		replace(taking, "PRAGMA journal_mode=DELETE", "PRAGMA journal_mode"))
	add("copy-left", "a copy that was not finished stays",
		replace(taking, ", err), discard(dest))", ", err))"))
}
