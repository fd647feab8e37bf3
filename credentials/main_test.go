package credentials

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain makes crypto/x509 trust the certificate of httptest's servers, before the
// first verification: credentials-go connects to STS only with https.
func TestMain(m *testing.M) {
	server := httptest.NewTLSServer(nil)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	server.Close()
	dir, err := os.MkdirTemp("", "credentials")
	if err != nil {
		panic(err)
	}
	trusted := filepath.Join(dir, "trusted.pem")
	if err := os.WriteFile(trusted, cert, 0o600); err != nil {
		panic(err)
	}
	os.Setenv("SSL_CERT_FILE", trusted)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// nowhere is an environment whose only source is the metadata service.
func nowhere(t *testing.T) (home string) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "ALIBABA_CLOUD_") || strings.HasSuffix(strings.ToLower(name), "_proxy") {
			t.Setenv(name, "")
		}
	}
	home = t.TempDir()
	t.Setenv("HOME", home)
	return home
}

// cloud is a metadata service and an STS that number the keys they issue.
type cloud struct {
	*httptest.Server
	mu     sync.Mutex
	given  map[string]string // security token by key id
	asked  []string          // method and path, or STS action
	forms  []string          // of requests to STS
	valid  time.Duration     // of the issued keys
	answer func(w http.ResponseWriter, r *http.Request) bool
}

func newCloud(t *testing.T, start func(http.Handler) *httptest.Server) *cloud {
	t.Helper()
	c := &cloud{given: make(map[string]string), valid: time.Hour}
	c.Server = start(c)
	c.Config.SetKeepAlivesEnabled(false) // credentials-go creates a connection pool for each request
	t.Cleanup(c.Close)
	return c
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	c.mu.Lock()
	defer c.mu.Unlock()
	action := r.Method + " " + r.URL.Path
	if a := r.Form.Get("Action"); a != "" {
		action = a
		c.forms = append(c.forms, r.PostForm.Encode())
	}
	c.asked = append(c.asked, action)
	if c.answer != nil && c.answer(w, r) {
		return
	}
	n := len(c.given) + 1
	keys := map[string]any{
		"AccessKeyId": fmt.Sprintf("STS.%d", n), "AccessKeySecret": fmt.Sprintf("secret of %d", n), "SecurityToken": fmt.Sprintf("token of %d", n),
		"Expiration": time.Now().Add(c.valid).UTC().Format("2006-01-02T15:04:05Z"),
	}
	switch action {
	case "PUT /latest/api/token":
		w.Write([]byte("metadata-token"))
		return
	case "GET /latest/meta-data/ram/security-credentials/":
		w.Write([]byte("worker-role"))
		return
	case "GET /latest/meta-data/ram/security-credentials/worker-role":
		keys["Code"] = "Success"
		json.NewEncoder(w).Encode(keys)
	case "AssumeRoleWithOIDC":
		json.NewEncoder(w).Encode(map[string]any{"Credentials": keys})
	default:
		http.Error(w, "no such thing: "+action, http.StatusNotFound)
		return
	}
	c.given[keys["AccessKeyId"].(string)] = keys["SecurityToken"].(string)
}

func (c *cloud) questions() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.asked...)
}
