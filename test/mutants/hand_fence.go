package main

// fenceMutants leave addresses answering that must not.
func fenceMutants(add adder) {
	const gates = "vip/gates.go"
	add("gate-without-second-look", "a tag is used though it was staged too late for its permit",
		replace(gates, "tooLate := after.Add(s.life) > s.until", "tooLate := after < 0"))
	add("gate-looks-too-early", "the clock is not read again after a tag was staged",
		replace(gates, "after := g.clock()", "after := now"))
	add("gate-opened-after-withdrawal", "a mark is set to its tag though the permit was withdrawn meanwhile",
		replace(gates, "{ return !s.t.want.Load() || carp.Instant(s.t.until.Load()) < s.until }", "{ return false }"))
	add("gate-left-open", "a permit that is withdrawn does not close the gate",
		replace("vip/set.go", "\t\ts.state.gate.wish(false)\n", "\t\t_ = s.state.gate\n"))
	add("fence-removed-too-soon", "the fence of a dead daemon is removed while its addresses are on",
		replace("vip/fence_stale_linux.go", "takeOff(k, f.behind(name), held)", "takeOff(k, nil, held)"))
	add("fence-after-the-addresses", "what is new is put on before it is behind the gate",
		replace("vip/reconfigure.go", "if err := s.protect(); err != nil { //", "if err := error(nil); err != nil { //"))
	add("fence-cuts-the-client", "a closed fence drops what goes to the address elsewhere",
		replace("vip/fence_rules_linux.go", "load(header, source4, 4), unlessLive(setOurs4)),", "load(header, target4, 4), unlessLive(setOurs4)),"))
}
