package socket

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
)

// handshake reports whether r asks for a WebSocket connection, as RFC 6455 has it. If not, the client has been answered.
// websocket.Accept checks the same, but not before the function has been asked.
func handshake(w http.ResponseWriter, r *http.Request) bool {
	keys := r.Header.Values("Sec-WebSocket-Key")
	switch {
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "a WebSocket connection is asked for with GET", http.StatusMethodNotAllowed)
	case !r.ProtoAtLeast(1, 1) || !hasToken(r.Header.Values("Connection"), "upgrade") || !hasToken(r.Header.Values("Upgrade"), "websocket"),
		strings.TrimSpace(r.Header.Get("Sec-WebSocket-Version")) != "13":
		h := w.Header()
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
		h.Set("Sec-WebSocket-Version", "13")
		http.Error(w, "ask for an upgrade to websocket, version 13", http.StatusUpgradeRequired)
	case len(keys) != 1 || !isKey(strings.TrimSpace(keys[0])):
		http.Error(w, "Sec-WebSocket-Key must be 16 bytes in base64", http.StatusBadRequest)
	default:
		return true
	}
	return false
}

func isKey(text string) bool {
	key, err := base64.StdEncoding.DecodeString(text)
	return err == nil && len(key) == 16
}

// hasToken reports whether a token is in the lists that a header's values are.
func hasToken(values []string, token string) bool {
	return slices.ContainsFunc(strings.Split(strings.Join(values, ","), ","), func(one string) bool {
		return strings.EqualFold(strings.TrimSpace(one), token)
	})
}
