package client_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// expressApp answers, throws, or never answers. The two packages that connect it to Lambda are the ones that most apps have.
const expressApp = `
const express = require("express");
const app = express();
app.get("/hello", (req, res) => res.json({ hello: req.query.name }));
app.get("/never", () => {});
app.get("/throw", () => { setTimeout(() => { throw new Error("thrown in express"); }, 5); });
`

func httpEvent(path string) string {
	return fmt.Sprintf(`{"version":"2.0","routeKey":"$default","rawPath":%q,"rawQueryString":"name=lull","headers":{"host":"localhost"},
		"queryStringParameters":{"name":"lull"},"requestContext":{"http":{"method":"GET","path":%q,"protocol":"HTTP/1.1","sourceIp":"127.0.0.1"},"stage":"$default"},"isBase64Encoded":false}`, path, path)
}

// The real packages, from npm.
func TestExpress(t *testing.T) {
	for _, test := range []struct{ name, code string }{
		{"serverless-http", `exports.handler = require("serverless-http")(app);`},
		{"serverless-express", `exports.handler = require("@vendia/serverless-express")({ app });`},
	} {
		for _, concurrency := range []string{"1", "10"} {
			t.Run(test.name+" "+concurrency, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				if err := os.CopyFS(dir, os.DirFS("testdata/express")); err != nil {
					t.Fatal(err)
				}
				install := exec.Command("npm", "ci", "--no-audit", "--no-fund")
				install.Dir = dir
				if out, err := install.CombinedOutput(); err != nil {
					t.Fatalf("npm ci: %v\n%s", err, out)
				}
				l := start(t, []string{"node"}, dir, "index.handler", map[string]string{"index.js": expressApp + test.code}, "AWS_LAMBDA_MAX_CONCURRENCY="+concurrency)
				wantHello(t, l.invoke(httpEvent("/hello")))
				if concurrency == "1" {
					return
				}
				l.timeout = 5 * time.Second
				l.begin(httpEvent("/never"))
				thrown, hello := l.begin(httpEvent("/throw")), l.begin(httpEvent("/hello"))
				wantHello(t, l.wait(hello))
				wantError(t, l.wait(thrown), "Error", "thrown in express")
				wantHello(t, l.invoke(httpEvent("/hello")))
			})
		}
	}
}

func wantHello(t *testing.T, a answer) {
	t.Helper()
	var response struct {
		StatusCode int
		Body       string
	}
	if err := json.Unmarshal([]byte(a.Body), &response); err != nil || response.StatusCode != 200 || response.Body != `{"hello":"lull"}` {
		t.Errorf("answered %+v; want 200 and a greeting", a)
	}
}
