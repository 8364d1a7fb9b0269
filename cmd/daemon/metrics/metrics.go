package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// Limits of an answer.
const (
	maxScrapes = 4 // at once; more are told to come later
	scrapeTime = 5 * time.Second
)

// Handler answers /metrics, and every other path with 404. status is called once for each
// answer, by several at the same time.
func Handler(status func() api.Status) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(NewCollector(status), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: scrapeTime}))
	return mux
}

// NewCollector returns the metrics of carpd's own, without those of the process.
func NewCollector(status func() api.Status) prometheus.Collector {
	c := &collector{status, map[string]described{}}
	for _, f := range families() {
		c.all[f.name] = described{f, prometheus.NewDesc(f.name, f.help, f.labels, nil)}
	}
	return c
}

// collector turns a status into metrics. It is not changed once it is made.
type collector struct {
	status func() api.Status
	all    map[string]described
}

type described struct {
	family
	desc *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.all {
		ch <- d.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := &sample{c, ch}
	s.node(c.status())
}

// sample is one scrape.
type sample struct {
	*collector
	ch chan<- prometheus.Metric
}

// put gives one value. The labels are those of the family, in its order.
func (s *sample) put(name string, value float64, labels ...string) {
	d := s.all[name]
	m, err := prometheus.NewConstMetric(d.desc, d.kind, value, labels...)
	if err != nil { // a label that is no UTF-8: the scrape says so
		m = prometheus.NewInvalidMetric(d.desc, err)
	}
	s.ch <- m
}

// oneOf gives 1 to the value that is, and 0 to the others. The value is the last label.
func (s *sample) oneOf(name string, values []string, is string, labels ...string) {
	for _, v := range values {
		s.put(name, truth(v == is), append(append([]string{}, labels...), v)...)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// seconds is an instant as metrics write it.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
