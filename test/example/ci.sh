#!/bin/sh
# What CI runs, with carpd and carplab in the PATH. Reports and the packets of what
# failed are in out/ afterwards.
set -eu
cd "$(dirname "$0")"
mkdir -p out

# Milliseconds, the same on every machine: the scenarios in the simulator, then
# random worlds.
carplab run --junit out/simulated.xml scenarios
carplab soak --seeds 20

# The same files with the real daemon in network namespaces. 77: not allowed here.
code=0
carplab run --kernel --junit out/kernel.xml --json out/kernel.json --pcap out scenarios || code=$?
case $code in
0) ;;
77) echo "no network namespaces here: only simulated" ;;
*)
	echo "see out/kernel.xml and out/*.pcapng" >&2
	exit "$code"
	;;
esac

# Our own tests. A failed one leaves its packets in out/ too.
CARPD_PCAP=$PWD/out go test ./...
