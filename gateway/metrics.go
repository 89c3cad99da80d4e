package gateway

import (
	"strconv"
	"time"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/fleet"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are resolved to single counters once: an exchange looks up no label.
type metrics struct {
	connections prometheus.Gauge
	turnedAway  prometheus.Counter
	links       prometheus.Gauge
	retries     prometheus.Counter
	cut         prometheus.Counter
	refused     prometheus.Counter
	bytesIn     prometheus.Counter
	bytesOut    prometheus.Counter
	answers     [6]prometheus.Counter // by the hundreds of the status
	failures    map[lull.Kind]prometheus.Counter
	waits       map[fleet.How]prometheus.Observer
	streams     map[streamKind]prometheus.Gauge
	held        prometheus.Gauge
	pongs       prometheus.Counter
	beats       map[string]prometheus.Counter // by name of the dialect
	dead        prometheus.Counter
}

type streamKind string

const (
	streamWebSocket streamKind = "websocket"
	streamUpgrade   streamKind = "upgrade"
	streamAnswer    streamKind = "answer"
)

// newMetrics registers the gateway's metrics; with a nil registerer they are kept to themselves.
func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	named := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "lull", Subsystem: "gateway", Name: name, Help: help}
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts(named(name, help)))
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts(named(name, help)))
		reg.MustRegister(g)
		return g
	}
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts(named("body_bytes_total",
		"Bytes of bodies and upgraded connections: in is from clients, out is to them.")), []string{"direction"})
	answers := prometheus.NewCounterVec(prometheus.CounterOpts(named("answers_total",
		"Answers of apps by class of status.")), []string{"class"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts(named("failures_total",
		"Exchanges that Lull answered with an error of its own, by kind.")), []string{"kind"})
	waits := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "lull", Subsystem: "gateway",
		Name: "wait_seconds", Help: "Time until an exchange had its place, by what it took.",
		Buckets: []float64{.0001, .001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 60}}, []string{"how"})
	streams := prometheus.NewGaugeVec(prometheus.GaugeOpts(named("streams", "Open streams by kind.")), []string{"kind"})
	beats := prometheus.NewCounterVec(prometheus.CounterOpts(named("heartbeats_total",
		"Application heartbeats sent to clients in the name of a sleeping app, by protocol.")), []string{"protocol"})
	reg.MustRegister(bytes, answers, failures, waits, streams, beats)

	m := &metrics{
		connections: gauge("connections", "Open client connections."),
		turnedAway:  counter("connections_turned_away_total", "Client connections over the limit."),
		links:       gauge("links", "Open connections to apps."),
		retries:     counter("retries_total", "Requests sent again because a kept connection turned out to be closed, or a function had not begun with them."),
		cut:         counter("cut_total", "Answers that were cut because the app went away in the middle."),
		refused:     counter("requests_refused_total", "Requests that were malformed or over a limit."),
		bytesIn:     bytes.WithLabelValues("in"),
		bytesOut:    bytes.WithLabelValues("out"),
		failures:    map[lull.Kind]prometheus.Counter{},
		waits:       map[fleet.How]prometheus.Observer{},
		streams:     map[streamKind]prometheus.Gauge{},
		held:        gauge("streams_held", "Open streams whose environment sleeps."),
		pongs:       counter("pings_answered_total", "WebSocket pings of clients answered in the name of a sleeping app."),
		beats:       map[string]prometheus.Counter{},
		dead:        counter("dead_clients_total", "Clients of sleeping apps that did not answer a ping and were closed."),
	}
	for _, d := range dialects {
		m.beats[d.name] = beats.WithLabelValues(d.name)
	}
	for class := 1; class < len(m.answers); class++ {
		m.answers[class] = answers.WithLabelValues(strconv.Itoa(class) + "xx")
	}
	m.answers[0] = answers.WithLabelValues("other")
	for _, kind := range []lull.Kind{lull.KindInvalid, lull.KindNoApp, lull.KindCrashed, lull.KindRefused, lull.KindQueueFull,
		lull.KindStarting, lull.KindDraining, lull.KindTimeout, lull.KindInternal} {
		m.failures[kind] = failures.WithLabelValues(string(kind))
	}
	for _, how := range []fleet.How{fleet.Warm, fleet.Resumed, fleet.Woken, fleet.Started, fleet.Queued} {
		m.waits[how] = waits.WithLabelValues(string(how))
	}
	for _, kind := range []streamKind{streamWebSocket, streamUpgrade, streamAnswer} {
		m.streams[kind] = streams.WithLabelValues(string(kind))
	}
	return m
}

func (m *metrics) waited(how fleet.How, d time.Duration) {
	if o, ok := m.waits[how]; ok {
		o.Observe(d.Seconds())
	}
}

func (m *metrics) answered(status int) {
	class := status / 100
	if class >= len(m.answers) {
		class = 0
	}
	m.answers[class].Inc()
}

func (m *metrics) failed(kind lull.Kind) {
	c, ok := m.failures[kind]
	if !ok {
		c = m.failures[lull.KindInternal]
	}
	c.Inc()
}
