package sinks

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// sendLimit is the maximum number of messages in one request to SQS.
const sendLimit = 10

// Queue is an SQS FIFO queue. Its methods may be called concurrently.
type Queue struct {
	client *sqs.Client
	name   string
	url    *string
}

func createQueue(ctx context.Context, client *sqs.Client, name string) (*Queue, error) {
	out, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{
		QueueName:  aws.String(name),
		Attributes: map[string]string{string(types.QueueAttributeNameFifoQueue): "true"},
	})
	if err != nil {
		return nil, fmt.Errorf("creating queue %s: %w", name, err)
	}
	return &Queue{client: client, name: name, url: out.QueueUrl}, nil
}

// Send is a batch handler that sends the batch's messages to the queue.
//
// The group is the record's primary key, so changes of a row stay in order. The
// deduplication id is the message's UUID, so a redelivered record arrives once
// if the redelivery is within five minutes; a consumer that needs more compares
// the id, which comes with each message.
func (q *Queue) Send(ctx context.Context, b *batching.Batch) error {
	broken := make(map[string]error) // groups of failed messages: later messages of a group must not overtake
	for part := range slices.Chunk(b.Messages, sendLimit) {
		var entries []types.SendMessageBatchRequestEntry
		for i, msg := range part {
			group := msg.Metadata.Get(subscriber.MetadataKey)
			if err := broken[group]; err != nil {
				b.Fail(msg, fmt.Errorf("an earlier message of group %s was not sent: %w", group, err))
				continue
			}
			entries = append(entries, types.SendMessageBatchRequestEntry{
				Id:                     aws.String(strconv.Itoa(i)),
				MessageBody:            aws.String(string(msg.Payload)),
				MessageGroupId:         aws.String(group),
				MessageDeduplicationId: aws.String(msg.UUID),
			})
		}
		if len(entries) == 0 {
			continue
		}
		out, err := q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: q.url, Entries: entries})
		if err != nil {
			return fmt.Errorf("sending %d messages to queue %s: %w", len(entries), q.name, err)
		}
		for _, f := range out.Failed {
			msg, err := refused(part, f)
			if err != nil {
				return err
			}
			err = fmt.Errorf("queue %s refused the message: %s: %s", q.name, aws.ToString(f.Code), aws.ToString(f.Message))
			broken[msg.Metadata.Get(subscriber.MetadataKey)] = err
			b.Fail(msg, err)
		}
	}
	return nil
}

// refused returns the message that an entry of the response is about.
func refused(part []*message.Message, f types.BatchResultErrorEntry) (*message.Message, error) {
	i, err := strconv.Atoi(aws.ToString(f.Id))
	if err != nil || i < 0 || i >= len(part) {
		return nil, fmt.Errorf("the answer names a message %q that was not sent", aws.ToString(f.Id))
	}
	return part[i], nil
}

// Drain receives and deletes what is in the queue, in order within each group,
// until a receive of one second finds nothing.
func (q *Queue) Drain(ctx context.Context) ([]Arrival, error) {
	var arrived []Arrival
	for {
		out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: q.url, MaxNumberOfMessages: sendLimit, WaitTimeSeconds: 1,
			ReceiveRequestAttemptId:     aws.String(rand.Text()), // if a response is lost, the SDK's retry gets the same messages
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameMessageDeduplicationId},
		})
		if err != nil {
			return nil, fmt.Errorf("receiving from queue %s: %w", q.name, err)
		}
		if len(out.Messages) == 0 {
			return arrived, nil
		}
		var done []types.DeleteMessageBatchRequestEntry
		for i, m := range out.Messages {
			a, err := arrival("sqs", m.Attributes[string(types.MessageSystemAttributeNameMessageDeduplicationId)], []byte(aws.ToString(m.Body)))
			if err != nil {
				return nil, err
			}
			arrived = append(arrived, a)
			done = append(done, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle})
		}
		deleted, err := q.client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: q.url, Entries: done})
		if err != nil {
			return nil, fmt.Errorf("deleting %d messages of queue %s: %w", len(done), q.name, err)
		}
		for _, f := range deleted.Failed {
			return nil, fmt.Errorf("deleting a message of queue %s: %s: %s", q.name, aws.ToString(f.Code), aws.ToString(f.Message))
		}
	}
}

func (q *Queue) remove(ctx context.Context) error {
	_, err := q.client.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: q.url})
	if err != nil && !isOf[*types.QueueDoesNotExist](err) { // as in createBucket
		return fmt.Errorf("deleting queue %s: %w", q.name, err)
	}
	return nil
}
