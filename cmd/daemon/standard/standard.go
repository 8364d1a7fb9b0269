// Package standard links the hook kinds that carpd ships. Import it for its side
// effect, beside kinds of one's own.
package standard

import (
	_ "github.com/carpd/carpd/hooks/check"      // monitors interface, route, process, file, tcp, http
	_ "github.com/carpd/carpd/hooks/drbd"       // kind drbd
	_ "github.com/carpd/carpd/hooks/exec"       // kind exec, monitor script
	_ "github.com/carpd/carpd/hooks/fifo"       // kind fifo
	_ "github.com/carpd/carpd/hooks/galera"     // monitor galera
	_ "github.com/carpd/carpd/hooks/glb"        // kind glb, also as a resource and as a monitor
	_ "github.com/carpd/carpd/hooks/haproxy"    // kind haproxy, also as a resource and as a monitor
	_ "github.com/carpd/carpd/hooks/hast"       // kind hast
	_ "github.com/carpd/carpd/hooks/mysql"      // kind mysql
	_ "github.com/carpd/carpd/hooks/mysqlcheck" // monitor mysql-check
	_ "github.com/carpd/carpd/hooks/proxysql"   // kind proxysql
	_ "github.com/carpd/carpd/hooks/sqlite"     // kind sqlite
	_ "github.com/carpd/carpd/hooks/syslog"     // kind syslog
	_ "github.com/carpd/carpd/hooks/systemd"    // kind systemd
	_ "github.com/carpd/carpd/hooks/webhook"    // kind webhook
)
