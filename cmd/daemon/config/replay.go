package config

import "github.com/carpd/carpd/carp"

// replay fills in which adverts count as recordings, and refuses what cannot be: the
// kernels' rules have no clock.
func (r *reader) replay(d *draft) {
	window, sealed, off := carp.ReplayWindow.String(), carp.ReplaySealed.String(), carp.ReplayOff.String()
	at, given := d.at["replay"]
	bsd := d.Compat == "bsd"
	switch {
	case !given && bsd:
		d.Replay = off
	case !given:
		d.Replay = window
	case bsd && d.Replay == sealed:
		r.fault(at, "remove compat, or use replay: off", "replay: sealed with compat: bsd: the kernels' counters carry no clock")
	case bsd && d.Replay == window:
		r.warn(at, "use off", "replay: window has no effect: compat: bsd accepts what the kernels accept")
		d.Replay = off
	}
	if d.Replay == sealed && d.Window == 0 {
		d.Window = carp.DefaultWindow
	}
}

// sealedNodes refuses what cannot be sealed for want of a node id.
func (r *reader) sealedNodes(f *File, drafts []*draft) {
	for _, d := range drafts {
		if at, given := d.at["replay"]; given && d.Replay == carp.ReplaySealed.String() && f.NodeID == 0 {
			r.fault(at, "give each node of the group a node_id of its own, 1 to 255, at the top of its file", "replay: sealed needs node_id")
		}
	}
}
