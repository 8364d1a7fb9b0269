package main

// runtimeMutants lose what was committed, or serve what is not whole.
func runtimeMutants(add adder) {
	const (
		master  = "replicator/master.go"
		peer    = "replicator/peer.go"
		standby = "replicator/standby.go"
		source  = "replicator/sqlite/source.go"
		psql    = "replicator/proxysql/source.go"
	)
	add("number-reused", "a snapshot gets the number of one in quarantine, which peers may have",
		replace(master, "away[0].Version.Compare(last) > 0", "away[0].Version.Compare(last) > 1"))
	add("superseded-unnoticed", "a master goes on beside a greater mastership in its own store, and says nothing",
		replace(master, "len(all) == 0 || all[0].Version.Compare(m.last) <= 0", "len(all) == 0 || all[0].Version.Compare(m.last) <= 1"))
	add("loss-unnoticed", "a peer that lost its store is not asked again what it has",
		replace(peer, "case <-t.C:\n\t\tp.asked = false", "case <-t.C:"))
	add("unseen-quarantined", "a snapshot that could not be read in time is taken out of service",
		replace(standby, "if passing(v) {", "if passing(v) && false {"))
	add("copy-then-look", "what is committed during a copy counts as copied",
		replace(source, "now, asked := s.ask(ctx)\n\ttaken, err := take()", "taken, err := take()\n\tnow, asked := s.ask(ctx)"))
	add("half-save-taken", "a table that was emptied a moment ago is sound where no rule names it",
		replace(psql, "seen.copies < saveCopies || time.Since(seen.since) < saveTime", "seen.copies < 1"))
}
