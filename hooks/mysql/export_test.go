package mysql

import (
	"context"
	"net"
)

// OpenFrom is New with connections that are made by dial.
func OpenFrom(c Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*DB, error) {
	return open(c, dial)
}
