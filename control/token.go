package control

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lull-dev/lull"
)

// tokenFile is the file in a node's data directory that holds its token.
const tokenFile = "token"

// wellFormed reports whether text can be a token: long enough not to be guessed, and nothing that cannot stand in a
// header. (As a regular expression it would be compiled at the start of every sandbox, which is the same binary.)
func wellFormed(text string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return len(text) >= 32 && len(text) <= 256 && strings.Trim(text, letters) == ""
}

// LoadOrCreateToken returns the token of the node with this data directory; at the node's first start it makes one. Only
// the node's user can read the file.
func LoadOrCreateToken(data string) (string, error) {
	path := filepath.Join(data, tokenFile)
	token, err := readToken(path)
	if errors.Is(err, fs.ErrNotExist) {
		token = newToken()
		err = writeFile(path, []byte(token+"\n"))
	}
	if err != nil {
		return "", fmt.Errorf("open the node's token: %w", err)
	}
	return token, os.Chmod(path, 0o600)
}

// newToken makes a token of 256 random bits.
func newToken() string {
	random := make([]byte, 32)
	rand.Read(random) // never fails: without randomness the process ends
	return base64.RawURLEncoding.EncodeToString(random)
}

func readToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if !wellFormed(token) {
		return "", &lull.Error{Kind: lull.KindInvalid, Message: path + " does not hold a token",
			Hint: "remove it and restart the node to get a new one"}
	}
	return token, nil
}

// sameToken reports whether a token is one of those that are allowed. How long it takes says nothing about them.
func sameToken(token string, allowed []string) bool {
	given := sha256.Sum256([]byte(token))
	found := 0
	for _, one := range allowed {
		sum := sha256.Sum256([]byte(one))
		found |= subtle.ConstantTimeCompare(given[:], sum[:])
	}
	return found == 1 && token != ""
}

// writeFile replaces a file as a whole: a reader sees the old or the new one, and so does the next start after a power
// failure. Only its owner can read it.
func writeFile(path string, data []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // after the rename there is none
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
