package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const token = "a-token-of-the-node"

// signed is a request that AWS's own signer has signed, as a server gets it. More headers may be given, name and value.
func signed(t *testing.T, target string, body []byte, secret string, at time.Time, header ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:7777"+target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Amz-Invocation-Type", "  Request   Response ")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	err = v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: "anybody", SecretAccessKey: secret}, req,
		cmp.Or(req.Header.Get(hashHeader), hashOf(body)), "lambda", "eu-central-1", at)
	if err != nil {
		t.Fatal(err)
	}
	got := httptest.NewRequest(http.MethodPost, target, bytes.NewReader(body))
	got.Host, got.Header, got.RequestURI = "127.0.0.1:7777", req.Header, target
	return got
}

// permit decides about a request as the API does once it has the body.
func permit(r *http.Request, body []byte) error {
	a := &API{Config: Config{Token: token}}
	s, err := a.authorise(r)
	if err == nil && s != nil {
		err = s.covers(r, body, token)
	}
	return err
}

func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func TestSignature(t *testing.T) {
	body := []byte(`{"a": 1}`)
	const target = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Ashop/invocations?Qualifier=%241&b=&a=x%20y"
	for _, header := range [][]string{nil, {hashHeader, hashOf(body)}} {
		if err := permit(signed(t, target, body, token, time.Now(), header...), body); err != nil {
			t.Errorf("a good one with %q: %v", header, err)
		}
		if err := permit(signed(t, target, body, token, time.Now(), header...), []byte(`{"a": 2}`)); err == nil {
			t.Errorf("another body was taken with %q", header)
		}
	}
	for name, spoil := range map[string]func(*http.Request){
		"another secret": func(r *http.Request) { *r = *signed(t, target, body, "another", time.Now()) },
		"old":            func(r *http.Request) { *r = *signed(t, target, body, token, time.Now().Add(-time.Hour)) },
		"another path":   func(r *http.Request) { r.RequestURI = strings.Replace(target, "shop", "till", 1) },
		"another query":  func(r *http.Request) { r.RequestURI += "&c=1" },
		"another method": func(r *http.Request) { r.Method = http.MethodDelete },
		"another host":   func(r *http.Request) { r.Host = "elsewhere" },
		"another header": func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"another date":   func(r *http.Request) { r.Header.Set("X-Amz-Date", time.Now().Add(time.Minute).UTC().Format(dateForm)) },
		"no date":        func(r *http.Request) { r.Header.Del("X-Amz-Date") },
		"no signature":   func(r *http.Request) { r.Header.Del("Authorization") },
		"half of it":     func(r *http.Request) { h := r.Header.Get("Authorization"); r.Header.Set("Authorization", h[:len(h)/2]) },
		"a hash added":   func(r *http.Request) { r.Header.Set(hashHeader, "UNSIGNED-PAYLOAD") },
		"unsigned body": func(r *http.Request) {
			*r = *signed(t, target, body, token, time.Now(), hashHeader, "UNSIGNED-PAYLOAD")
		},
		"a wrong token": func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"x") },
	} {
		r := signed(t, target, body, token, time.Now())
		spoil(r)
		var p *problem
		if err := permit(r, body); !errors.As(err, &p) || p.status != http.StatusForbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := httptest.NewRequest(http.MethodPost, target, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	if err := permit(r, nil); err != nil {
		t.Errorf("the token itself: %v", err)
	}
}

func TestScope(t *testing.T) {
	a := &API{Config: Config{Token: token}}
	r := httptest.NewRequest(http.MethodPost, a.Scoped("shop")+"/@connections/abc%3D", nil)
	if c, err := a.admit(r); err != nil || c.only != "shop" || c.path != "/@connections/abc=" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, path := range []string{strings.Replace(a.Scoped("shop"), "shop", "till", 1) + "/@connections/x", "/f/shop//@connections/x", "/f/shop", "/f/"} {
		if _, err := a.admit(httptest.NewRequest(http.MethodPost, path, nil)); err == nil {
			t.Errorf("%s was admitted", path)
		}
	}
}

func FuzzParseSignature(f *testing.F) {
	f.Add("Credential=a/20200101/us-east-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature="+strings.Repeat("0", 64), "/a?b=c&%zz")
	f.Fuzz(func(t *testing.T, text, target string) {
		s, err := parseSignature(text)
		if err != nil {
			return
		}
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RequestURI = target
		if err := s.verify(r, hashOf(nil), token); err == nil {
			t.Error("a signature out of nowhere is right")
		}
	})
}
