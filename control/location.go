package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lull-dev/lull"
)

// DefaultAPI is where a node's API is unless it was told otherwise.
const DefaultAPI = "http://127.0.0.1:7777"

// location is the file that a node leaves for the commands of the same user. It holds no secret itself.
type location struct {
	API   string `json:"api"`   // URL
	Token string `json:"token"` // the file that the token is in
}

// locationFile is where it lies below the user's directory for configuration.
func locationFile(configDir string) string { return filepath.Join(configDir, "lull", "node.json") }

// Announce tells the commands of this user where a node is: configDir is the user's directory for configuration
// (os.UserConfigDir), api the URL of the node's API, data its data directory. The node announced last is the one they use.
func Announce(configDir, api, data string) error {
	token, err := filepath.Abs(filepath.Join(data, tokenFile))
	if err != nil {
		return fmt.Errorf("announce the node: %w", err)
	}
	content, err := json.Marshal(location{API: api, Token: token})
	if err != nil {
		return fmt.Errorf("announce the node: %w", err)
	}
	path := locationFile(configDir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("announce the node: %w", err)
	}
	if err := writeFile(path, append(content, '\n')); err != nil {
		return fmt.Errorf("announce the node: %w", err)
	}
	return nil
}

// Find returns the URL and token of the node to call. api and token, if not empty, are what the user has set and win; what
// is missing comes from the node that was announced in configDir. Its token is never given to another node.
func Find(configDir, api, token string) (url, secret string, err error) {
	if api != "" && token != "" {
		return api, token, nil
	}
	known, err := readLocation(configDir)
	switch {
	case err != nil && api == "" && token == "":
		return "", "", err
	case err != nil: // one of them is set: do with it what can be done
		return orDefault(api), token, nil
	case token != "":
		return known.API, token, nil
	case api != "" && strings.TrimRight(api, "/") != strings.TrimRight(known.API, "/"):
		return api, "", nil
	}
	secret, err = readToken(known.Token)
	if err != nil {
		return "", "", noToken(known, err)
	}
	return known.API, secret, nil
}

func orDefault(api string) string {
	if api == "" {
		return DefaultAPI
	}
	return api
}

func readLocation(configDir string) (location, error) {
	const hint = "start one with `lull serve`; if it is elsewhere, or runs as another user, set LULL_API and LULL_TOKEN"
	if configDir == "" {
		return location{}, &lull.Error{Kind: lull.KindNotFound, Message: "no node is known here", Hint: hint}
	}
	path := locationFile(configDir)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return location{}, &lull.Error{Kind: lull.KindNotFound, Message: "no node is known here", Hint: hint, Err: err}
	}
	if err != nil {
		return location{}, &lull.Error{Kind: lull.KindInternal, Message: fmt.Sprintf("find the node: %v", err), Hint: hint, Err: err}
	}
	known, err := parseLocation(data)
	if err != nil {
		return location{}, &lull.Error{Kind: lull.KindInvalid, Message: fmt.Sprintf("find the node: %s: %v", path, err), Hint: hint, Err: err}
	}
	return known, nil
}

func parseLocation(data []byte) (location, error) {
	var known location
	if err := json.Unmarshal(data, &known); err != nil {
		return location{}, err
	}
	if _, err := parseURL(known.API); err != nil {
		return location{}, err
	}
	if !filepath.IsAbs(known.Token) {
		return location{}, fmt.Errorf("%q is not the path of a token", known.Token)
	}
	return known, nil
}

func noToken(known location, err error) error {
	failure := &lull.Error{Kind: lull.KindUnauthorized, Err: err,
		Message: fmt.Sprintf("read the token of the node at %s: %v", known.API, err), Hint: lull.HintOf(err)}
	switch {
	case errors.Is(err, fs.ErrPermission):
		failure.Hint = "the node runs as another user: be that user, or set LULL_TOKEN"
	case errors.Is(err, fs.ErrNotExist):
		failure.Hint = "is `lull serve` running? Its data directory seems to be gone"
	}
	return failure
}
