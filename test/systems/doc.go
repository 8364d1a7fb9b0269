// Package systems holds whole systems as tests: carpd, its kinds of hooks, proxies and
// real databases on the hosts of a lab, with faults while clients work. One command each:
//
//	go test ./test/systems -run TestLabProxiedPair -v
//
// prints what the clients saw.
package systems
