package bench

import (
	"math"
	"slices"
	"time"
)

// Spread says how values lie. The zero value is that of no values. Values are in
// milliseconds wherever this package has a Spread.
type Spread struct {
	Count  int     `json:"count"`
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	P99    float64 `json:"p99"` // the largest, of fewer than 100 values
	Max    float64 `json:"max"`
}

// spread sorts the values.
func spread(values []time.Duration) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	slices.Sort(values)
	return Spread{
		Count: len(values),
		Min:   ms(values[0]), Median: ms(rank(values, 0.5)), P99: ms(rank(values, 0.99)), Max: ms(values[len(values)-1]),
	}
}

// rank returns the smallest value that a share of all does not exceed.
func rank(sorted []time.Duration, share float64) time.Duration {
	i := int(math.Ceil(share*float64(len(sorted)))) - 1
	return sorted[max(i, 0)]
}

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }
