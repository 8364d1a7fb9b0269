package main

// shipMutants ship to the wrong place, or what is not to be shipped.
func shipMutants(add adder) {
	const (
		config = "replicator/ssh/config.go"
		ship   = "replicator/sftp/ship.go"
		names  = "replicator/dir/names.go"
		owner  = "replicator/dir/owner.go"
		serve  = "replicator/receive/serve.go"
		encode = "replicator/receive/encode.go"
	)
	add("any-host-key", "a peer that is not in known_hosts is taken for the one that is",
		replace(config, "return explain(known(host, remote, offered), c.KnownHosts, address, offered)", "_ = explain(known(host, remote, offered), c.KnownHosts, address, offered)\n\t\t\treturn nil"))
	add("shared-key-used", "a private key that others can read is used",
		replace(config, "info.Mode().Perm()&0o077 != 0", "info.Mode().Perm()&0o007 != 0"))
	add("older-shipped", "an older snapshot is shipped over a newer one",
		replace(ship, "case m.Version.Compare(last.Version) <= 0:", "case m.Version.Compare(last.Version) <= 0 && false:"))
	add("upload-cleared", "data whose manifest is about to come from afar is cleared away",
		replace(names, "return !errors.Is(err, fs.ErrNotExist)", "return !errors.Is(err, fs.ErrNotExist) && false"))
	add("roots-own", "what root makes in a user's store is root's",
		replace(owner, "return f.Chown(int(owner.Uid), int(owner.Gid))", "_ = owner.Gid\n\treturn nil"))
	add("published-unjudged", "a snapshot that is not sound is published as it was received",
		replace(serve, "!v.Sound() {", "!v.Sound() && false {"))
	add("rest-unchecked", "what is left of an attempt that was cut off counts whatever it is",
		replace(encode, "same = (i+1)*s.m.PageSize == have.Have && hex.EncodeToString(head.Sum(nil)) == have.SHA256", "same = (i+1)*s.m.PageSize == have.Have && hex.EncodeToString(head.Sum(nil)) != \"\""))
}
