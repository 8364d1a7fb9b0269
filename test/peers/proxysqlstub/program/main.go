// Command program is the stand-in for ProxySQL by itself, to be tried by hand: build it
// under the name proxysql and start it with -D and a data directory.
package main

import (
	"os"

	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

func main() { os.Exit(proxysqlstub.Main()) }
