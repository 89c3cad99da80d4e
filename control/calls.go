package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/lull-dev/lull"
)

func (a *api) health(w *answer, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := io.WriteString(w, "ok\n")
	return err
}

func (a *api) serveMetrics(w *answer, r *http.Request) error {
	a.metrics.ServeHTTP(w, r)
	return nil
}

func (a *api) info(w *answer, r *http.Request) error {
	info, err := a.node.NodeInfo(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, info)
}

func (a *api) apps(w *answer, r *http.Request) error {
	apps, err := a.node.Apps(r.Context())
	return writeList(w, apps, err)
}

func (a *api) releases(w *answer, r *http.Request) error {
	releases, err := a.node.Releases(r.Context(), r.PathValue("app"))
	return writeList(w, releases, err)
}

func (a *api) environments(w *answer, r *http.Request) error {
	environments, err := a.node.Environments(r.Context(), r.URL.Query().Get("app"))
	return writeList(w, environments, err)
}

func (a *api) schedules(w *answer, r *http.Request) error {
	schedules, err := a.node.Schedules(r.Context(), r.URL.Query().Get("app"))
	return writeList(w, schedules, err)
}

func (a *api) events(w *answer, r *http.Request) error {
	events, err := a.node.Events(r.Context(), r.URL.Query().Get("app"))
	return writeList(w, events, err)
}

func (a *api) eventPayload(w *answer, r *http.Request) error {
	payload, err := a.node.EventPayload(r.Context(), r.PathValue("app"), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, payload)
}

func (a *api) retryEvent(w *answer, r *http.Request) error {
	return done(w, a.node.RetryEvent(r.Context(), r.PathValue("app"), r.PathValue("id")))
}

func (a *api) removeEvent(w *answer, r *http.Request) error {
	return done(w, a.node.RemoveEvent(r.Context(), r.PathValue("app"), r.PathValue("id")))
}

// done answers that there is nothing more to say.
func done(w *answer, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// writeList answers with a list, which is [] and not null when it is empty.
func writeList[T any](w *answer, list []T, err error) error {
	if err != nil {
		return err
	}
	if list == nil {
		list = []T{}
	}
	return writeJSON(w, http.StatusOK, list)
}

func (a *api) remove(w *answer, r *http.Request) error {
	return done(w, a.node.Remove(r.Context(), r.PathValue("app")))
}

// rollbackRequest is the body of a rollback.
type rollbackRequest struct {
	Release int `json:"release"` // 0: the one before the current one
}

func (a *api) rollback(w *answer, r *http.Request) error {
	var request rollbackRequest
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	if request.Release < 0 {
		return &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("%d is not the number of a release", request.Release)}
	}
	s := startStream(w)
	defer s.stop()
	deployed, err := a.node.Rollback(r.Context(), r.PathValue("app"), request.Release, s.event)
	if err != nil {
		return err
	}
	return s.send(line{Done: &deployed})
}

// readJSON reads a small body strictly: a misspelt field must not be passed over.
func readJSON(w *answer, r *http.Request, into any) error {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil && !decoder.More():
		return nil
	case errors.As(err, &tooLarge):
		return &lull.Error{Kind: lull.KindTooLarge, Message: fmt.Sprintf("the request is larger than %s", lull.Size(maxBody))}
	}
	return &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("the request is not the JSON it should be: %v", err), Err: err}
}

func (a *api) deploy(w *answer, r *http.Request) error {
	app := r.URL.Query().Get("app")
	if app != "" && !lull.ValidName(app) {
		return &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("%q is not a name for an app", app),
			Hint: "use up to 40 lower-case letters, digits and single hyphens, such as my-app"}
	}
	u, err := openUpload(w, r, a.maxUpload)
	if err != nil {
		return err
	}
	w.after = u.drain
	request := DeployRequest{App: app, Archive: u}
	if length := r.URL.Query().Get("manifest"); length != "" {
		if request.Manifest, err = readManifest(u, length); err != nil {
			return u.explain(err)
		}
	}
	s := startStream(w)
	defer s.stop()
	done, err := a.node.Deploy(r.Context(), request, func(event Event) {
		if event.Phase != PhaseUpload {
			u.finish()
		}
		s.event(event)
	})
	if err != nil {
		return u.explain(err)
	}
	return s.send(line{Done: &done})
}

func (a *api) logs(w *answer, r *http.Request) error {
	query, err := logQuery(r)
	if err != nil {
		return err
	}
	s := startStream(w)
	defer s.stop()
	return a.node.Logs(r.Context(), r.PathValue("app"), query, func(entry LogEntry) error {
		return s.send(logLine{Entry: &entry})
	})
}

func logQuery(r *http.Request) (query LogQuery, err error) {
	values := r.URL.Query()
	query.Environment = values.Get("environment")
	if last := values.Get("last"); last != "" {
		if query.Last, err = strconv.Atoi(last); err != nil {
			return query, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("last=%q is not a number", last)}
		}
	}
	if follow := values.Get("follow"); follow != "" {
		if query.Follow, err = strconv.ParseBool(follow); err != nil {
			return query, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("follow=%q is neither true nor false", follow)}
		}
	}
	return query, nil
}
