// Command carpd is carpd with a kind of ours.
package main

import (
	_ "example.org/acme/carp-slack"
	"github.com/carpd/carpd/cmd/daemon"
	_ "github.com/carpd/carpd/cmd/daemon/standard"
)

func main() { daemon.Main() }
