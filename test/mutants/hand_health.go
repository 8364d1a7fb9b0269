package main

// healthMutants have a node think itself fitter than it is, or give the role away for
// nothing.
func healthMutants(add adder) {
	const (
		fitness = "carp/fitness.go"
		grade   = "hooks/grade.go"
		look    = "hooks/watch.go"
		health  = "cmd/daemon/health.go"
	)
	add("unfit-heir", "an unfit master lets go for one that is unfit as well",
		replace(fitness, "p.State != Backup || p.Fitness == Unfit ||", "p.State != Backup ||"))
	add("unfit-for-a-stranger", "an unfit master lets go for a member that does not follow it",
		replace(fitness, " || p.Follows != master", ""))
	add("unfit-again-and-again", "an unfit master lets go for one that does not take the role, without a pause",
		replace(fitness, " || now < h.next", ""))
	add("unfit-unsaid", "a member does not say that it is unfit",
		replace("carp/handover.go", "case e.timers[timerHold] != 0 || e.health.unfit:", "case e.timers[timerHold] != 0:"))
	add("unfit-all-at-once", "unfit backups all take the role that is left at one instant",
		replace("carp/rules.go", "if e.cutOff || e.health.unfit {\n\t\twait = time", "if e.cutOff {\n\t\twait = time"))
	add("blind-is-healthy", "what cannot be looked at counts as well",
		replace(grade, "case blind != nil:\n\t\treturn worst", "case blind != nil:\n\t\treturn 0"))
	add("flapping-rises", "early looks of what comes and goes add up to rise",
		replace(grade, "case early && seen <= g.looks[0]:", "case early && seen == g.looks[0]:"))
	add("grade-of-the-last-look", "one bad look among degraded ones makes unfit",
		replace(grade, "low = min(low, s)", "low = max(s, of[0])"))
	add("cut-look-counts", "a look that was cancelled counts as a bad one",
		replace(look, "return severityOf(report, err, s.Watch.Weight), look.Err() == nil", "return severityOf(report, err, s.Watch.Weight), true"))
	add("unfit-untold", "the engine is not told that its node is unfit",
		replace(health, "i.speaker.Unfit(!f.since.IsZero())", "i.speaker.Unfit(false)"))
	add("election-unseen", "a node stands for election before its monitors have looked",
		replace(health, "for i.unseen() {", "for false && i.unseen() {"))
	add("zombie-serves", "a dead process that was not waited for runs",
		replace("hooks/check/process.go", "state != 'Z' && state", "state"))
	add("certificates-unverified", "any certificate will do",
		replace("hooks/check/dial.go", "MinVersion: tls.VersionTLS12}", "MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}"))
}
