// Package replicator keeps verified copies of SQLite databases, so that the node
// that takes a role over finds a configuration that is whole.
//
// This package holds what is decided: what a sound snapshot must hold (Rules), what
// is said of one (Verdict, Reason), which of two is newer (Version), and what is
// written beside each (Manifest); and what runs: Master on the node that holds the
// role, Standby on all others. What they work with is given to them. Package sqlite
// looks into databases, package dir keeps snapshots in a directory, package proxysql
// knows ProxySQL.
//
// A snapshot is judged in three ways, since each sees what the others cannot:
//
//   - by its bytes: header, page size x page count = size, sha256. Only these see a
//     changed byte in a value, or a last page that is cut off.
//   - by SQLite: integrity_check. It sees damaged pages and indexes that disagree
//     with their tables.
//   - by its content: required tables, rows, CREATE texts. A backup that is taken
//     between the DELETE and the INSERT of a program that saves is sound to SQLite
//     and holds half a configuration.
package replicator
