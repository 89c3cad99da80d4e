package fleet

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lull-dev/lull"
)

// Metrics are what the fleets of a node count. Labels are bounded: apps are few, everything else is a fixed set. A nil
// *Metrics counts nothing.
type Metrics struct {
	places   *prometheus.CounterVec   // app, ending: how the wait for a place ended
	waits    *prometheus.HistogramVec // app
	verbs    *prometheus.CounterVec   // app, verb, result
	seconds  *prometheus.HistogramVec // app, verb
	moves    *prometheus.CounterVec   // app, state
	inState  *prometheus.CounterVec   // app, state
	failures *prometheus.CounterVec   // app, reason
	wakes    *prometheus.CounterVec   // app, from, reason

	mu     sync.Mutex
	fleets map[*Fleet]bool // guarded by mu; asked at every scrape
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18)}, labels) // 0.5 ms to 65 s
		registry.MustRegister(h)
		return h
	}
	m := &Metrics{
		places: counter("lull_places_total", "Connections by how they came to a place (warm, resume, wake, start, queue), or why they got none.",
			"app", "ending"),
		waits:    histogram("lull_wait_seconds", "Time from asking for a place to getting one.", "app"),
		verbs:    counter("lull_verbs_total", "Starts, pauses, resumes, hibernations and wakes, by result.", "app", "verb", "result"),
		seconds:  histogram("lull_verb_seconds", "Time until an environment was ready (start), running again (resume, wake) or on disk (hibernate).", "app", "verb"),
		moves:    counter("lull_moves_total", "Moves of environments on the ladder, by the state they came to.", "app", "state"),
		inState:  counter("lull_state_seconds_total", "Time environments have spent in each state.", "app", "state"),
		failures: counter("lull_failures_total", "Environments that ended without being asked to.", "app", "reason"),
		wakes:    counter("lull_wakes_total", "What brought environments up that were asleep, by the state they were in.", "app", "from", "reason"),
		fleets:   map[*Fleet]bool{},
	}
	registry.MustRegister(gauges{m})
	return m
}

func (m *Metrics) add(f *Fleet) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fleets[f] = true
}

// remove forgets a fleet that has been closed, and what was counted for its app.
func (m *Metrics) remove(f *Fleet) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.fleets, f)
	app := prometheus.Labels{"app": f.config.App}
	for _, v := range []interface{ DeletePartialMatch(prometheus.Labels) int }{m.places, m.waits, m.verbs, m.seconds, m.moves, m.inState, m.failures, m.wakes} {
		v.DeletePartialMatch(app)
	}
}

// waited notes how the wait for a place ended.
func (m *Metrics) waited(app, ending string, d time.Duration) {
	if m == nil {
		return
	}
	m.places.WithLabelValues(app, ending).Inc()
	m.waits.WithLabelValues(app).Observe(d.Seconds())
}

// moved notes a move on the ladder, and how long the environment was in the state it came from.
func (m *Metrics) moved(app string, from, to lull.State, after time.Duration) {
	if m == nil {
		return
	}
	m.moves.WithLabelValues(app, to.String()).Inc()
	m.inState.WithLabelValues(app, from.String()).Add(after.Seconds())
}

// did notes the result of a verb.
func (m *Metrics) did(app, verb string, err error) {
	if m == nil {
		return
	}
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.verbs.WithLabelValues(app, verb, result).Inc()
}

// took notes how long a verb took that went well.
func (m *Metrics) took(app, verb string, d time.Duration) {
	if m != nil {
		m.seconds.WithLabelValues(app, verb).Observe(d.Seconds())
	}
}

func (m *Metrics) failed(app, reason string) {
	if m != nil {
		m.failures.WithLabelValues(app, reason).Inc()
	}
}

// woke notes what brought an environment up.
func (m *Metrics) woke(app string, from lull.State, why string) {
	if m != nil {
		m.wakes.WithLabelValues(app, from.String(), reasonOf(why)).Inc()
	}
}

// reasonOf makes one of few words of what the wake log says.
func reasonOf(why string) string {
	for prefix, reason := range map[string]string{
		tickWhy: "tick", "websocket ": "stream", "upgraded ": "stream", "client ": "stream", "data ": "stream",
		"schedule ": "schedule", "scale.min ": "min",
	} {
		if strings.HasPrefix(why, prefix) {
			return reason
		}
	}
	return "request"
}

var (
	environmentsDesc = prometheus.NewDesc("lull_environments", "Environments by state.", []string{"app", "state"}, nil)
	queueDesc        = prometheus.NewDesc("lull_queue_connections", "Connections that wait for a place.", []string{"app"}, nil)
	exchangesDesc    = prometheus.NewDesc("lull_exchanges", "Exchanges in flight.", []string{"app"}, nil)
	streamsDesc      = prometheus.NewDesc("lull_streams", "Open streams; held ones are those of environments that are asleep.", []string{"app", "held"}, nil)
)

// gauges asks the fleets at every scrape, so that nothing can drift.
type gauges struct{ *Metrics }

// Describe is part of prometheus.Collector.
func (g gauges) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{environmentsDesc, queueDesc, exchangesDesc, streamsDesc} {
		out <- d
	}
}

// Collect is part of prometheus.Collector.
func (g gauges) Collect(out chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	totals := map[string]*census{} // two fleets of one app exist for a moment when an app is removed and deployed again
	for f := range g.fleets {
		c := totals[f.config.App]
		if c == nil {
			c = &census{states: map[lull.State]int{}}
			totals[f.config.App] = c
		}
		f.count(c)
	}
	for app, c := range totals {
		c.send(app, out)
	}
}

// census is what an app has at a moment.
type census struct {
	states                            map[lull.State]int
	queue, exchanges, streams, asleep int
}

func (f *Fleet) count(c *census) {
	rows, boxes := f.snapshot()
	for _, row := range rows[:len(boxes)] {
		c.states[row.State]++
		c.exchanges += row.Exchanges
		c.streams += row.Streams
		c.asleep += row.Held
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c.queue += f.books.queue.len()
}

func (c *census) send(app string, out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value int, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), append([]string{app}, labels...)...)
	}
	for _, s := range []lull.State{lull.Starting, lull.Running, lull.Paused, lull.Hibernated} {
		gauge(environmentsDesc, c.states[s], s.String())
	}
	gauge(queueDesc, c.queue)
	gauge(exchangesDesc, c.exchanges)
	gauge(streamsDesc, c.streams-c.asleep, "false")
	gauge(streamsDesc, c.asleep, "true")
}
