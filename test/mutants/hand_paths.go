package main

// pathMutants go wrong where a group has several paths.
func pathMutants(add adder) {
	const paths = "carp/paths.go"
	add("copies-count", "a round that comes over two paths counts twice",
		replace(paths, "\treturn again\n}\n\n// neighbour finds", "\treturn false\n}\n\n// neighbour finds"))
	add("node-by-address", "a master's bow-out over another path is that of a stranger",
		replace(paths, "p.sender, p.Src = p.Src, n.name", "p.sender, p.Src = p.Src, p.Src"))
	add("tie-on-every-path", "a tie is decided on each path, and by addresses in another order on each",
		replace(receive, "\tcase h.path > 0 && e.primaryDecides(now, p):\n\t\treturn\n", ""))
	add("tie-on-no-path", "where the other path is quicker, no tie is ever decided",
		replace(paths, "e.state == Master && !h.leaves && e.asMaster(", "e.state == Backup && !h.leaves && e.asMaster("))
	add("client-side-goes-silently", "a master whose client side goes down says nothing on the other path",
		replace(paths, "case e.Stalled(now) || !e.besideUp():", "case e.Stalled(now) || e.besideUp():"))
	add("probe-fails-for-ever", "a master lets go again and again while its probe fails",
		replace(paths, "\tif good == !e.cutOff {\n\t\treturn e.finish()\n\t}\n", ""))
	add("cut-off-node-preempts", "a node whose probe fails takes the role from a worse one that serves",
		replace(rules, "&& !e.cutOff && now", "&& now"))
}
