package emulator_test

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// TestNodeSDK tests the table API with the official Node.js SDK. It needs node
// and, once, "npm ci" in testdata/node; without them it is skipped.
func TestNodeSDK(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	dir := filepath.Join("testdata", "node")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "tablestore")); err != nil {
		t.Skipf("the SDK is not installed: run npm ci in %s", dir)
	}
	e := start(t, keys)
	newSDK(t, e, withTransactions, func(r *tablestore.CreateTableRequest) { r.TableMeta.TableName = "ledger" })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "tables.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"OTS_ENDPOINT="+e.Endpoint(), "OTS_INSTANCE="+keys.Instance,
		"OTS_ACCESS_KEY_ID="+keys.AccessKeyID, "OTS_ACCESS_KEY_SECRET="+keys.AccessKeySecret)
	out, runErr := cmd.CombinedOutput()
	steps, planned := 0, "none"
	lines := bufio.NewScanner(bytes.NewReader(out))
	result := regexp.MustCompile(`^(ok|not ok) \d+ - (.*)$`)
	plan := regexp.MustCompile(`^1\.\.(\d+)$`)
	for lines.Scan() {
		if m := plan.FindStringSubmatch(lines.Text()); m != nil {
			planned = m[1]
		}
		m := result.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		steps++
		t.Run(m[2], func(t *testing.T) {
			if m[1] != "ok" {
				t.Fail()
			}
		})
	}
	if runErr != nil || t.Failed() || steps == 0 {
		t.Errorf("%d of %s steps ran, %v:\n%s", steps, planned, runErr, out)
	}
}
