// Command carpd lets two or more hosts share an address by CARP.
//
// To build it with hook kinds of one's own, copy this file and add blank imports.
package main

import (
	"github.com/carpd/carpd/cmd/daemon"
	_ "github.com/carpd/carpd/cmd/daemon/standard"
)

func main() { daemon.Main() }
