package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"go.uber.org/goleak"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testsize"
	"github.com/watermill-ots/watermill-ots/internal/verify"
	"github.com/watermill-ots/watermill-ots/ots"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Keys that the emulator of these tests asks for, and that no report may show.
const (
	instance = "verify-instance"
	keyID    = "verify-key-id"
	secret   = "verify-secret"
)

// run runs checks against an emulator with these behaviours. It is an error if the run
// leaves anything.
func run(dir string, assume []string, only ...string) (_ *verify.Report, err error) {
	em, err := emulator.Start(emulator.Options{Instance: instance, AccessKeyID: keyID, AccessKeySecret: secret, Assume: assume})
	if err != nil {
		return nil, err
	}
	defer em.Close()
	k, err := verify.New(verify.Config{
		Endpoint: em.Endpoint(), Instance: instance, Credentials: credentials(), Dir: dir,
		ClientTimeout: 4 * time.Second, Patience: 15 * time.Second, Only: only, Split: em.Split,
	})
	if err != nil {
		return nil, err
	}
	defer k.Close()
	report, err := k.Run(context.Background())
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("%v is left", left))
	}
	if left, listing := tables(em); listing != nil || len(left) > 0 {
		err = errors.Join(err, listing, fmt.Errorf("the tables %v are left", left))
	}
	return report, err
}

// tables returns the names of the emulator's tables.
func tables(em *emulator.Emulator) ([]string, error) {
	resp, err := tablestore.NewClient(em.Endpoint(), instance, keyID, secret).ListTable()
	if err != nil {
		return nil, err
	}
	return resp.TableNames, nil
}

func credentials() ots.CredentialsProvider {
	return ots.CredentialsProviderFunc(func(context.Context) (ots.Credentials, error) {
		return ots.Credentials{AccessKeyID: keyID, AccessKeySecret: secret}, nil
	})
}

func TestEvery_check_holds_on_the_emulator(t *testing.T) {
	t.Parallel()
	report, err := run(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, res := range report.Results {
		if res.Outcome != verify.Holds {
			t.Errorf("%s", res.Line())
		}
	}
	if len(report.Results) != len(verify.CheckNames()) {
		t.Errorf("%d results of %d checks", len(report.Results), len(verify.CheckNames()))
	}
	calls, plan := report.CallCount(), verify.PlanOf()
	if calls > plan.Calls || report.Cost.WriteUnits > plan.WriteUnits || report.Cost.BytesSent>>20 > int64(plan.MiB) {
		t.Errorf("%d calls and %+v are more than the plan %+v", calls, report.Cost, plan)
	}
	var text, asJSON bytes.Buffer
	if err := report.WriteText(&text); err != nil {
		t.Error(err)
	}
	if err := report.WriteJSON(&asJSON); err != nil {
		t.Error(err)
	}
	for _, hidden := range []string{keyID, secret, instance} {
		if strings.Contains(text.String(), hidden) || strings.Contains(asJSON.String(), hidden) {
			t.Errorf("the report shows %q", hidden)
		}
	}
	t.Log("\n" + text.String())
}

// breaks are the laws that fail under the opposite of an assumption. Under all others the
// laws hold: this library does not depend on them for what it promises.
var breaks = map[string][]string{
	"A7": {"L1", "L2", "L3", "L4", "L5", "L7", "L8", "L9"}, // a second read that leaves out a record loses it
	"A8": {"L2"},
}

// Each behaviour that the emulator can play is caught by the check of its assumption, and no
// other check panics. None hangs: each has a limit.
func TestEach_flipped_assumption_is_caught(t *testing.T) {
	t.Parallel()
	type outcome struct {
		report *verify.Report
		err    error
	}
	outcomes := make([]outcome, len(verify.Assumptions))
	slots := make(chan struct{}, 8) // they mostly wait
	var all sync.WaitGroup
	for i, a := range verify.Assumptions {
		if a.Otherwise == "" {
			continue
		}
		dir := t.TempDir()
		slots <- struct{}{}
		all.Go(func() { // waited for below
			defer func() { <-slots }()
			var only []string
			if !testsize.Full() {
				only = []string{a.Check}
			}
			outcomes[i].report, outcomes[i].err = run(dir, []string{a.Otherwise}, only...)
		})
	}
	all.Wait()
	for i, a := range verify.Assumptions {
		if a.Otherwise == "" {
			continue
		}
		t.Run(a.ID+" "+a.Otherwise, func(t *testing.T) {
			o := outcomes[i]
			if o.err != nil {
				t.Fatal(o.err)
			}
			for _, res := range o.report.Results {
				if res.Check == a.Check && res.Outcome != verify.Refuted {
					t.Errorf("%s", res.Line())
				}
				if strings.HasPrefix(res.Proves, "L") && res.Outcome != verify.Holds && !slices.Contains(breaks[a.ID], res.Proves) {
					t.Errorf("a law depends on it: %s", res.Line())
				}
				if strings.Contains(res.Detail, "panicked") {
					t.Errorf("%s", res.Line())
				}
			}
		})
	}
}

func TestAssumptions_checks_and_behaviours_belong_together(t *testing.T) {
	var behaviours []string
	for _, a := range emulator.Assumptions() {
		behaviours = append(behaviours, a.Name)
	}
	checks := verify.CheckNames()
	seen := make(map[string]string)
	unused := slices.Clone(behaviours)
	for i, a := range verify.Assumptions {
		if want := fmt.Sprint("A", i+1); a.ID != want {
			t.Errorf("the id %s stands where %s should", a.ID, want)
		}
		switch {
		case a.Check == "" && (a.Unchecked == "" || a.Otherwise != ""):
			t.Errorf("%s has no check: it must say why, and the emulator need not play the opposite", a.ID)
		case a.Check != "" && (a.Unchecked != "" || !slices.Contains(checks, a.Check)):
			t.Errorf("%s: there is no check %q", a.ID, a.Check)
		case a.Check != "" && !slices.Contains(behaviours, a.Otherwise):
			t.Errorf("%s: the emulator has no behaviour %q", a.ID, a.Otherwise)
		}
		for _, once := range []string{a.Check, a.Otherwise} {
			if other := seen[once]; once != "" && other != "" {
				t.Errorf("%s and %s have both %q", other, a.ID, once)
			}
			seen[once] = a.ID
		}
		unused = slices.DeleteFunc(unused, func(b string) bool { return b == a.Otherwise })
		for name, text := range map[string]string{"Statement": a.Statement, "Why": a.Why, "IfWrong": a.IfWrong, "Copes": a.Copes} {
			if text == "" {
				t.Errorf("%s has no %s", a.ID, name)
			}
		}
	}
	if len(unused) > 0 {
		t.Errorf("no assumption is the opposite of the behaviours %v", unused)
	}
}

func TestWhat_a_run_left_can_be_removed_later(t *testing.T) {
	em, err := emulator.Start(emulator.Options{Instance: instance, AccessKeyID: keyID, AccessKeySecret: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer em.Close()
	dir := t.TempDir()
	cfg := verify.Config{
		Endpoint: em.Endpoint(), Instance: instance, Credentials: credentials(), Dir: dir,
		ClientTimeout: 2 * time.Second, Patience: time.Second, Only: []string{"stored-token-ends"},
	}
	k, err := verify.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	// The service refuses to delete: the table stays, and so does its entry in the list.
	if err := em.Inject(emulator.Fault{Operation: "DeleteTable", Code: "OTSServerUnavailable", Times: 1000}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "--clean") {
		t.Errorf("%v, want an error that names --clean", err)
	}
	em.ClearFaults()
	left, err := verify.OpenMade(dir)
	there, listing := tables(em)
	if err := errors.Join(err, listing); err != nil || len(left) != 1 || len(there) != 1 {
		t.Fatalf("%d lists, %v, tables %v; want one each", len(left), err, there)
	}
	if err := verify.Clean(context.Background(), cfg, left[0]); err != nil {
		t.Error(err)
	}
	there, listing = tables(em)
	if files, err := os.ReadDir(dir); errors.Join(err, listing) != nil || len(files) > 0 || len(there) > 0 {
		t.Errorf("files %v and tables %v are left (%v)", files, there, errors.Join(err, listing))
	}
}

func TestClean_deletes_nothing_that_ots_verify_did_not_make(t *testing.T) {
	dir := t.TempDir()
	list := `{"Endpoint": "http://127.0.0.1:1", "Instance": "i", "Tables": ["orders"]}`
	if err := os.WriteFile(filepath.Join(dir, "ots-verify-x.made.json"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := verify.OpenMade(dir); err == nil || !strings.Contains(err.Error(), "orders") {
		t.Errorf("%v, want an error that names the table", err)
	}
}
