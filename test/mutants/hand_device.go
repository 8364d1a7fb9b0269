package main

// deviceMutants take a device away under its file system, or use a copy that lacks
// something.
func deviceMutants(add adder) {
	const (
		hast       = "hooks/hast/hast.go"
		record     = "hooks/hast/sync.go"
		drbd       = "hooks/drbd/drbd.go"
		filesystem = "hooks/volume/filesystem.go"
	)
	add("hast-exit-believed", "hastctl's success counts as the role and the device",
		replace(hast, "return now.Role == role && also(), nil", "return true, nil"))
	add("hast-holder-ignored", "the role of a device is changed though somebody holds it",
		replace(hast, "if err := h.v.Down(ctx, h.c.Device); err != nil {", "if err := h.v.Down(ctx, h.c.Device); err != nil && false {"))
	add("hast-last-words-lost", "a node becomes primary while writes of the other one are under way",
		replace(hast, "now.Role != Secondary || now.Worker == 0", "now.Role != Secondary || now.Worker >= 0"))
	add("hast-incomplete-copy", "a copy of which nobody knows whether it is whole is promoted",
		replace(record, "\tif !r.Whole {\n", "\tif !r.Whole && false {\n"))
	add("hast-new-connection-whole", "a copy counts as whole in a connection that began with what was missed",
		replace(record, "if mine.Worker != r.Worker {", "if mine.Worker != r.Worker && r.Worker == 0 {"))
	add("hast-dirty-handover", "a device is handed over while something is dirty",
		replace(hast, "case now.Dirty > 0:\n\t\treturn", "case now.Dirty < 0:\n\t\treturn"))
	add("hast-two-primaries", "a node is promoted while the other one says that it is primary",
		replace(hast, "if peer != nil && peer.Role == Primary {\n\t\treturn hooks.TryAgain", "if peer != nil && false {\n\t\treturn hooks.TryAgain"))
	add("mount-believed", "what mount says is not looked at",
		replace(filesystem, "\treturn v.mounted(device)\n", "\treturn nil\n"))
	add("repaired-unasked", "a damaged file system is repaired with yes to all though nobody said so",
		replace(filesystem, "if !v.c.Repair {", "if false {"))
	add("drbd-outdated-promoted", "a copy that is not up to date is promoted where DRBD would allow it",
		replace(drbd, "if err := now.unfit(); err != nil {\n\t\treturn hooks.Refuse", "if err := now.unfit(); err != nil && false {\n\t\treturn hooks.Refuse"))
}
