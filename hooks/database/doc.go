// Package database is what kinds share that put a verified snapshot in the place of an
// SQLite database and start the program that uses it. It is no kind by itself: what a
// sound database of a program holds, and when the program is ready, is its user's business.
//
// # Up
//
// The program is stopped, and nobody may have the database open. The database of this node
// stays if nothing is newer: if the last mastership of this node, with this very file, is
// later than that of the newest snapshot, or the newest snapshot was taken in it. Else the newest sound snapshot is
// put in its place (replicator/install). The program is started, and has to be ready; if it
// does not become so, the next older snapshot is tried. Nothing is installed while a
// database is in service here.
//
// # Down
//
// The program is stopped, by its command and then by force, and nobody has the database
// open; or it is left running, as configured.
//
// Both are plans of steps for hooks.Mark, and can be called in any state, also after a
// crash or cancel anywhere within.
package database
