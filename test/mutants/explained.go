package main

// explained lists the mutants that no test notices, each with the reason why that
// is right: it changes nothing that can be seen, or nothing that is promised. One
// that is noticed after all, or that there is no more, makes the run fail.
var explained = map[string]string{}
