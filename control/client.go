package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lull-dev/lull"
)

const (
	dialTimeout = 10 * time.Second
	// answerTimeout is from the end of a request to the beginning of its answer; every long answer begins early (beat).
	answerTimeout = 2 * time.Minute
	// maxAnswer bounds an answer that is not a stream.
	maxAnswer = 64 << 20
)

// Client is a Node that is reached over HTTP. Its fields must not be changed once it is used.
type Client struct {
	URL   string // of the API, such as http://127.0.0.1:7777
	Token string

	// Transport carries the requests; nil is a direct connection.
	Transport http.RoundTripper

	once sync.Once
	http *http.Client
}

var _ Node = (*Client)(nil)

// Apps is Node.Apps.
func (c *Client) Apps(ctx context.Context) (apps []AppInfo, err error) {
	return apps, c.fetch(ctx, "/v1/apps", nil, &apps)
}

// Releases is Node.Releases.
func (c *Client) Releases(ctx context.Context, app string) (releases []ReleaseInfo, err error) {
	return releases, c.fetch(ctx, appPath(app, "/releases"), nil, &releases)
}

// Environments is Node.Environments.
func (c *Client) Environments(ctx context.Context, app string) (environments []Environment, err error) {
	return environments, c.fetch(ctx, "/v1/environments", ofApp(app), &environments)
}

// Schedules is Node.Schedules.
func (c *Client) Schedules(ctx context.Context, app string) (schedules []Schedule, err error) {
	return schedules, c.fetch(ctx, "/v1/schedules", ofApp(app), &schedules)
}

// Events is Node.Events.
func (c *Client) Events(ctx context.Context, app string) (events []QueuedEvent, err error) {
	return events, c.fetch(ctx, "/v1/events", ofApp(app), &events)
}

// EventPayload is Node.EventPayload.
func (c *Client) EventPayload(ctx context.Context, app, id string) (payload EventPayload, err error) {
	return payload, c.fetch(ctx, eventPath(app, id), nil, &payload)
}

// RetryEvent is Node.RetryEvent.
func (c *Client) RetryEvent(ctx context.Context, app, id string) error {
	return c.order(ctx, http.MethodPost, eventPath(app, id)+"/retry")
}

// RemoveEvent is Node.RemoveEvent.
func (c *Client) RemoveEvent(ctx context.Context, app, id string) error {
	return c.order(ctx, http.MethodDelete, eventPath(app, id))
}

func eventPath(app, id string) string { return appPath(app, "/events/"+url.PathEscape(id)) }

// ofApp is the query for what belongs to an app, or to all for "".
func ofApp(app string) url.Values {
	query := url.Values{}
	if app != "" {
		query.Set("app", app)
	}
	return query
}

// NodeInfo is Node.NodeInfo.
func (c *Client) NodeInfo(ctx context.Context) (info NodeInfo, err error) {
	return info, c.fetch(ctx, "/v1/node", nil, &info)
}

// Remove is Node.Remove.
func (c *Client) Remove(ctx context.Context, app string) error {
	return c.order(ctx, http.MethodDelete, appPath(app, ""))
}

// Rollback is Node.Rollback.
func (c *Client) Rollback(ctx context.Context, app string, release int, emit func(Event)) (Deployed, error) {
	body, err := json.Marshal(rollbackRequest{Release: release})
	if err != nil {
		return Deployed{}, err
	}
	answer, err := c.call(ctx, call{method: http.MethodPost, path: appPath(app, "/rollback"), body: bytes.NewReader(body)})
	if err != nil {
		return Deployed{}, err
	}
	return c.follow(ctx, answer, emit)
}

// Logs is Node.Logs.
func (c *Client) Logs(ctx context.Context, app string, query LogQuery, fn func(LogEntry) error) error {
	values := url.Values{"last": {strconv.Itoa(query.Last)}, "follow": {strconv.FormatBool(query.Follow)}}
	if query.Environment != "" {
		values.Set("environment", query.Environment)
	}
	answer, err := c.call(ctx, call{path: appPath(app, "/logs"), query: values})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return c.broken(ctx, readLogs(answer.Body, fn))
}

func appPath(app, rest string) string { return "/v1/apps/" + url.PathEscape(app) + rest }

// call is a request. Its path is escaped.
type call struct {
	method string // "" is GET
	path   string
	query  url.Values
	body   io.Reader
	header http.Header
}

// fetch asks for something and decodes the answer.
func (c *Client) fetch(ctx context.Context, path string, query url.Values, into any) error {
	answer, err := c.call(ctx, call{path: path, query: query})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(into); err != nil {
		return c.broken(ctx, fmt.Errorf("%w: %w", errBroken, err))
	}
	return nil
}

// order sends a request whose answer says nothing.
func (c *Client) order(ctx context.Context, method, path string) error {
	answer, err := c.call(ctx, call{method: method, path: path})
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// call sends a request. It returns an answer that is a success, whose body the caller must close, or an error.
func (c *Client) call(ctx context.Context, what call) (*http.Response, error) {
	base, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	target := base + what.path
	if len(what.query) > 0 {
		target += "?" + what.query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, what.method, target, what.body)
	if err != nil {
		return nil, fmt.Errorf("call the node: %w", err)
	}
	if what.header != nil {
		request.Header = what.header
	}
	request.Header.Set("Accept", contentStream+", "+contentJSON)
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	answer, err := c.client().Do(request)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if err := c.refused(answer); err != nil {
		answer.Body.Close()
		return nil, err
	}
	return answer, nil
}

// parseURL returns the URL of an API without a slash at its end.
func parseURL(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("%q is not the URL of an API", text),
			Hint: "LULL_API must look like " + DefaultAPI}
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func (c *Client) client() *http.Client {
	c.once.Do(func() {
		transport := c.Transport
		if transport == nil {
			transport = &http.Transport{
				DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
				TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: answerTimeout, IdleConnTimeout: idleTimeout / 2,
				ExpectContinueTimeout: expectTimeout, DisableCompression: true, ForceAttemptHTTP2: true,
			}
		}
		// A redirect would take the token to another place.
		c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}
	})
	return c.http
}

// unreachable explains why a request got no answer.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return &lull.Error{Kind: lull.KindRefused, Message: fmt.Sprintf("cannot reach the node at %s: %v", c.URL, err),
		Hint: "is `lull serve` running? If the node is elsewhere, set LULL_API and LULL_TOKEN", Err: err}
}

// broken explains an answer that ended too soon. Errors with a kind are the node's own and stay as they are.
func (c *Client) broken(ctx context.Context, err error) error {
	var known *lull.Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case !errors.Is(err, errBroken):
		return err
	}
	return &lull.Error{Kind: lull.KindRefused, Message: fmt.Sprintf("the connection to the node at %s broke: %v", c.URL, err),
		Hint: "is `lull serve` still running?", Err: err}
}

// refused turns an answer that is not a success into its error.
func (c *Client) refused(answer *http.Response) error {
	kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	ours := kind == contentJSON || kind == contentStream
	switch {
	case answer.StatusCode == http.StatusNoContent, answer.StatusCode == http.StatusOK && ours:
		return nil
	case ours:
		var body failed
		if err := json.NewDecoder(io.LimitReader(answer.Body, maxLine)).Decode(&body); err == nil && body.Error != nil {
			return body.Error.err()
		}
	}
	return &lull.Error{Kind: lull.KindRefused,
		Message: fmt.Sprintf("%s answers %q, and not as a node does", c.URL, answer.Status),
		Hint:    "is LULL_API the URL of a node's API?"}
}
