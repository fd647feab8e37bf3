package localaws_test

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/watermill-ots/watermill-ots/examples/simple/localaws"
)

// queue is the SDK's client with its own queue.
type queue struct {
	*testing.T
	client *sqs.Client
	url    *string
}

func newQueue(t *testing.T, visibility time.Duration) queue {
	t.Helper()
	servers, err := localaws.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := servers.Close(); err != nil {
			t.Error(err)
		}
	})
	client := sqs.New(sqs.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(servers.SQSEndpoint()),
		Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
	})
	out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q.fifo"), Attributes: map[string]string{
		"FifoQueue": "true", "VisibilityTimeout": strconv.Itoa(int(visibility / time.Second)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return queue{t, client, out.QueueUrl}
}

// send sends messages, each given as group and body; the body is also the
// deduplication id.
func (q queue) send(messages ...[2]string) error {
	var entries []types.SendMessageBatchRequestEntry
	for i, m := range messages {
		entries = append(entries, types.SendMessageBatchRequestEntry{
			Id: aws.String(strconv.Itoa(i)), MessageGroupId: aws.String(m[0]), MessageBody: aws.String(m[1]), MessageDeduplicationId: aws.String(m[1]),
		})
	}
	_, err := q.client.SendMessageBatch(q.Context(), &sqs.SendMessageBatchInput{QueueUrl: q.url, Entries: entries})
	return err
}

func (q queue) mustSend(messages ...[2]string) {
	q.Helper()
	if err := q.send(messages...); err != nil {
		q.Fatal(err)
	}
}

func (q queue) receive(limit, wait int32) (bodies []string, handles []*string) {
	q.Helper()
	out, err := q.client.ReceiveMessage(q.Context(), &sqs.ReceiveMessageInput{QueueUrl: q.url, MaxNumberOfMessages: limit, WaitTimeSeconds: wait})
	if err != nil {
		q.Fatal(err)
	}
	for _, m := range out.Messages {
		bodies, handles = append(bodies, *m.Body), append(handles, m.ReceiptHandle)
	}
	return bodies, handles
}

func (q queue) delete(handle *string) (failed int) {
	q.Helper()
	out, err := q.client.DeleteMessageBatch(q.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: q.url, Entries: []types.DeleteMessageBatchRequestEntry{
		{Id: aws.String("a"), ReceiptHandle: handle},
	}})
	if err != nil {
		q.Fatal(err)
	}
	return len(out.Failed)
}

func (q queue) want(got []string, want ...string) {
	q.Helper()
	if !slices.Equal(got, want) {
		q.Errorf("received %q, want %q", got, want)
	}
}

func TestSQS_accepts_a_deduplication_id_once(t *testing.T) {
	q := newQueue(t, time.Minute)
	q.mustSend([2]string{"g", "one"}, [2]string{"g", "two"})
	q.mustSend([2]string{"g", "two"}, [2]string{"g", "three"})
	bodies, _ := q.receive(10, 0)
	q.want(bodies, "one", "two", "three")
}

func TestSQS_locks_a_group_until_its_messages_are_deleted(t *testing.T) {
	q := newQueue(t, time.Minute)
	q.mustSend([2]string{"a", "a1"}, [2]string{"a", "a2"}, [2]string{"b", "b1"})
	bodies, handles := q.receive(1, 0)
	q.want(bodies, "a1")
	bodies, _ = q.receive(10, 0)
	q.want(bodies, "b1")
	if q.delete(handles[0]) != 0 {
		t.Error("the message was not deleted")
	}
	bodies, _ = q.receive(10, 0)
	q.want(bodies, "a2")
}

func TestSQS_redelivers_after_the_visibility_timeout(t *testing.T) {
	q := newQueue(t, time.Second)
	q.mustSend([2]string{"g", "one"})
	bodies, first := q.receive(1, 0)
	q.want(bodies, "one")
	bodies, second := q.receive(1, 5)
	q.want(bodies, "one")
	if q.delete(first[0]) != 1 {
		t.Error("the handle of the first receive is still valid")
	}
	if q.delete(second[0]) != 0 {
		t.Error("the handle of the second receive is not valid")
	}
}

func TestSQS_wakes_a_receive_that_waits(t *testing.T) {
	q := newQueue(t, time.Minute)
	sent := make(chan error, 1)
	go func() { sent <- q.send([2]string{"g", "one"}) }()
	bodies, _ := q.receive(1, 20)
	q.want(bodies, "one")
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestSQS_gives_a_repeated_request_the_same_response(t *testing.T) {
	q := newQueue(t, time.Minute)
	q.mustSend([2]string{"g", "one"}, [2]string{"g", "two"})
	receive := func(attempt string) (bodies []string, handle *string) {
		t.Helper()
		out, err := q.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: q.url, MaxNumberOfMessages: 1, ReceiveRequestAttemptId: aws.String(attempt)})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range out.Messages {
			bodies, handle = append(bodies, *m.Body), m.ReceiptHandle
		}
		return bodies, handle
	}
	bodies, _ := receive("first")
	q.want(bodies, "one")
	bodies, _ = receive("second")
	q.want(bodies)
	bodies, handle := receive("first") // the response was lost
	q.want(bodies, "one")
	for range 2 {
		if q.delete(handle) != 0 {
			t.Error("the message was not deleted")
		}
	}
	bodies, _ = receive("third")
	q.want(bodies, "two")
}

func TestSQS_refuses_with_the_errors_of_the_service(t *testing.T) {
	q := newQueue(t, time.Minute)
	eleven := make([][2]string, 11)
	for i := range eleven {
		eleven[i] = [2]string{"g", strconv.Itoa(i)}
	}
	if err := q.send(eleven...); !isA[*types.TooManyEntriesInBatchRequest](err) {
		t.Errorf("eleven entries: %v", err)
	}
	if err := q.send(); err == nil {
		t.Error("an empty batch was accepted")
	}
	if _, err := q.client.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("other.fifo")}); !isA[*types.QueueDoesNotExist](err) {
		t.Errorf("a missing queue: %v", err)
	}
	if _, err := q.client.ListQueues(t.Context(), &sqs.ListQueuesInput{}); !isA[*types.UnsupportedOperation](err) {
		t.Errorf("an unknown operation: %v", err)
	}
	if _, err := q.client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("standard")}); !isA[*types.UnsupportedOperation](err) {
		t.Errorf("a queue that is not FIFO: %v", err)
	}
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}
