// Package sqlite is the resource kind sqlite: an application with an SQLite database, of
// which the node that takes the role over has the newest verified snapshot. What it does
// is that of package hooks/database; this package adds the settings, and asks the
// application by a command or a connection whether it serves.
package sqlite
