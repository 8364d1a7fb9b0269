// Package metrics shows the status of carpd as metrics in the text format of
// Prometheus. It asks for the status at each scrape and keeps nothing: what it says is
// what carpctl status says at that moment.
//
// The label `name` is that of an instance; Prometheus itself has a label `instance`. A
// group that moves together is "group:NAME" there, the node as a whole "global".
package metrics
