// Package sqlite looks into SQLite databases and copies them. It is the only home of
// github.com/mattn/go-sqlite3, and the only package that needs cgo.
//
// Verify says whether a file is a sound snapshot. It works on a file that lies still,
// without a daemon, and writes nothing: no journal, no shared memory, no lock.
package sqlite
