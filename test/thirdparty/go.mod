// A kind of hook of somebody else's, in a module of its own, as docs/hooks.md shows it.
// Anybody but this checkout has a version here and no replace; go mod tidy adds the rest.
module example.org/acme/carp-slack

go 1.26.0

require github.com/carpd/carpd v0.0.0

replace github.com/carpd/carpd => ../..
