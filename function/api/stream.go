package api

import (
	"encoding/json"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/lull-dev/lull/function"
	"github.com/lull-dev/lull/function/event"
)

// stream is InvokeWithResponseStream: the payload comes in pieces, as the function sends it.
func (a *API) stream(w http.ResponseWriter, r *http.Request, in invocation) error {
	if r.Header.Get("X-Amz-Invocation-Type") == "DryRun" {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	in.Stream = true
	answer, err := a.ask(r.Context(), in)
	if err != nil {
		return err
	}
	defer answer.Payload.Close()
	h := w.Header()
	h.Set("Content-Type", "application/vnd.amazon.eventstream")
	h.Set("X-Amz-Executed-Version", answer.Version)
	if answer.ContentType != "" {
		h.Set("X-Amz-Response-Stream-Content-Type", answer.ContentType)
	}
	out := &events{w: w, client: http.NewResponseController(w), encoder: eventstream.NewEncoder()}
	failed, err := out.pass(answer)
	if err == nil {
		err = out.complete(answer, failed)
	}
	if err != nil {
		a.Log.Debug("streamed answer of a function not sent to who invoked it", "app", in.App, "error", err)
	}
	return nil
}

// events writes AWS's event stream encoding.
type events struct {
	w       io.Writer
	client  *http.ResponseController
	encoder *eventstream.Encoder
}

// pass carries the payload over. An answer that is an error is not payload: it is returned.
func (e *events) pass(answer *function.Answer) (failed string, err error) {
	if answer.FunctionError != "" {
		object, err := io.ReadAll(io.LimitReader(answer.Payload, 256<<10))
		return string(object), err
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := answer.Payload.Read(buffer)
		if n > 0 {
			if err := e.write("PayloadChunk", "application/octet-stream", buffer[:n]); err != nil {
				return "", err
			}
		}
		if err == io.EOF {
			return "", nil
		}
		if err != nil {
			return string(failure(event.TruncatedResponse, err.Error())), nil
		}
	}
}

// complete says that it is over, and how.
func (e *events) complete(answer *function.Answer, failed string) error {
	said := map[string]string{}
	if kind, object := answer.StreamError(); kind != "" {
		failed = string(object)
	}
	if failed != "" {
		var shape struct {
			Type string `json:"errorType"`
		}
		_ = json.Unmarshal([]byte(failed), &shape) // without a type it is of none
		said["ErrorCode"], said["ErrorDetails"] = "Unhandled", failed
		if shape.Type != "" {
			said["ErrorCode"] = shape.Type
		}
	}
	if log := answer.StreamLog(); log != "" {
		said["LogResult"] = log
	} else if answer.Log != "" {
		said["LogResult"] = answer.Log
	}
	body, err := json.Marshal(said)
	if err != nil {
		return err
	}
	return e.write("InvokeComplete", "application/json", body)
}

func (e *events) write(kind, contentType string, payload []byte) error {
	err := e.encoder.Encode(e.w, eventstream.Message{Payload: payload, Headers: eventstream.Headers{
		{Name: ":message-type", Value: eventstream.StringValue("event")},
		{Name: ":event-type", Value: eventstream.StringValue(kind)},
		{Name: ":content-type", Value: eventstream.StringValue(contentType)},
	}})
	if err != nil {
		return err
	}
	return e.client.Flush()
}
