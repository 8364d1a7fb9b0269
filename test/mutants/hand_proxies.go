package main

// proxyMutants are wrong about HAProxy, Galera and GLB.
func proxyMutants(add adder) {
	const (
		reload    = "hooks/haproxy/reload.go"
		candidate = "hooks/haproxy/candidate.go"
		view      = "hooks/haproxy/view.go"
		node      = "hooks/galera/galera.go"
		table     = "hooks/glb/destination.go"
	)
	add("haproxy-failed-reload-unseen", "a master that could not load the configuration is waited for instead of believed",
		replace(reload, "tried && now.failed > 0 && !fresh", "tried && now.failed < 0 && !fresh"))
	add("haproxy-same-process-reloaded", "the old process that still answers counts as the new one",
		replace(reload, "err == nil && v.up() && v.pid != before.pid {\n\t\t\treturn nil\n\t\t}\n\t\tif now", "err == nil && v.up() {\n\t\t\treturn nil\n\t\t}\n\t\tif now"))
	add("haproxy-no-way-back", "a configuration that does not work stays in place",
		replace(candidate, "if err := p.restore(path, kept); err != nil {", "if err := remove(kept); err != nil {"))
	add("haproxy-down-is-up", "a server that is down counts as one that gets connections",
		replace(view, "strings.HasPrefix(r.status, \"UP\")", "strings.Contains(r.status, \"N\")"))
	add("haproxy-half-open", "some open frontends are all",
		replace(view, "case open == len(c.Frontends):", "case open > 0:"))
	add("galera-state-is-enough", "a node of a component that is not the primary one is fit",
		replace(node, "case said[\"wsrep_cluster_status\"] != \"Primary\":", "case said[\"wsrep_cluster_status\"] == \"Disconnected\":"))
	add("galera-donor-is-fit", "a donor that may not be used is only degraded",
		replace(node, "case local == donor && c.AvailableWhenDonor:", "case local == donor:"))
	add("glb-ok-is-believed", "what getinfo says after a destination was set does not matter",
		replace("hooks/glb/control.go", "if wrong := t.wrong(wished); len(wrong) > 0 {", "if wrong := t.wrong(nil); len(wrong) > 0 {"))
	add("glb-half-an-answer", "an answer that was cut off passes",
		replace(table, "if !whole {\n", "if !whole && said == \"\" {\n"))
	add("glb-drained-with-sessions", "connections to a destination of weight 0 do not count",
		replace(table, "there && d.Weight <= 0 {", "there && d.Weight < 0 {"))
}
