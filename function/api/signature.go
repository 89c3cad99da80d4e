package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Signatures are version 4, as in "Create a signed AWS API request"
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
// The SDK's own signer cannot verify: it chooses what it signs.

const (
	algorithm = "AWS4-HMAC-SHA256"
	dateForm  = "20060102T150405Z"
	// hashHeader is the SHA-256 of the body, in hex. Not every client sends it.
	hashHeader = "X-Amz-Content-Sha256"
	// skew is how far a caller's clock may be off, as on AWS.
	skew = 15 * time.Minute
)

func forbidden(kind, message string) error { return &problem{http.StatusForbidden, kind, message} }

// authorise finds out whether a caller has the token: it sends it, or has signed with it. Whose access key id it is does not
// matter. A signature that is returned is right as far as the head of the request tells: the body has to fit it too.
func (a *API) authorise(r *http.Request) (*signature, error) {
	header := r.Header.Get("Authorization")
	scheme, rest, _ := strings.Cut(header, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		if subtle.ConstantTimeCompare([]byte(strings.TrimSpace(rest)), []byte(a.Token)) == 1 {
			return nil, nil
		}
		return nil, forbidden("UnrecognizedClientException", "The node does not know this token.")
	case scheme != algorithm:
		return nil, forbidden("MissingAuthenticationTokenException",
			"Sign the request with the node's token as secret access key, or send it as a bearer token.")
	}
	s, err := parseSignature(rest)
	if err != nil {
		return nil, forbidden("IncompleteSignatureException", err.Error())
	}
	if err := s.current(r, time.Now()); err != nil {
		return nil, err
	}
	if claimed := r.Header.Get(hashHeader); claimed != "" {
		err = s.verify(r, claimed, a.Token)
	}
	return &s, err
}

// signature is what an Authorization header says.
type signature struct {
	scope   string // date/region/service/aws4_request
	date    string
	headers []string // in lower case, in order
	value   []byte
}

func parseSignature(text string) (signature, error) {
	var s signature
	parts := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		parts[name] = value
	}
	_, scope, ok := strings.Cut(parts["Credential"], "/")
	fields := strings.Split(scope, "/")
	if !ok || len(fields) != 4 || fields[3] != "aws4_request" || len(scope) > 200 {
		return s, fmt.Errorf("the credential is not KEY/DATE/REGION/SERVICE/aws4_request")
	}
	s.scope, s.date = scope, fields[0]
	s.headers = strings.Split(parts["SignedHeaders"], ";")
	if !slices.IsSorted(s.headers) || !slices.Contains(s.headers, "host") || len(s.headers) > 100 {
		return s, fmt.Errorf("the signed headers are not a sorted list with host")
	}
	value, err := hex.DecodeString(parts["Signature"])
	if err != nil || len(value) != sha256.Size {
		return s, fmt.Errorf("the signature is not that of %s", algorithm)
	}
	s.value = value
	return s, nil
}

// current checks that the signature is one of these minutes.
func (s signature) current(r *http.Request, now time.Time) error {
	stamp := r.Header.Get("X-Amz-Date")
	signed, err := time.Parse(dateForm, stamp)
	if err != nil || !strings.HasPrefix(stamp, s.date+"T") || !slices.Contains(s.headers, "x-amz-date") {
		return forbidden("IncompleteSignatureException", "X-Amz-Date is missing, not signed, or not of the credential's day.")
	}
	if now.Sub(signed).Abs() > skew {
		return forbidden("InvalidSignatureException", fmt.Sprintf("Signature expired: %s is not within %s of now.", stamp, skew))
	}
	return nil
}

// covers checks that the signature is one over the body. What it claims of it authorise has verified.
func (s signature) covers(r *http.Request, body []byte, token string) error {
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	switch r.Header.Get(hashHeader) {
	case "":
		return s.verify(r, hash, token)
	case hash:
		return nil
	}
	return forbidden("InvalidSignatureException", hashHeader+" is not that of the body.")
}

// verify makes the signature anew, with the token for a secret key, over the same parts of a request with a body of that hash.
func (s signature) verify(r *http.Request, hash, token string) error {
	canonical := sha256.Sum256([]byte(s.canonical(r, hash)))
	toSign := algorithm + "\n" + r.Header.Get("X-Amz-Date") + "\n" + s.scope + "\n" + hex.EncodeToString(canonical[:])
	key := []byte("AWS4" + token)
	for part := range strings.SplitSeq(s.scope, "/") {
		key = mac(key, part)
	}
	if !hmac.Equal(mac(key, toSign), s.value) {
		return forbidden("InvalidSignatureException", "The request signature does not match: is the node's token the secret access key?")
	}
	return nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// canonical is the request in the one form that both sides sign.
func (s signature) canonical(r *http.Request, hash string) string {
	var b strings.Builder
	path, query, _ := strings.Cut(r.RequestURI, "?")
	b.WriteString(r.Method + "\n" + encode(path, true) + "\n" + canonicalQuery(query) + "\n")
	for _, name := range s.headers {
		var values []string
		switch name {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{fmt.Sprint(r.ContentLength)}
		default:
			values = slices.Clone(r.Header[textproto.CanonicalMIMEHeaderKey(name)])
		}
		for i, value := range values {
			values[i] = strings.Join(strings.Fields(value), " ")
		}
		b.WriteString(name + ":" + strings.Join(values, ",") + "\n")
	}
	b.WriteString("\n" + strings.Join(s.headers, ";") + "\n" + hash)
	return b.String()
}

func canonicalQuery(query string) string {
	var pairs []string
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		pairs = append(pairs, encode(unescape(name), false)+"="+encode(unescape(value), false))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

func unescape(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}

// encode escapes everything but the unreserved characters of RFC 3986. A path, which has been escaped once for its way, is
// escaped once more for signing.
func encode(text string, slashes bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0, c == '/' && slashes:
			b.WriteByte(c)
		default:
			b.WriteString("%" + string(digits[c>>4]) + string(digits[c&15]))
		}
	}
	return b.String()
}
