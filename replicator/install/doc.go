// Package install puts a snapshot of a replicator.Store in the place of a database whose
// program is stopped.
//
//	DATABASE                 what the program opens
//	DATABASE.carpd/new       the copy that is being made ready
//	DATABASE.carpd/local*    a copy of the present database, to take rows of this node from
//	DATABASE.carpd/intent    what is being put in place: written before anything is moved
//	DATABASE.carpd/state     what was put in place last, and whether it is in service
//	DATABASE.carpd/old-N*    databases that were here before, with their journals
//
// The order of an installation: the copy is made and verified by the digest of its
// manifest and by the rules; it is given the rows that belong to this node, and verified
// again; owner and mode are set; it is synced. The intent is written. The present database
// and its -journal, -wal and -shm are linked to old-N; the journals go away, since SQLite
// would apply them to whatever lies there; the copy is renamed over the database; the
// directory is synced. At every moment there is a database under its name: a program that
// finds none starts with built-in defaults.
//
// A crash anywhere is repaired by the next call: what was begun is finished if the copy is
// whole, and taken back if it is not.
package install
