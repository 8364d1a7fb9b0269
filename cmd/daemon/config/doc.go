// Package config turns the configuration file of carpd into values.
//
// Reading a file finds every fault at once, each with file, line, column, the
// line it is in and, where one can be guessed, what was meant. A File is only
// given out when there is no fault: nothing is half applied. Only a fault of
// YAML itself hides those behind it, because nobody can say what follows.
//
// The file is the strict part of YAML that people write by hand: mappings,
// lists and plain or quoted values. Anchors, aliases, tags and merge keys are
// refused, keys given twice too, and unknown keys are errors. A key that a
// later version will know is refused as such.
//
// Load reads a file from disk, together with the passphrase files that it
// names; Parse reads bytes. Both may be called by several goroutines at a time,
// keep nothing between calls, and change nothing on disk or in the kernel. A
// File is plain data: whoever changes it sees to it that nobody else reads it.
//
// Limits: a file has at most MaxFile bytes and MaxInstances instances (255 on
// one interface, as many as there are vhids), an instance at most MaxAddresses
// addresses and MaxPeers peers; at most MaxProblems faults and as many warnings
// are listed, the rest is counted.
package config
