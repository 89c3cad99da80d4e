package rig

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"
)

// Client returns an HTTP client with connections of its own. Whatever host a URL names, it dials the node: not every
// resolver knows *.localhost.
func (n *Node) Client() *http.Client { return ClientOf(n.HTTP) }

// ClientOf returns an HTTP client that dials address, whatever host a URL names. It bounds nothing but the dialling: give
// requests a context.
func ClientOf(address string) *http.Client {
	dialer := &net.Dialer{Timeout: 20 * time.Second}
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 4096,
	}}
}

// URL returns the address of a path of an app.
func (n *Node) URL(app, path string) string {
	_, port, _ := net.SplitHostPort(n.HTTP)
	return "http://" + app + ".localhost:" + port + path
}

// Took returns what an answer's Server-Timing header says it took to give the exchange a place: warm, resume, start …;
// "" if it says nothing.
func Took(header http.Header) string {
	for _, metric := range strings.Split(strings.Join(header.Values("Server-Timing"), ","), ",") {
		name, rest, _ := strings.Cut(strings.TrimSpace(metric), ";")
		if name != "lull" {
			continue
		}
		for _, param := range strings.Split(rest, ";") {
			if value, ok := strings.CutPrefix(strings.TrimSpace(param), "desc="); ok {
				return strings.Trim(value, `"`)
			}
		}
	}
	return ""
}
