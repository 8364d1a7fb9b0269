package config

import (
	"maps"
	"slices"
)

// keySet is what may stand in one kind of mapping. The tables below are
// constant: nothing writes to them.
type keySet struct {
	what    string            // for messages: "an instance"
	keys    []string          // of this version
	aliases map[string]string // other names for the same
	foreign map[string]string // words of other programs, for "did you mean"
	planned map[string]string // keys of a later version and what they are for
}

var fileKeys = keySet{
	what: "the file",
	keys: []string{"node", "node_id", "state_dir", "control", "listen", "guardian", "preempt", "groups", "instances", "hooks", "replication"},
	foreign: map[string]string{
		"hostname": "node", "router_id": "node", "socket": "control", "metrics": "listen", "prometheus": "listen", "vrrp_instance": "instances", "carp": "instances",
	},
	planned: map[string]string{
		"guard": "a third vote against split brain",
	},
}

var replicationKeys = keySet{
	what: "a replication",
	keys: []string{
		"name", "instance", "source", "store", "peers", "keep", "rows", "may_be_empty", "max_size", "bandwidth", "settle", "latest", "alarm_after", "sync",
	},
	foreign: map[string]string{
		"database": "source", "directory": "store", "dir": "store", "targets": "peers", "to": "peers", "retention": "keep", "prune": "keep",
		"allow_empty": "may_be_empty", "limit": "bandwidth", "debounce": "settle", "max_lag": "alarm_after", "max_age": "alarm_after", "cluster": "sync", "modules": "sync",
	},
}

var databaseKeys = keySet{
	what:    "a source",
	keys:    []string{"kind", "database", "admin"},
	foreign: map[string]string{"type": "kind", "file": "database", "path": "database", "db": "database"},
}

var adminKeys = keySet{
	what: "an admin interface",
	keys: []string{"address", "user", "password_file", "exchange"},
	foreign: map[string]string{
		"password": "password_file", "pass": "password_file", "host": "address", "port": "address", "username": "user", "login": "user",
	},
}

var shippingKeys = keySet{
	what: "a peer of replication",
	keys: []string{"name", "address", "user", "key_file", "known_hosts", "method", "path"},
	foreign: map[string]string{
		"host": "address", "port": "address", "username": "user", "key": "key_file", "identity_file": "key_file", "identity": "key_file",
		"known_hosts_file": "known_hosts", "host_key": "known_hosts", "transport": "method", "dir": "path", "directory": "path", "store": "path",
	},
}

var keepKeys = keySet{
	what:    "keep",
	keys:    []string{"count", "age", "least"},
	foreign: map[string]string{"number": "count", "max": "count", "days": "age", "min": "least"},
}

var syncKeys = keySet{
	what: "sync",
	keys: []string{"listen", "key_file", "nodes", "modules", "node_local", "interval", "diffs_before_sync", "fanout", "changes"},
	foreign: map[string]string{
		"key": "key_file", "peers": "nodes", "members": "nodes", "tables": "modules", "port": "listen", "address": "listen", "diffs": "diffs_before_sync",
		"check_interval": "interval", "exclude": "node_local", "policy": "changes",
	},
}

var syncNodeKeys = keySet{
	what:    "a node of sync",
	keys:    []string{"node_id", "address", "identity"},
	foreign: map[string]string{"id": "node_id", "host": "address", "key": "identity", "key_file": "identity", "host_key": "identity", "public_key": "identity"},
}

var instanceKeys = keySet{
	what: "an instance",
	keys: []string{
		"name", "protocol", "vhid", "interface", "source_mac", "passphrase", "passphrase_file",
		"advbase", "advskew", "priority", "interval", "checksum", "preempt", "preempt_delay", "preempt_grace", "startup_delay",
		"addresses", "addresses_excluded", "announce_refresh", "on_conflict", "peers", "paths", "track", "mac", "lease", "fence", "replay", "window", "compat", "families", "roll", "groups", "hooks",
		"on_contest", "release_budget",
	},
	aliases: map[string]string{"vrid": "vhid"},
	foreign: map[string]string{
		"pass": "passphrase", "password": "passphrase", "auth_pass": "passphrase", "passfile": "passphrase_file",
		"password_file": "passphrase_file", "carpdev": "interface", "dev": "interface", "device": "interface", "ifname": "interface",
		"carppeer": "peers", "peer": "peers", "unicast_peer": "peers", "virtual_ipaddress": "addresses", "vip": "addresses",
		"vips": "addresses", "ip": "addresses", "virtual_router_id": "vhid", "id": "vhid", "group": "groups",
		"upscript": "hooks", "downscript": "hooks", "notify": "hooks", "vrrp_startup_delay": "startup_delay",
		"advert_int": "interval", "advertisement_interval": "interval", "vrrpinterval": "interval", "vrrpprio": "priority",
		"version": "protocol", "vrrp_version": "protocol", "carpver": "protocol", "use_vmac": "mac", "nopreempt": "preempt",
		"v3_checksum_as_v2": "checksum", "garp_master_refresh": "announce_refresh", "virtual_ipaddress_excluded": "addresses_excluded",
	},
}

var peerKeys = keySet{
	what:    "a peer",
	keys:    []string{"address", "min_ttl", "max_ttl"},
	foreign: map[string]string{"addr": "address", "ip": "address", "ttl": "min_ttl"},
}

var pathKeys = keySet{
	what: "a path",
	keys: []string{"interface", "peers"},
	foreign: map[string]string{
		"dev": "interface", "device": "interface", "ifname": "interface", "peer": "peers", "address": "peers", "unicast_peer": "peers",
	},
}

var trackKeys = keySet{
	what: "a track",
	keys: []string{"gateway", "interval", "deadline", "fall", "rise"},
	foreign: map[string]string{
		"address": "gateway", "ip": "gateway", "host": "gateway", "router": "gateway", "timeout": "deadline", "every": "interval",
	},
	planned: map[string]string{"weight": "by how much a service that does not answer demotes"},
}

var groupKeys = keySet{
	what:    "a group",
	keys:    []string{"together", "hooks"},
	foreign: map[string]string{"sync": "together", "atomic": "together", "resources": "hooks"},
}

var hookKeys = keySet{
	what: "a hook",
	keys: []string{
		"kind", "name", "on", "timeout", "if_it_fails", "with",
		"release_timeout", "if_it_stays", "interval", "look_timeout", "rise", "fall", "weight", "grace",
	},
	foreign: map[string]string{
		"type": "kind", "phase": "on", "when": "on", "on_failure": "if_it_fails", "onfailure": "if_it_fails",
		"config": "with", "options": "with", "script": "with", "command": "with",
		"every": "interval", "demote_timeout": "release_timeout", "stop_timeout": "release_timeout",
	},
}

// Keys lists every key that a file may hold in this version, sorted and each
// once, whichever mapping it belongs to; aliases are among them. What stands
// inside `with` belongs to the kind of the hook and is not listed.
func Keys() []string {
	all := make(map[string]bool)
	for _, set := range keySets() {
		for _, k := range set.keys {
			all[k] = true
		}
		for k := range set.aliases {
			all[k] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Planned lists the keys that are refused because a later version will know
// them, sorted. One that another mapping knows already is not among them.
func Planned() []string {
	all := make(map[string]bool)
	for _, set := range keySets() {
		for k := range set.planned {
			all[k] = true
		}
	}
	for _, k := range Keys() {
		delete(all, k)
	}
	return slices.Sorted(maps.Keys(all))
}

func keySets() []keySet {
	return []keySet{fileKeys, instanceKeys, peerKeys, pathKeys, trackKeys, groupKeys, hookKeys, replicationKeys, databaseKeys, adminKeys, shippingKeys, keepKeys, syncKeys, syncNodeKeys}
}

// has reports whether the set knows the key, by whatever name.
func (set keySet) has(key string) bool {
	return slices.Contains(set.keys, key) || set.aliases[key] != ""
}

// guess returns the key that was probably meant, or the empty string.
func (set keySet) guess(key string) string {
	if f := set.foreign[key]; f != "" {
		return f
	}
	known := slices.Concat(set.keys, slices.Sorted(maps.Keys(set.aliases)))
	return nearest(key, known)
}
