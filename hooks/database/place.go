package database

import "github.com/carpd/carpd/replicator/install"

// Place returns where snapshots are put, with the owner, mode and local rows of the
// configuration. It is used while nothing else of the Database is.
func (d *Database) Place() *install.Place { return d.place }
