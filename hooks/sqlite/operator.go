package sqlite

import "github.com/carpd/carpd/replicator/install"

// Database returns the path of the database.
func (r *resource) Database() string { return r.c.Database }

// Place returns where snapshots are put, for an operator who restores one while the
// application is stopped.
func (r *resource) Place() *install.Place { return r.d.Place() }
