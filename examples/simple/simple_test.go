package main

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
	"github.com/watermill-ots/watermill-ots/examples/simple/localaws"
	"github.com/watermill-ots/watermill-ots/router"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

// checkComplete checks that everything that was written is in one of the sinks,
// and something in each.
func checkComplete(t *testing.T, p *exampletest.Program) {
	t.Helper()
	written, queue, bucket := p.Figure("changes written"), p.Figure("found in SQS"), p.Figure("found in S3")
	if written == 0 || queue == 0 || bucket == 0 || queue+bucket != written {
		t.Errorf("%d changes were written, %d are in SQS and %d in S3:\n%s", written, queue, bucket, p.Output())
	}
}

func TestSimple_delivers_each_change_to_its_sink_and_ends_by_itself(t *testing.T) {
	t.Parallel() // it mostly waits
	p := exampletest.Start(t, "", nil, "-duration", "1s")
	p.Wait()
	checkComplete(t, p)
	batches := regexp.MustCompile(`(?m)^\S+  sqs +(\d+) `).FindAllStringSubmatch(p.Output(), -1)
	if len(batches) == 0 {
		t.Errorf("no batch for SQS was printed:\n%s", p.Output())
	}
	for _, m := range batches {
		if n, err := strconv.Atoi(m[1]); err != nil || n > 20 {
			t.Errorf("a batch for SQS has %s messages, the file says 20", m[1])
		}
	}
}

func TestSimple_drains_at_an_interrupt(t *testing.T) {
	t.Parallel() // it mostly waits
	p := exampletest.Start(t, "  sqs ", nil, "-duration", "1m")
	p.Interrupt()
	p.Wait()
	p.Want("Interrupted")
	if handled, queue, bucket := p.Figure("handled"), p.Figure("found in SQS"), p.Figure("found in S3"); handled == 0 || queue+bucket != handled {
		t.Errorf("%d changes were handled, %d are in SQS and %d in S3:\n%s", handled, queue, bucket, p.Output())
	}
}

func TestSimple_uses_the_aws_of_the_usual_variables_and_cleans_up_there(t *testing.T) {
	t.Parallel() // it mostly waits
	aws, err := localaws.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer aws.Close()
	p := exampletest.Start(t, "", []string{
		"AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=secret", "AWS_REGION=eu-central-1", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ENDPOINT_URL_SQS=" + aws.SQSEndpoint(), "AWS_ENDPOINT_URL_S3=" + aws.S3Endpoint(),
	}, "-duration", "1s")
	p.Wait()
	checkComplete(t, p)
	p.Want("AWS in eu-central-1")
	if n := aws.Queues(); n != 0 {
		t.Errorf("%d queues are left", n)
	}
	if names, err := aws.Buckets(); err != nil || len(names) != 0 {
		t.Errorf("buckets are left: %v %v", names, err)
	}
}

func TestSimple_says_that_the_region_is_missing(t *testing.T) {
	t.Parallel() // it mostly waits
	p := exampletest.Start(t, "", []string{"AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=secret"})
	if status := p.WaitStatus(); status != 1 {
		t.Errorf("exit status %d", status)
	}
	p.Want("AWS_REGION")
	if n := strings.Count(strings.TrimSpace(p.Output()), "\n"); n > 0 {
		t.Errorf("the error has %d lines:\n%s", n+1, p.Output())
	}
}

func TestSimple_has_the_documented_configuration(t *testing.T) {
	for name, value := range map[string]string{"OTS_ENDPOINT": "http://127.0.0.1:1", "OTS_ID": "id", "OTS_SECRET": "secret"} {
		t.Setenv(name, value)
	}
	cfg, err := router.Load("pipelines.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tunnel := cfg.Tunnels["customer_example"]
	if tunnel.TableName != "pxy_test" || tunnel.TunnelName != "add2" || tunnel.WorkerSize != 2 || tunnel.Processors.Concurrency != 2 {
		t.Errorf("the tunnel is %+v", tunnel)
	}
	if b := tunnel.Batchers["sqs"]; b.Concurrency != 2 || b.BatchSize != 20 {
		t.Errorf("batcher sqs is %+v", b)
	}
	if b := tunnel.Batchers["s3"]; b.Concurrency != 1 {
		t.Errorf("batcher s3 is %+v", b)
	}
}
