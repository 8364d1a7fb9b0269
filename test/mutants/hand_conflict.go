package main

// conflictMutants take one for a stranger who is none, or shout without end.
func conflictMutants(add adder) {
	const conflict = "vip/conflict.go"
	add("conflict-in-a-takeover", "what was seen during a takeover or a contest counts as a conflict",
		replace(conflict, "if c.First <= since {", "if false {"),
		replace(conflict, "if c.Last <= since || idle", "if idle"))
	add("conflict-at-once", "another master is not waited for before a conflict is told",
		replace(conflict, "> conflictApart && now.Sub(c.First) >= calm", "> conflictApart"))
	add("conflict-with-oneself", "own frames that a switch sends back are a conflict",
		replace("vip/set_conflict.go", "ours && c.MAC != st.on.MAC && c.From != st.on.MAC {", "ours {"),
		replace("vip/set_conflict.go", "{ return l.MAC == c.MAC }", "{ return false }"))
	add("defence-without-limit", "a conflict is answered by announcements without a limit (RFC 5227, 2.4)",
		replace(conflict, "if t.defended != 0 && now.Sub(t.defended) < DefendEvery {", "if false {"))
}
